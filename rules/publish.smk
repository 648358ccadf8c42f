"""Publishing: the release as one commit on the Hub. Never part of `all`."""


rule publish:
    """
    Publish the verified release. Runs where Snakemake does: there the account is logged in, and no token travels.
    """
    input:
        sums=PLAN.layout.release_folder / "SHA256SUMS",
        verification=PLAN.layout.verification,
    output:
        PLAN.layout.publication,
    log:
        "logs/publish/publish.log",
    localrule: True
    conda:
        environment("build")
    message:
        "publish: one commit, read back, tagged, claimed; before, `herdbook publish --dry-run` shows exactly what it holds"
    shell:
        r"""
        herdbook publish >{log:q} 2>&1
        """
