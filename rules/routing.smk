"""Routing: what the routers of the released mixture choose, on the recipe's texts and on the experts' prompts."""

if PLAN.report and made(PLAN.layout.report(PLAN.report)):

    rule routing:
        """
        Report what the released mixture's routers choose.
        """
        input:
            lambda wildcards: needs([PLAN.layout.report(PLAN.report)], folder_paths(PLAN.released)),
        output:
            PLAN.layout.report(PLAN.report),
        log:
            f"logs/routing/{PLAN.report.id}.log",
        conda:
            environment("build")
        threads: estimates.threads(PLAN, PLAN.report)
        resources:
            gpu=gpus(),
            gpu_mem_mb=gpu_megabytes(estimates.gpu_bytes(PLAN, PLAN.report, 1, GPU_BYTES)),
            mem_mb=lambda wildcards, threads, attempt: megabytes(
                estimates.memory_bytes(PLAN, PLAN.report, threads), attempt
            ),
            disk_mb=disk_megabytes(estimates.disk_bytes(PLAN, PLAN.report)),
            runtime=lambda wildcards, threads, attempt: minutes(
                estimates.seconds(PLAN, PLAN.report, threads), attempt
            ),
        params:
            key=PLAN.report.key,
        shell:
            r"""
            herdbook routing --threads {threads} >{log:q} 2>&1
            """
