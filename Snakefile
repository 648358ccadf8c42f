"""Herdbook: from a recipe to a verified release. The steps are in rules/, their logic in the package `herdbook`."""

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.27")

# Rules and package are written together. A workflow that was deployed from a tag, or a checkout, can meet another package.
VERSION = "0.10.0"
try:
    from herdbook import __version__
except ModuleNotFoundError:
    raise WorkflowError(
        "the package herdbook is not installed in the environment of Snakemake: `pip install` this folder or its wheel (README.md)"
    ) from None
if __version__ != VERSION:
    raise WorkflowError(
        f"{workflow.current_basedir.get_path_or_uri(secret_free=True)}: is the workflow of Herdbook {VERSION}, and the package that is "
        f"installed is {__version__}. Install version {VERSION}, or use the workflow that the package contains (workflow.md)"
    )


configfile: "config/config.yaml"


include: "rules/settings.smk"
include: "rules/deployment.smk"
include: "rules/common.smk"
include: "rules/start.smk"


rule all:
    """
    Make the release, and verify it.
    """
    input:
        goals(),
    localrule: True


include: "rules/targets.smk"
include: "rules/resources.smk"


# Jobs on machines that share no disk have rules of their own.
if APART:

    include: "rules/nodes.smk"

else:

    include: "rules/restore.smk"
    include: "rules/fetch.smk"
    include: "rules/laser.smk"
    include: "rules/adapter.smk"
    include: "rules/merge.smk"
    include: "rules/moe.smk"
    include: "rules/compress.smk"
    include: "rules/assemble.smk"
    include: "rules/routing.smk"
    include: "rules/data.smk"
    include: "rules/evaluate.smk"
    include: "rules/imatrix.smk"
    include: "rules/quantize.smk"
    include: "rules/loss.smk"
    include: "rules/card.smk"
    include: "rules/release.smk"
    include: "rules/attest.smk"
    include: "rules/verify.smk"
    include: "rules/publish.smk"
