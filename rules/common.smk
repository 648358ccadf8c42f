"""What the rules share: the plan, and functions that read it. No logic of its own, and no rules."""

import os
from pathlib import Path

from herdbook import plan as plans
from herdbook.assemble.step import folder_files
from herdbook.attest.step import attest_key, attested_files, configured_signer
from herdbook.card.step import card_files, card_inputs, card_key
from herdbook.errors import HerdbookError
from herdbook.release.step import contents, written_files, release_key
from herdbook.verify.levels import verification_key
from snakemake.exceptions import WorkflowError

RECIPE = config["recipe"]
# Told to every step by the environment. As a param it would make a step run again for each recipe that shares it.
os.environ["HERDBOOK_RECIPE"] = RECIPE
# Likewise: where matrices are decomposed is this machine's business.
os.environ["HERDBOOK_DEVICE"] = config.get("device", "cpu")
# The path alone: the key itself is in no parameter, log or command line.
os.environ["HERDBOOK_SIGNING_KEY"] = config.get("signing_key") or ""
# For the summary alone, so no job is told.
os.environ["HERDBOOK_PRICE_PER_HOUR"] = str(config.get("price_per_hour") or "")


envvars:
    "HERDBOOK_RECIPE",
    "HERDBOOK_DEVICE",
    "HERDBOOK_SIGNING_KEY",


try:
    PLAN = plans.load(Path(RECIPE))
    SIGNER = configured_signer()
except HerdbookError as error:
    raise WorkflowError(str(error)) from None

PARTS = {part.id: part for part in PLAN.parts.values()}
EVALUATIONS = {item.id: item for item in PLAN.evaluations}
QUANTIZED = {item.id: item for item in PLAN.quantized}
SEARCHES = {search.id: search for search in PLAN.searches.values()}


def ids(operation):
    """Return a pattern of the parts that an operation makes, so that no rule matches another's."""
    return "|".join(name for name, part in PARTS.items() if part.operation == operation) or "(?!)"


def part_key(wildcards):
    """Return the key of a part: all that it is, as one string, in order."""
    return PARTS[wildcards.part].key


def part_inputs(wildcards):
    """Return the shards and records that a part is made from, and the folders that its job reads."""
    part = PARTS[wildcards.part]
    parents = [PLAN.parts[key] for key in part.parents]
    folders = [PLAN.by_key[key] for key in part.folders]
    search = PLAN.searches.get(part.parameters.get("search"))
    return [
        *([PLAN.layout.search(search)] if search else []),
        *(PLAN.layout.shard(parent) for parent in parents),
        *(PLAN.layout.record(parent) for parent in parents),
        *(path for node in folders for path in folder_paths(node)),
    ]


def part_memory(wildcards):
    """Return the memory of a part's job in MB, from its tensors."""
    return megabytes(PARTS[wildcards.part].memory_bytes)


def laser_memory(wildcards, threads):
    """Return the memory of a LASER job in MB: so many matrices at once as there are threads."""
    need = PARTS[wildcards.part].memory_bytes
    return megabytes(need + (threads - 1) * max(0, need - plans.TORCH_BYTES))


def search_memory(wildcards, threads):
    """Return the memory of a search in MB, likewise."""
    need = SEARCHES[wildcards.search].memory_bytes
    return megabytes(need + (threads - 1) * max(0, need - plans.TORCH_BYTES))


def search_inputs(wildcards):
    """Return the folder of the model that is searched."""
    return folder_paths(PLAN.nodes[SEARCHES[wildcards.search].parent])


def megabytes(size_bytes):
    """Return a size in MB, rounded up."""
    return -(-size_bytes // 10**6)


def folder_paths(node):
    """Return the files of a model's folder."""
    return [PLAN.layout.folder(node) / name for name in folder_files(node)]


def assemble_inputs(node):
    """Return what a model's folder is made from."""
    shards = [PLAN.layout.shard(part) for part in node.parts]
    parent = [] if node.files_from == node.name else folder_paths(PLAN.nodes[node.files_from])
    return [*shards, *parent]


def evaluation_inputs(wildcards):
    """Return what is measured."""
    item = EVALUATIONS[wildcards.evaluation]
    measured = folder_paths(item.node)
    if item.quantized:
        measured += [PLAN.quantized_file(item.quantized), PLAN.quantized_record(item.quantized)]
    return measured
