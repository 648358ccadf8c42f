"""Shared by all rules: the plan and its jobs, and the inputs of each job.

The package knows the jobs with their inputs and outputs (`herdbook.plan.jobs`); this file hands them to Snakemake.
"""

import functools
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import needs, settings
from herdbook.cache.nodes import Nodes, check_sent
from herdbook.cache.step import available, own_hub_folder
from herdbook.cli.steps import words
from herdbook.errors import HerdbookError
from herdbook.plan.beside import missing_beside
from herdbook.plan.jobs import OF_A_MODEL, all_jobs
from herdbook.plan.jobs import needed as made_for
from herdbook.plan.namesakes import replaced
from herdbook.signing.signer import configured_signer
from snakemake.exceptions import WorkflowError
from snakemake.io import flag
from snakemake.path_modifier import PATH_MODIFIER_FLAG
from snakemake.settings.types import RerunTrigger

if not settings.RECIPE.value:
    place = "config/config.yaml" if MAIN else where
    raise WorkflowError(f"{place}: names no recipe; set `recipe` to the path of one")
if not Path(settings.RECIPE.value).exists():
    raise WorkflowError(
        f"{settings.RECIPE.value}: no such file in {Path.cwd()}, the folder of the run (--directory), to which `recipe` is relative"
    )
try:
    # Another module's recipe may have searches of its own, which are tried later: of it, nothing is built now.
    load = plans.load_at_least_start if trials and configured["recipe"] != trials else plans.load
    PLAN = load(Path(settings.RECIPE.value), Path(RESULTS))
    JOBS = all_jobs(PLAN, configured_signer())
    if workflow.is_main_process and not trials and (other := replaced(PLAN)):
        raise WorkflowError(
            f"{PLAN.layout.release_folder} is the release of {other}, which {PLAN.recipe_path} would replace, since both have the "
            f"release.name {PLAN.recipe.release.name}. Give one of them another name; or move that release away, or delete it"
        )
    # Looked up once, before jobs are chosen; the process of a job does not choose jobs.
    CACHED = available(PLAN, writes=not DRY) if workflow.is_main_process and not APART else {}
    NODES = Nodes(PLAN) if APART else None
    if NODES and workflow.is_main_process:
        if trials:  # written just now, so git does not know them
            workflow.configfiles += map(os.path.abspath, (PLAN.recipe_path, locks.path_for(PLAN.recipe_path)))
        check_sent(PLAN, workflow.configfiles)
        NODES.look_up(writes=not DRY)
    if not DRY and (hub_folder := own_hub_folder()):
        os.environ.update(HF_HUB_CACHE=str(hub_folder))
except HerdbookError as error:
    raise WorkflowError("\n".join(error.lines)) from None
except OSError as error:
    raise WorkflowError(str(error)) from None

# In a path, Snakemake takes a name in braces for a wildcard, and has no way to escape it.
folder = workflow.current_basedir.get_path_or_uri(secret_free=True)
for path in (folder, HERDBOOK, *(str(path) for job in JOBS for path in job.inputs)):
    if set(path) & set("{}"):
        raise WorkflowError(f"{path}: Snakemake cannot use a path with braces. Rename the file or folder.")

# The priority of jobs that many others wait for, or that take long and alone. Measurements come after them: they are many, and fill
# the cores up to the end.
AWAITED = 1

BY_ID = {job.id: job for job in JOBS if job.id and job.rule not in OF_A_MODEL}
OF_THE_RELEASE = {job.rule: job for job in JOBS if not job.id}
# In a path of the layout, it represents the id of any job.
ANY = SimpleNamespace(id="{id}")


def made_by(rule):
    """Return the files that all jobs of a rule make."""
    return [path for job in JOBS if job.rule == rule for path in job.outputs]


def part(rule):
    """
    Return the inputs of a target: what all jobs of a rule make. If the recipe asks for none, return a file that nothing makes, and
    whose name says so: Snakemake refuses the target with it, and would else make nothing, in silence.
    """
    paths = made_by(rule)
    if not paths:
        recipe = str(PLAN.recipe_path).replace("{", "").replace("}", "")  # else it would have a wildcard
        return [f"nothing to make: {recipe} has no `{rule}`"]
    return marks(paths) if APART else [placed(path) for path in paths]


def made(job):
    """Return whether a job's files are made by its step, since the cache does not contain them."""
    return CACHED.keys().isdisjoint(job.outputs)


def ids(rule):
    """Return a pattern of the ids of a rule's jobs, so that no other rule matches their outputs."""
    return either(job.id for job in JOBS if job.rule == rule and made(job))


