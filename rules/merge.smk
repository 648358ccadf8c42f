"""Dense merges: several models of one form become one, or layers of several are stacked."""


rule merge:
    """
    Make one shard of a dense merge.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/merge/{part}.log",
    wildcard_constraints:
        part=ids("merge"),
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
        herdbook merge {params.key} >{log:q} 2>&1
        """
