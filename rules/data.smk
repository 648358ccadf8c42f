"""Data sets of evaluations, fetched before anything is measured: their files follow from the lock, so the rule names them all."""

for job in JOBS:
    if job.rule == "data" and made(job):

        rule:
            name:
                job.rule
            output:
                [placed(path) for path in job.outputs],
            log:
                f"logs/data/{job.id}.log",
            # What is wrong with a task is known before models are built.
            priority: 100
            conda:
                environment("evaluate")
            resources:
                mem_mb=rounded(needs.memory_bytes(PLAN, job.subject), 10**6),
                disk_mb=rounded(needs.disk_bytes(PLAN, job.subject), 10**6),
                runtime=rounded(needs.seconds(PLAN, job.subject), 60),
            params:
                key=job.key,
            shell:
                HERDBOOK + r""" data >{log:q} 2>&1
                """
