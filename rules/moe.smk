"""Mixtures of Experts: renamed copies of their parents, and routers, which alone are computed."""


rule moe:
    """
    Make one shard of a Mixture of Experts.
    """
    input:
        part_inputs,
    output:
        shard="results/shards/{part}.safetensors",
        record="results/shards/{part}.json",
    log:
        "logs/moe/{part}.log",
    wildcard_constraints:
        part=ids("moe"),
    group:
        copies_group
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
        herdbook moe {params.key} >{log:q} 2>&1
        """
