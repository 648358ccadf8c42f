"""The start and the end of a build: what is refused before anything runs, the lock on the results, the server of forks."""

import os
from pathlib import Path

from herdbook import needs, settings
from herdbook.errors import HerdbookError
from herdbook.files import remove_abandoned
from herdbook.forkserver import start as forkserver
from herdbook.humanize import plural
from herdbook.plan.jobs import TARGETS
from herdbook.progress import say
from herdbook.signing.keys import PASSWORD_VARIABLE
from herdbook.tools import exclusive
from snakemake.exceptions import WorkflowError

# The targets, and the rules of their jobs. Named now: when a build starts, the modifier is that of the workflow.
WITHOUT_EFFECT = {
    workflow.modifier.modify_rulename(target): workflow.modifier.modify_rulename(jobs)
    for target, jobs in [(name, f"{name}_one") for name in TARGETS] + [("models", "assemble_MODEL")]
}


def refuse_targets(options):
    """Refuse options about rules that name a target, whose own job does nothing: they would have no effect, in silence.

    Args:
        options: The names of rules in each option.
    """
    for target, jobs in WITHOUT_EFFECT.items():
        for option in (option for option, names in options.items() if target in names):
            raise WorkflowError(f"{option}: {target} is a target; the rule of its jobs is {jobs}")


refuse_targets(
    {
        "set-threads": workflow.resource_settings.overwrite_threads,
        "set-resources": workflow.resource_settings.overwrite_resources,
    }
)


def missing_software():
    """Return a line for each program or package that a job of this run needs and that is not installed here."""
    if CONDA or CONTAINER:  # which have them
        return []
    planned = {Path(file) for job in workflow.dag.needrun_jobs() for file in job.output}
    return needs.missing_software(job for job in JOBS if made(job) and planned.intersection(job.outputs))


onsuccess:
    forkserver.stop()
    if APART and not trials:
        say(NODES.closing())


onerror:
    forkserver.stop()


onstart:
    # Schedulers keep the environment of every job, where administrators can read it.
    if workflow.non_local_exec and os.environ.get(PASSWORD_VARIABLE):
        raise WorkflowError(
            f"${PASSWORD_VARIABLE} is set, and would be sent to other hosts with every job. Unset it and build without "
            "signing_key; then sign on the host of the key: snakemake --cores 1 --config signing_key=FILE"
        )
    # Snakemake calls this neither in a dry run nor in the processes of jobs.
    if workflow.touch:
        raise WorkflowError(
            "--touch would pass old results off as those of this recipe, or make nothing. Leave it out: times do not matter, since the "
            "names of results contain their keys; `herdbook explain all` tells what would be rebuilt, and why"
        )
    dag = workflow.dag_settings
    refuse_targets(
        {
            "omit-from": dag.omit_from,
            "forcerun": dag.forcerun,
            "force": dag.targets if dag.forcetargets else (),
            "groups": workflow.group_settings.overwrite_groups,
        }
    )
    try:
        exclusive.hold(PLAN.layout.running, f"building {PLAN.recipe_path}")
        remove_abandoned(PLAN.layout.root)
    except (HerdbookError, OSError) as error:
        raise WorkflowError(str(error)) from None
    missing = missing_software()
    if missing and not workflow.non_local_exec:
        raise WorkflowError("\n".join(missing))
    for line in missing:  # other hosts may have it
        say(f"warning: on this host: {line}")
    # On a GPU, models are of a size at which imports do not matter; and a fork of a process that has used one cannot use it.
    if not (workflow.non_local_exec or DEPLOYED or ON_GPU):
        forkserver.start()
    if APART:
        for repository, count in NODES.withheld.items():
            jobs = plural(count, "job stays", "jobs stay")
            say(
                f"{jobs} on this host: gated {repository} is not named by `gated` (docs/no-shared-disk.md)"
            )


def followed(first, second):
    """Return a hook of the workflow that calls another one, and then that of a module, which has its log."""

    def both(log):
        first(log)
        second()

    return both


# Snakemake calls no hooks of a module. So they follow those of the workflow, unless it has one after the module: that one replaces
# them, and has to call the module's (workflow.md). Once for a module, since each `use rule` reads this file again.
called = vars(workflow).setdefault("herdbook_modules", set())
if not MAIN and (RESULTS, settings.RECIPE.value) not in called:
    called.add((RESULTS, settings.RECIPE.value))
    workflow._onstart = followed(workflow._onstart, onstart)
    workflow._onsuccess = followed(workflow._onsuccess, onsuccess)
    workflow._onerror = followed(workflow._onerror, onerror)
