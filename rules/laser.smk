"""LASER: chosen matrices replaced by approximations of lower rank; all else copied."""


rule laser:
    """
    Make one shard of a lasered model.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/laser/{part}.log",
    wildcard_constraints:
        part=ids("laser"),
    conda:
        "../envs/build.yaml"
    resources:
        mem_mb=part_memory,
    params:
        key=part_key,
    shell:
        r"""
        herdbook laser {params.key} >{log:q} 2>&1
        """
