"""Model folders, as transformers loads them: links to shards, an index, configuration and tokenizer.

Links are made where Snakemake runs, as they take less than a cluster's queue; and there a source's tokenizer can be had.
Which files a folder has follows from the lock, so each model has rules of its own that name them all. A source's
configuration and tokenizer have one apart from its weights: models that descend from it need the former alone.
"""

for job in JOBS:
    if job.rule in OF_A_MODEL and made(job):

        rule:
            name:
                f"{job.rule}_{job.subject.name}"
            input:
                lambda wildcards, job=job: needed(job),
            output:
                job.outputs,
            log:
                f"logs/{job.rule}/{job.id}.log",
            localrule: True
            conda:
                environment("build")
            params:
                step=job.step,
            shell:
                r"""
                herdbook {params.step} >{log:q} 2>&1
                """
