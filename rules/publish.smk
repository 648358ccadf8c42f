"""Publishing: the release as one commit on the Hub. Never part of `all`."""


rule publish:
    """
    Publish the verified release. Runs on Snakemake's host, where the user is logged in, so that no token is sent elsewhere.
    """
    input:
        sums=PLAN.layout.release_folder / SUMS,
        verification=PLAN.layout.verification,
    output:
        PLAN.layout.publication,
    log:
        "logs/publish/publish.log",
    localrule: True
    conda:
        environment("build")
    message:
        "publish: one commit, read back, tagged and claimed; `herdbook publish --dry-run` shows its exact content beforehand"
    shell:
        r"""
        herdbook publish >{log:q} 2>&1
        """
