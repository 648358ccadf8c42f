"""The settings: what the configuration says, and the environment from which every step reads it."""

import shlex
from pathlib import Path

from herdbook import settings
from herdbook.cli.repository import located_problems
from herdbook.tuning.build import are_of
from snakemake.exceptions import WorkflowError

MAIN = workflow.modifier.is_main_snakefile()  # not a module of another workflow
DRY = workflow.output_settings.dryrun  # nothing is written then, not even to see whether it can be
# The process of a job takes the settings that its build was started with, whatever has been written to the files since.
OF_THE_BUILD = MAIN and not workflow.is_main_process and settings.are_set()
# A cluster's file, which Snakemake merges into the configuration, also has keys that are no settings of steps.
others = settings.CLUSTER_KEYS if workflow.overwrite_configfiles else ()
files = [Path("config/config.yaml"), *workflow.overwrite_configfiles] if MAIN else []
if MAIN:
    where = "--config"
else:  # by its prefix, since a module does not know the name that the workflow gives it
    prefix = workflow.modifier.path_modifier.prefix
    where = f"the config of the module with prefix {prefix!r}" if prefix else "the config of the module"
if not OF_THE_BUILD and (found := located_problems(config, files, where, others)):
    raise WorkflowError(*found)
# Snakemake gives a module no configuration but its own: what the workflow's says, also with --config, would have no effect.
if not MAIN:
    outer = workflow.modifier.parent_modifier.globals["config"]
    if lost := settings.not_handed_on(outer, config, others):
        raise WorkflowError(
            f"{where}: lacks {', '.join(lost)}, which the configuration of the workflow sets. Hand on all of it, config: "
            '{**config, "recipe": ...}; or set the same key there, if need be to ""'
        )
# Snakemake puts the prefix of a module before the paths that it is handed.
PREFIX = workflow.modifier.path_modifier
RESULTS = PREFIX.replace_prefix(settings.RESULTS.default)
# `herdbook tune` builds trials in place of the recipe that they are of.
configured = dict(config)
if trials := settings.TRIALS.value:
    if MAIN or are_of(trials, settings.RECIPE.configured(config)):
        configured["recipe"] = trials
# Every step reads the settings from its environment. As params, they would cause a rerun for each recipe or machine that
# shares the result.
try:
    if not OF_THE_BUILD:
        settings.pass_on(configured, RESULTS, vars(workflow).setdefault("herdbook_settings", {}))
except ValueError as error:
    raise WorkflowError(str(error)) from None
# The environment is that of all modules, so the steps of each are given what is its own.
HERDBOOK = "herdbook"
if not MAIN:
    own = [f"{one.variable}={shlex.quote(one.value)}" for one in settings.OF_A_BUILD]
    HERDBOOK = " ".join((*own, HERDBOOK))
