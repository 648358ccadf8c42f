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
        threads: max(4, cores_beside(PLAN.released.size_bytes))
        resources:
            gpu=gpus(),
            gpu_mem_mb=gpu_megabytes(gpu.report_bytes(PLAN.report)),
            mem_mb=lambda wildcards, threads, attempt: megabytes(
                PLAN.report.memory_bytes + (threads - 1) * PLAN.report.thread_bytes, attempt
            ),
            disk_mb=disk_megabytes(disk.LEAST_BYTES),
            runtime=lambda wildcards, threads, attempt: minutes(
                duration.report_seconds(PLAN, PLAN.report, threads), attempt
            ),
        params:
            key=PLAN.report.key,
        shell:
            r"""
            herdbook routing --threads {threads} >{log:q} 2>&1
            """
