"""The cache: what it has of the plan is taken over, file by file, by a job that needs nothing else."""


rule take:
    """
    Take a file over from the cache, and compare it with its digest. Runs where Snakemake does: it moves bytes only.
    """
    output:
        "results/{taken}",
    log:
        "logs/take/{taken}.log",
    wildcard_constraints:
        taken=either(name.removeprefix("results/") for name in CACHED),
    localrule: True
    conda:
        environment("build")
    params:
        key=lambda wildcards: CACHED[f"results/{wildcards.taken}"].key,
    shell:
        r"""
        herdbook take {output:q} >{log:q} 2>&1
        """
