"""LASER: chosen matrices are replaced by approximations of lower rank; all other tensors are copied."""


rule search:
    """
    Choose a lasered model's matrices and ranks, if the recipe leaves them open.
    """
    input:
        inputs,
    output:
        placed(PLAN.layout.search(ANY)),
    log:
        "logs/search/{id}.log",
    wildcard_constraints:
        id=ids("search"),
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


use rule fetch as laser with:
    """
    Reduce the chosen matrices of one shard, copy its other tensors, and write its record.
    """
    log:
        "logs/laser/{id}.log",
    wildcard_constraints:
        id=ids("laser"),
    group:
        copies
