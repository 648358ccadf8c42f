"""The cache: each file that it has of the plan is restored by a job that needs nothing else."""


rule restore:
    """
    Restore a file from the cache, and compare it with its digest. Runs on Snakemake's host, since it only moves bytes.
    """
    output:
        PLAN.layout.root / "{file}",
    log:
        "logs/restore/{file}.log",
    wildcard_constraints:
        file=either(path.relative_to(PLAN.layout.root).as_posix() for path in CACHED),
    localrule: True
    conda:
        environment("build")
    # The params of the rule that would make the file: it is not made once more because of another set of params.
    params:
        step=lambda wildcards: CACHED[PLAN.layout.root / wildcards.file].job.step,
    shell:
        r"""
        herdbook restore {output:q} >{log:q} 2>&1
        """
