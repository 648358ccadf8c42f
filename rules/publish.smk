"""Publishing: the release as one commit on the Hub. Never part of `all`."""

from herdbook.layout import SUMS


rule publish:
    """
    Publish the verified release. Runs on Snakemake's host, where the user is logged in, so that no token is sent elsewhere.
    """
    input:
        sums=[placed(one.layout.release_folder / SUMS) for one in PLAN.editions],
        verification=[placed(one.layout.verification) for one in PLAN.editions],
    output:
        [placed(one.layout.publication) for one in PLAN.editions],
    log:
        log_of("publish"),
    localrule: True
    conda:
        environment("build")
    message:
        "publish: one commit, read back, tagged and claimed; `herdbook publish --dry-run` shows its exact content beforehand"
    shell:
        HERDBOOK + r""" publish >{log:q} 2>&1
        """
