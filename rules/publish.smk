"""Publishing: the release as one commit on the Hub. Never part of `all`."""

import subprocess


class ExactCommit:
    """
    What the job would commit. Asked for when a dry run prints the job, and then only: nothing is written. What jobs
    before it are to make is not there yet; the command says so if the release is not the recipe's.
    """

    def __format__(self, _):
        if not workflow.dryrun:
            return "one commit, read back, tagged, claimed"
        shown = subprocess.run(["herdbook", "publish", "--dry-run"], capture_output=True, text=True)
        return f"the release as it lies there now\n{shown.stdout or shown.stderr}"


EXACT_COMMIT = ExactCommit()


rule publish:
    """
    Publish the verified release. Runs where Snakemake does: there the account is logged in, and no token travels.
    """
    input:
        sums=PLAN.release_folder / "SHA256SUMS",
        verification=PLAN.release_root / "verification.json",
    output:
        PLAN.release_root / "publication.json",
    log:
        "logs/publish/publish.log",
    localrule: True
    message:
        "publish: {EXACT_COMMIT}"
    shell:
        r"""
        herdbook publish >{log:q} 2>&1
        """
