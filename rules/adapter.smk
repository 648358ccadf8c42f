"""Adapters: LoRA matrices folded into the model that they were trained on."""


rule adapter:
    """
    Make one shard of a model with an adapter folded in.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/adapter/{part}.log",
    wildcard_constraints:
        part=ids("adapter"),
    conda:
        environment("build")
    resources:
        mem_mb=part_memory,
        disk_mb=part_disk,
        runtime=part_minutes,
    params:
        key=part_key,
    shell:
        r"""
        herdbook adapter {params.key} >{log:q} 2>&1
        """
