"""Routing: what the routers of the released mixture choose, on the recipe's texts and on the experts' prompts."""

if PLAN.report and made(PLAN.report_file(PLAN.report)):

    rule routing:
        """
        Report what the released mixture's routers choose.
        """
        input:
            lambda wildcards: needs([PLAN.report_file(PLAN.report)], folder_paths(PLAN.released)),
        output:
            PLAN.report_file(PLAN.report),
        log:
            f"logs/routing/{PLAN.report.id}.log",
        conda:
            environment("build")
        threads: max(4, cores_beside(PLAN.released.size_bytes))
        resources:
            gpu=gpus(),
            gpu_mem_mb=gpu_megabytes(gpu.report_bytes(PLAN.report)),
            # What threads freed stays with them: the miniature's took 0.7 GB with one, 2.3 with two, 2.4 with four.
            mem_mb=lambda wildcards, threads, attempt: megabytes(
                PLAN.report.memory_bytes * min(threads, 3), attempt
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
