"""The cache: each file of the plan that it contains is restored by a job without inputs."""


rule restore:
    """
    Restore a file from the cache, and check its digest. Runs on Snakemake's host, since it only copies bytes.
    """
    output:
        placed(PLAN.layout.root / "{file}"),
    log:
        "logs/restore/{file}.log",
    wildcard_constraints:
        file=either(path.relative_to(PLAN.layout.root).as_posix() for path in CACHED),
    localrule: True
    conda:
        environment("build")
    # The params of the rule that would make the file, so that Snakemake does not rebuild it because of other params.
    params:
        step=lambda wildcards: CACHED[PLAN.layout.root / wildcards.file].job.step,
    shell:
        HERDBOOK + r""" restore {output:q} >{log:q} 2>&1
        """
