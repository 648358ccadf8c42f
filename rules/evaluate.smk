"""Evaluation: every model that the recipe names, and every quantized file, by lm-eval on locked local tasks."""


rule evaluate_one:
    """
    Measure one model or quantized file on all tasks.
    """
    input:
        inputs,
    output:
        result=placed(PLAN.layout.evaluation(ANY)),
        samples=placed(PLAN.layout.samples(ANY)),
    log:
        "logs/evaluate/{id}.log",
    wildcard_constraints:
        id=ids("evaluate"),
    conda:
        environment("evaluate")
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
