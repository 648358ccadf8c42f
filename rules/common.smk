"""What the rules share: the settings, the plan and its jobs, and what each job reads.

The package knows the jobs with their inputs and outputs (`herdbook.plan.jobs`); this file hands them to Snakemake.
"""

import os
import re
from pathlib import Path
from types import SimpleNamespace

from herdbook import plan as plans
from herdbook import needs, settings
from herdbook.cache.step import available, own_hub_folder
from herdbook.errors import HerdbookError
from herdbook.layout import is_large
from herdbook.plan.jobs import OF_A_MODEL, all_jobs
from herdbook.signing.keys import PASSWORD_VARIABLE
from herdbook.steps.attest.step import configured_signer
from herdbook.tools import exclusive, installed
from snakemake.exceptions import WorkflowError

# Every step reads the settings from its environment. As params they would make a step run again for each recipe or
# machine that shares it.
os.environ |= {setting.variable: setting.configured(config) for setting in settings.SETTINGS}
if workflow.remote_exec:  # what runs elsewhere signs nothing
    os.environ[settings.SIGNING_KEY.variable] = ""
# With `--sdm conda` each step has the herdbook that runs here, and packages of its own; what results are made with is then
# what the lock says, which all environments are made from, whatever is installed here.
if any(str(method) == "conda" for method in workflow.deployment_settings.deployment_method):
    os.environ[settings.REQUIREMENT.variable] = installed.requirement()
    os.environ[settings.PINS.variable] = str(installed.root() / installed.LOCK)


envvars:
    *(setting.variable for setting in settings.SETTINGS),


onstart:
    # Schedulers keep the environment of every job, where administrators can read it.
    if workflow.non_local_exec and os.environ.get(PASSWORD_VARIABLE):
        raise WorkflowError(
            f"${PASSWORD_VARIABLE} is set, and would go to other hosts with every job. Build without it and without "
            "signing_key; then sign where the key is: snakemake --cores 1 --config signing_key=FILE"
        )
    # After dry runs have ended, and in no process that Snakemake starts for a job.
    try:
        exclusive.hold(PLAN.layout.running, settings.RECIPE.value)
    except (HerdbookError, OSError) as error:
        raise WorkflowError(str(error)) from None


try:
    PLAN = plans.load(Path(settings.RECIPE.value))
    JOBS = all_jobs(PLAN, configured_signer())
    # Asked once, before jobs are chosen: a job that runs elsewhere is chosen already.
    CACHED = available(PLAN) if workflow.is_main_process else {}
    if own := own_hub_folder():
        os.environ.update(HF_HUB_CACHE=str(own))  # need not be set otherwise
except (HerdbookError, OSError) as error:
    raise WorkflowError(str(error)) from None

BY_ID = {job.id: job for job in JOBS if job.id and job.rule not in OF_A_MODEL}
OF_THE_RELEASE = {job.rule: job for job in JOBS if not job.id}
# In a path of the layout it stands for the id of any job.
ANY = SimpleNamespace(id="{id}")


def made(job):
    """Return whether a job's files are made here, by its step: the cache does not have them."""
    return CACHED.keys().isdisjoint(job.outputs)


def ids(rule):
    """Return a pattern of what a rule makes, so that no other rule matches it."""
    return either(job.id for job in JOBS if job.rule == rule and made(job))


def either(names):
    """Return a pattern of names."""
    return "|".join(map(re.escape, names)) or "(?!)"


def environment(name):
    """Return the conda environment of a step; where the device is NVIDIA's, with the build of torch for it."""
    kind = ".cuda" if settings.DEVICE.value.startswith("cuda") else ""
    return f"../envs/{name}{kind}.yaml"


def needed(job):
    """
    Return what a job has to wait for: nothing if its outputs are there. A key is in their path that holds all that they
    are made from, so what lies there is right, and neither what it was made from nor any time counts any more.
    """
    asked = workflow.dag_settings
    forced = asked.forceall or asked.forcerun or asked.forcetargets
    return list(job.inputs) if forced or not all(path.exists() for path in job.outputs) else []


# Snakemake calls the functions below for a rule's directives, with the wildcard that names the job.


def inputs(wildcards):
    """Return what the job waits for."""
    return needed(BY_ID[wildcards.id])


def step(wildcards):
    """Return all that the job is, as `herdbook` takes it and as one string: a change of it makes the job run again."""
    # The only param: Snakemake would make a restored file again if the rule that restores had others than its maker.
    return BY_ID[wildcards.id].step


def copies(wildcards):
    """Return the group of copies of an operation, of which a cluster does several in one submission; none for others."""
    job = BY_ID[wildcards.id]
    return f"{job.rule}_copies" if job.subject.is_copy else None
