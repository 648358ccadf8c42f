"""The jobs of a build: which there are, by what rule and key, what each reads and makes.

This is the one graph. The workflow's rules, the command line, the cache and all that looks at a build read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.graph import reachable
from herdbook.layout import SUMS
from herdbook.plan.card import card_files, card_inputs, card_key
from herdbook.plan.evaluate import Evaluation
from herdbook.plan.folder import folder_paths, taken_files, weights_files
from herdbook.plan.model import Node, Part, Search
from herdbook.plan.quantize import Conversion, Quantized
from herdbook.plan.release import (
    attest_key,
    attested_files,
    contents,
    release_key,
    verification_key,
    written_files,
)
from herdbook.plan.routing import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.plan.plan import Plan
    from herdbook.plan.release import Signer

# Of these, each model has a rule of its own: assemble_<model>.
ASSEMBLE = "assemble"
FILES = "files"
OF_A_MODEL = (ASSEMBLE, FILES)
MOST_LISTED = 12  # names of jobs in a message
RESTORE = "restore"  # files from the cache, one by one; not a job of the plan

# What of a plan one job makes.
Subject = Part | Search | Node | Conversion | Evaluation | Quantized | Report


@dataclass(frozen=True)
class Job:
    """One job.

    Args:
        rule: The rule that makes it, without the model's name.
        id: What names it: that of its files where these have one, else empty.
        key: All that it is, as the rule's param.
        inputs: What it reads.
        outputs: What it makes, as the rule declares it.
        subject: What of the plan it makes; None for what is made of the release as a whole.
        size_bytes: Bytes of weights that it makes; 0 if it makes none.
        also: Names of further models of the recipe that have what it makes.
    """

    rule: str
    id: str
    key: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    subject: Subject | None = field(default=None, hash=False)
    size_bytes: int = 0
    also: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What people call it: its id without the key."""
        return self.id.rpartition("-")[0] or self.id

    @property
    def step(self) -> str:
        """The rule and the key: the arguments with which `herdbook` does the job, if it has a key in its files' names."""
        return f"{self.rule} {self.key}"

    @property
    def name(self) -> str:
        """The rule, and what it is about if the rule has many jobs."""
        return f"{self.rule} {self.id}".rstrip()

    @property
    def model(self) -> str:
        """Name of the recipe's model that it belongs to; empty if it belongs to none."""
        match self.subject:
            case Evaluation() | Report():
                return self.subject.node.name
            case Node():
                return self.subject.name
            case Part() | Search():
                return self.subject.model
        return ""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models of the recipe that it belongs to, the one that its files are called after first."""
        return (self.model, *self.also) if self.model else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """What people may call it: its label, and the same under the names of other models."""
        return (self.label, *(name + self.label.removeprefix(self.model) for name in self.also))


def all_jobs(plan: Plan, signer: Signer | None = None) -> list[Job]:
    """Return the jobs that make what a plan describes, each after those whose files it reads.

    Among them are those that the release does without, such as assembling a model that nobody reads as a whole.

    Args:
        plan: The plan.
        signer: Who signs the claims, if somebody does.
    """
    return [*result_jobs(plan), *_release(plan, signer)]


def result_jobs(plan: Plan) -> list[Job]:
    """Return the jobs whose results have their key in their names: models, quantized files, measurements.

    What several names of a recipe lead to is the result of one job.
    """
    return [*model_jobs(plan), *_once(_measured(plan))]


def model_jobs(plan: Plan) -> list[Job]:
    """Return the jobs that make the models of a plan, each as a folder that transformers loads."""
    return _once(_models(plan))


def _once(found: Iterable[Job]) -> list[Job]:
    """Return jobs, of those that make the same files the first, with the names of the models that have it besides."""
    once: dict[tuple[Path, ...], Job] = {}
    for job in found:
        known = once.setdefault(job.outputs, job)
        if known is not job:
            once[job.outputs] = replace(known, also=(*known.also, *job.also))
    return list(once.values())


def find(jobs: Iterable[Job], rule: str, key: str = "") -> Job:
    """Return the one job of a rule that has a key.

    Args:
        jobs: The jobs of a plan.
        rule: The rule.
        key: The key, its first digits, or the job's id or label; empty if the rule has one job.

    Raises:
        RecipeError: If no job has it, or several have.
    """
    of_rule = [job for job in jobs if job.rule == rule]
    if not of_rule:
        raise RecipeError(f"{rule}: this recipe has no such step")
    named = [job for job in of_rule if key and key in {job.id, *job.labels}]
    found = named or [job for job in of_rule if job.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    ids = [job.id for job in found or of_rule]
    listed = ", ".join(ids[:MOST_LISTED]) + (f" and {len(ids) - MOST_LISTED} more" * (len(ids) > MOST_LISTED))
    if found:
        raise RecipeError(f"{rule}: {key!r} may be any of {listed}; give more digits of the key")
    raise RecipeError(
        f"{rule}: no job has the key or name {key!r}. The jobs are {listed}. If the key is from an earlier plan, the "
        "recipe or the code has changed since: run `herdbook plan`."
    )


def jobs(plan: Plan, signer: Signer | None = None) -> list[Job]:
    """Return the jobs that a build of the release has, each after those whose files it reads.

    Args:
        plan: The plan.
        signer: Who signs the claims, if somebody does.
    """
    every = all_jobs(plan, signer)
    makers = {path: job for job in every for path in job.outputs}
    needed = set(reachable(every[-1:], lambda job: [makers[path] for path in job.inputs if path in makers]))
    return [job for job in every if job in needed]


def _models(plan: Plan) -> Iterator[Job]:
    layout = plan.layout
    for node in plan.nodes.values():

        def called(model: str, name: str = node.name) -> tuple[str, ...]:
            return (name,) if name != model else ()

        if search := node.search:
            read = folder_paths(plan, plan.nodes[search.parent])
            yield Job(
                "search",
                search.id,
                search.key,
                read,
                (layout.search(search),),
                search,
                also=called(search.model),
            )
        for part in node.parts:
            made = (layout.shard(part), layout.record(part))
            yield Job(
                part.rule,
                part.id,
                part.key,
                _part_inputs(plan, part),
                made,
                part,
                part.size_bytes,
                called(part.model),
            )
        first = plan.by_key[node.key]
        also = called(first.name)
        linked = (*(layout.shard(part) for part in node.parts), *taken_files(plan, node))
        folder = folder_paths(plan, node)
        if node.files_from == node.name:
            # Models that descend from a source need its configuration and tokenizer, but not its weights.
            count = len(weights_files(node))
            if node.files:
                yield Job(FILES, node.id, node.key, (), folder[count:], first, also=also)
            folder = folder[:count]
        yield Job(ASSEMBLE, node.id, node.key, linked, folder, first, also=also)


def _part_inputs(plan: Plan, part: Part) -> tuple[Path, ...]:
    parents = [plan.parts[key] for key in part.parents]
    search = plan.searches.get(part.operation.search_key or "")
    return (
        *([plan.layout.search(search)] if search else []),
        *(plan.layout.shard(parent) for parent in parents),
        *(plan.layout.record(parent) for parent in parents),
        *(path for key in part.operation.folders for path in folder_paths(plan, plan.by_key[key])),
    )


def _measured(plan: Plan) -> Iterator[Job]:
    layout, released = plan.layout, folder_paths(plan, plan.released)
    if report := plan.report:
        yield Job("routing", report.id, report.key, released, (layout.report(report),), report)
    if plan.quantized:
        item = plan.conversion
        full = layout.full_width(item)
        yield Job("convert", item.id, item.key, released, (full,), item, item.size_bytes)
        for quantized in plan.quantized:
            made = (layout.quantized(quantized), layout.quantized_record(quantized))
            size = quantized.size_bytes
            yield Job("quantize", quantized.id, quantized.key, (full, *released), made, quantized, size)
    for measured in plan.evaluations:
        read = folder_paths(plan, measured.node)
        if measured.quantized:
            read += (layout.quantized(measured.quantized), layout.quantized_record(measured.quantized))
        also = (measured.name,) if measured.made_as else ()
        result = (layout.evaluation(measured),)
        yield Job("evaluate", measured.id, measured.key, read, result, measured, also=also)


def _release(plan: Plan, signer: Signer | None) -> Iterator[Job]:
    folder = plan.layout.release_folder
    card = tuple(plan.layout.card_folder / name for name in card_files(plan))
    written = tuple(folder / name for name in written_files(plan))
    attested = tuple(folder / name for name in attested_files(signer))
    yield Job("card", "", card_key(plan), tuple(card_inputs(plan)), card)
    yield Job("release", "", release_key(plan), tuple(contents(plan).values()), written)
    yield Job("attest", "", attest_key(plan, signer), written, attested)
    verified = (plan.layout.verification,)
    yield Job("verify", "", verification_key(plan, signer), (folder / SUMS, *attested), verified)