def either(names):
    """Return a pattern that matches any of the names; with no names, it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def needed(job):
    """
    Return the inputs of a job; none if its outputs exist. Their paths contain a key that covers everything they are made
    from, so existing outputs are correct, and neither their inputs nor modification times matter. All of them if Snakemake
    compares sets of inputs, as it does without the default profile: then they may not depend on what exists.
    """
    dag = workflow.dag_settings
    always = dag.forceall or dag.forcerun or dag.forcetargets or RerunTrigger.INPUT in workflow.rerun_triggers
    missing = not all(path.exists() for path in job.outputs)
    awaited = awaited_copies(job) if missing else ()
    lost = lost_beside(job) if missing else []
    return [*(placed(path) for path in (*job.inputs, *awaited)), *lost] if always or missing else []


def lost_beside(job):
    """
    Return what a job would not find beside the recipe, as names of files that nothing makes: Snakemake refuses the job with them,
    before anything runs and in a dry run, too.
    """
    if not workflow.is_main_process or not made(job):
        return []
    return [placed(line.replace("{", "").replace("}", "")) for line in missing_beside(PLAN, job)]


def awaited_copies(job):
    """
    Return the files that a job waits for to copy from them what it would else make itself: those that this run makes, or has,
    for its targets. It also copies from whatever else exists when it runs.
    """
    dag = workflow.dag_settings
    # Inputs may not depend on targets if Snakemake compares them.
    partial = dag.until or dag.omit_from or RerunTrigger.INPUT in workflow.rerun_triggers
    # When the process of a job starts, all is there. The targets of a workflow that Herdbook is a module of are unknown here.
    if partial or not MAIN or not workflow.is_main_process:
        return []
    return [path for path in job.copied if path in made_anyway()]


@functools.cache
def made_anyway():
    """Return the files that are made or exist for this run's targets, whatever copies from them."""
    named = workflow.dag_settings.targets or {workflow.default_target}
    files = set()
    for name in named:
        if workflow.is_rule(name):
            target = workflow.get_rule(name)
            files.update(str(file) for file in (*target.input, *target.output) if not callable(file))
        else:
            files.add(name)
    asked = {Path(os.path.relpath(file)) for file in files}
    jobs = made_for(JOBS, [job for job in JOBS if not asked.isdisjoint(relative(job.outputs))])
    return {path for job in jobs for path in job.outputs}


def relative(paths):
    """Return paths as they are from the working folder."""
    return {Path(os.path.relpath(path)) for path in paths}


def placed(path):
    """Return a path of the plan as it is handed to Snakemake, which adds no prefix: those below the results have it."""
    if RESULTS == settings.RESULTS.default:
        return str(path)
    return flag(PREFIX.apply_default_storage(str(path)), PATH_MODIFIER_FLAG)


REPORTED = {".svg": "Figures", ".md": "Card", ".html": "Page", ".json": "Tables"}


def reported(path):
    """Return an output as Snakemake's report shows it: pictures, card, page and tables."""
    kind = REPORTED.get(path.suffix)
    return report(placed(path), category=kind) if kind else placed(path)


def goals():
    """
    Return the inputs of the target `all`: the verified release; or, on machines that share no disk, what it is made of. Each
    file of it is a goal, since Snakemake does not miss a file that lies between goals and is not to be made again for them.
    """
    if not APART:
        last = ("verify", "attest", "release", "card")
        return [placed(path) for rule in last for path in OF_THE_RELEASE[rule].outputs]
    return marks(path for rule in ("card", "release") for path in OF_THE_RELEASE[rule].inputs)


def mark(rule, id):
    """Return the empty file that stands for a finished job, in this run, on machines that share no disk."""
    return f"marks/{RUN}/{rule}/{id}"


def log_of(rule):
    """Return the log of a rule that has one job for the release, so that each recipe in a folder has its own."""
    return f"logs/{rule}/{PLAN.layout.release}.log"


def marks(paths):
    """Return the marks of the jobs that make files, unless the cache contains them."""
    # The process of a job asks nobody: its command takes what it needs.
    return [mark(job.rule, job.id) for job in NODES.awaited(paths)] if workflow.is_main_process else []


def awaited(rule):
    """Return a rule's function of inputs on machines that share no disk: the marks of what a job awaits."""
    jobs = {job.id: job for job in JOBS if job.rule == rule}
    return lambda wildcards: marks((*jobs[wildcards.id].inputs, *jobs[wildcards.id].copied))


def command(rule):
    """Return a rule's function of the arguments with which `herdbook` does a job."""
    jobs = {job.id: job for job in JOBS if job.rule == rule}
    return lambda wildcards, threads: shlex.join(words(jobs[wildcards.id], threads))


# Snakemake calls the functions below for a rule's directives, with the wildcard that names the job.


def inputs(wildcards):
    """Return the files that the job waits for."""
    return needed(BY_ID[wildcards.id])


def step(wildcards):
    """Return the job's rule and key as one string, the arguments of `herdbook`; a change of it causes a rerun."""
    # The only param: Snakemake would rebuild a restored file if the params of `restore` differed from those of its rule.
    return BY_ID[wildcards.id].step


def unsigned(wildcards):
    """Return the option that accepts a release without signatures: a recipe may name who signs, and this machine not have the key."""
    return "--unsigned" if PLAN.recipe.release.signer and not configured_signer() else ""


def further_verifications(wildcards):
    """Return the command that verifies the release of the quantized files, if they have one of their own."""
    log = shlex.quote(PREFIX.replace_prefix(log_of("verify")))
    accepted = [unsigned(wildcards)] if unsigned(wildcards) else []
    commands = []
    for one in PLAN.editions[1:]:
        reports = ("--json", one.layout.verification, "--page", one.layout.page, "--build", one.layout.root)
        words = ("herdbook", "verify", one.layout.release_folder, *reports, *accepted)
        commands.append(f"{shlex.join(map(str, words))} >>{log} 2>&1")
    return "\n".join(commands)


def copies(wildcards):
    """Return the group of a job that only copies tensors: a cluster gets several in one submission. None for others."""
    job = BY_ID[wildcards.id]
    return f"{job.rule}_copies" if job.subject.is_copy else None
