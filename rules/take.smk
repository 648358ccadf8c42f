"""The cache: what it has of the plan is taken over, file by file, by a job that needs nothing else."""


rule take:
    """
    Take a file over from the cache, and compare it with its digest. Runs where Snakemake does: it moves bytes only.
    """
    output:
        PLAN.layout.root / "{taken}",
    log:
        "logs/take/{taken}.log",
    wildcard_constraints:
        taken=either(path.relative_to(PLAN.layout.root).as_posix() for path in CACHED),
    localrule: True
    conda:
        environment("build")
    # The params of the rule that would make the file: it is not made once more because of another set of params.
    params:
        rule=lambda wildcards: CACHED[PLAN.layout.root / wildcards.taken].kind,
        key=lambda wildcards: CACHED[PLAN.layout.root / wildcards.taken].key,
    shell:
        r"""
        herdbook take {output:q} >{log:q} 2>&1
        """
