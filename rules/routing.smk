"""Routing: which experts the released mixture's routers choose, for the recipe's texts and the experts' prompts."""


rule routing:
    """
    Report which experts the released mixture's routers choose.
    """
    input:
        inputs,
    output:
        placed(PLAN.layout.report(ANY)),
    log:
        "logs/routing/{id}.log",
    wildcard_constraints:
        id=ids("routing"),
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
        HERDBOOK + r""" routing --threads {threads} >{log:q} 2>&1
        """
