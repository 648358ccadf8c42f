"""Builds on machines that share no disk, instead of all other steps: results are made there, and handed on by the cache.

The command of a job takes its inputs from the cache by their keys, and leaves its result there. For Snakemake's own storage
remains an empty file for each job, so that this host knows that it is done. Its name is of this run alone: in the next one,
the cache itself is asked what exists. The release is then made by the other rules, on any machine with that cache.
"""

from herdbook.plan.jobs import TARGETS

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
            f"{name}_one" if name in TARGETS else name
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


rule restore:
    """
    Take a file of the results from the cache to this host.
    """
    input:
        lambda wildcards: marks([PLAN.layout.root / wildcards.file]),
    output:
        local(str(PLAN.layout.root / "{file}")),
    log:
        "logs/restore/{file}.log",
    wildcard_constraints:
        file=either(path.relative_to(PLAN.layout.root).as_posix() for path in NODES.files),
    localrule: True
    shell:
        r"""
        herdbook restore {output:q} >{log:q} 2>&1
        """


# Measurements of trials are read here. Snakemake would look for a file that is a target in its own storage, so each has a rule
# with the file's name.
for path in sorted(map(str, made_by("evaluate"))) if trials else ():

    rule:
        name:
            path
        input:
            local(path),
        localrule: True
