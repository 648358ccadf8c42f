"""Model folders for transformers: links to shards, an index, configuration and tokenizer.

Links are made on Snakemake's host: that takes less time than a cluster's queue, and the host can download a source's
tokenizer. The files of a folder follow from the lock, so each model has rules of its own that name them all. A source's
configuration and tokenizer have a rule of their own, since models that descend from it do not need its weights.
"""

for job in JOBS:
    if job.rule in OF_A_MODEL and made(job):

        rule:
            name:
                f"{job.rule}_{job.subject.name}"
            input:
                lambda wildcards, job=job: needed(job),
            output:
                [placed(path) for path in job.outputs],
            log:
                f"logs/{job.rule}/{job.id}.log",
            priority: AWAITED
            localrule: True
            conda:
                environment("build")
            params:
                step=job.step,
            shell:
                HERDBOOK + r""" {params.step} >{log:q} 2>&1
                """
