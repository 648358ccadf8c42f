"""Where jobs run, and with which software: on this machine or others, in conda environments, or in a container."""

import os
import secrets
from pathlib import Path

from herdbook import settings
from herdbook.tools import container as images
from herdbook.tools import installed
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import SharedFSUsage

# Whether jobs run on machines that share no disk with this one: rules/nodes.smk.
APART = SharedFSUsage.INPUT_OUTPUT not in workflow.storage_settings.shared_fs_usage
if workflow.remote_exec or APART:  # jobs on other hosts sign nothing
    os.environ[settings.SIGNING_KEY.variable] = ""
if APART and not MAIN:
    raise WorkflowError(
        "jobs on machines that share no disk are run by the workflow itself, not as a module of another"
    )
if workflow.storage_settings.default_storage_provider and not APART:
    # Some executors imply it, but Snakemake sets it after it has read this file.
    raise WorkflowError(
        "default-storage-provider is for machines that share no disk: add `shared-fs-usage: none` to the profile, or "
        "--shared-fs-usage none"
    )
RUN = (os.environ.get(settings.RUN.variable) or secrets.token_hex(8)) if APART else ""
os.environ[settings.RUN.variable] = RUN
# With `--sdm conda`, every environment contains the herdbook that runs here, and packages of its own. Results are then made
# with the versions in the lock, from which all environments are made, whatever is installed here.
DEPLOYED = {str(method) for method in workflow.deployment_settings.deployment_method}
CONDA = "conda" in DEPLOYED
CONTAINER = settings.CONTAINER.value if "apptainer" in DEPLOYED else ""
# Snakemake would ignore another method. No image of Herdbook is published, so the rules name none but the setting's.
if MAIN and (without := sorted(DEPLOYED - {"conda", "apptainer" if CONTAINER else ""})):
    if without == ["env-modules"]:
        raise WorkflowError(
            "--software-deployment-method env-modules: the rules name no environment modules, so it would have no effect. Load the "
            "module of your Python, install Herdbook there, and leave out the option; or use conda (envs/README.md)"
        )
    raise WorkflowError(
        f"--software-deployment-method {' '.join(without)}: the rules name no containers and no modules, so it would have no effect. "
        f"Use conda; or make an image: {images.advice()}"
    )
if CONTAINER and CONDA:
    raise WorkflowError(
        "conda environments are not made in a container: use one of --software-deployment-method conda and apptainer"
    )
if CONTAINER and "://" not in CONTAINER and not Path(CONTAINER).is_file():
    raise WorkflowError(f"container: {CONTAINER} does not exist. Make it: {images.advice()}")
if CONTAINER:

    container: CONTAINER


if CONDA:
    os.environ[settings.REQUIREMENT.variable] = installed.requirement()
    os.environ[settings.PINS.variable] = str(installed.root() / installed.LOCK)
if APART and (CONDA or CONTAINER):
    raise WorkflowError(
        "no software is deployed on machines that share no disk: their image contains the programs "
        "(envs/README.md). Leave out --software-deployment-method."
    )


envvars:
    *(setting.variable for setting in settings.SETTINGS),


def environment(name):
    """Return the conda environment of a step; if the device is NVIDIA's, the one with torch's CUDA build."""
    kind = ".cuda" if settings.DEVICE.value.startswith("cuda") else ""
    return f"../envs/{name}{kind}.yaml"
