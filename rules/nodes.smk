"""Builds on machines that share no disk, instead of all other rules: results are made there, and handed on by the cache.

The command of a job takes its inputs from the cache by their keys, and leaves its result there. For Snakemake's own storage
remains an empty file for each job, so that this host knows that it is done. Its name is of this run alone: in the next one,
the cache itself is asked what exists. The release is then made by the other rules, on any machine with that cache.
"""

for name in sorted({job.rule for job in NODES.here}):

    rule:
        name:
            f"{name}_here"
        input:
            awaited(name),
        output:
            touch(mark(name, "{id}")),
        log:
            f"logs/{name}/{{id}}.log",
        wildcard_constraints:
            id=either(job.id for job in NODES.here if job.rule == name),
        localrule: True
        params:
            words=command(name),
        shell:
            r"""
            herdbook {params.words} >{log:q} 2>&1
            """


for name in sorted({job.rule for job in NODES.away}):

    rule:
        name:
            name
        input:
            awaited(name),
        output:
            touch(mark(name, "{id}")),
        log:
            f"logs/{name}/{{id}}.log",
        wildcard_constraints:
            id=either(job.id for job in NODES.away if job.rule == name),
        threads: cores
        resources:
            gpu=gpus,
            gpu_mem_mb=gpu_memory,
            mem_mb=memory,
            disk_mb=disk_with_inputs,
            runtime=minutes,
        params:
            words=command(name),
        shell:
            r"""
            herdbook {params.words} >{log:q} 2>&1
            """
