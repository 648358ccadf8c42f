"""Evaluation: every model that the recipe names, and every quantized file, by lm-eval on locked local tasks."""


rule evaluate:
    """
    Measure one model or quantized file on all tasks.
    """
    input:
        evaluation_inputs,
    output:
        "results/evaluations/{evaluation}.json",
    log:
        "logs/evaluate/{evaluation}.log",
    wildcard_constraints:
        evaluation=either(name for name, item in EVALUATIONS.items() if made(PLAN.layout.evaluation(item))),
    conda:
        environment("evaluate")
    threads: evaluation_threads
    resources:
        gpu=evaluation_gpus,
        gpu_mem_mb=evaluation_gpu_memory,
        mem_mb=evaluation_memory,
        disk_mb=disk_megabytes(disk.evaluation_bytes(PLAN)),
        runtime=lambda wildcards, threads, attempt: minutes(
            duration.evaluation_seconds(PLAN, EVALUATIONS[wildcards.evaluation], threads), attempt
        ),
    params:
        key=lambda wildcards: EVALUATIONS[wildcards.evaluation].key,
    shell:
        r"""
        herdbook evaluate --threads {threads} {params.key} >{log:q} 2>&1
        """
