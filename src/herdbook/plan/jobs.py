"""The jobs of a build: the rule, key, inputs and outputs of each.

This is the only graph of jobs. The workflow's rules, the command line, the cache, and everything that inspects a build
read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.graph import reachable
from herdbook.layout import SUMS
from herdbook.plan.card import card_files, card_inputs, card_key
from herdbook.plan.data import EvaluationData
from herdbook.plan.evaluate import Evaluation
from herdbook.plan.folder import folder_paths, read_files, weights_files
from herdbook.plan.imatrix import Imatrix
from herdbook.plan.loss import FileLoss, Reference
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
from herdbook.plan.routing import RoutingReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.plan.plan import Plan
    from herdbook.plan.release import SignerIdentity

# Rules that exist once per model, such as assemble_<model>.
ASSEMBLE = "assemble"
FILES = "files"
OF_A_MODEL = (ASSEMBLE, FILES)
DATA = "data"  # a single job, with as many files as the data sets have
# Why a recipe may have no job of a rule.
ABSENT = {
    "routing": "; the released model is not a mixture, so it has no routers",
    "search": "; no model has `select`, `guard` or a `budget` of rank",
    "convert": "; it has no `quantize`",
    "imatrix": "; it has no `quantize.imatrix`",
    "quantize": "; it has no `quantize`",
    "data": "; its tasks read no data on the Hub",
    "evaluate": "; it has no `evaluate`",
    "reference": "; it has no `quantize.loss`",
    "loss": "; it has no `quantize.loss`",
}
MOST_LISTED = 12  # names of jobs in a message
RESTORE = "restore"  # takes single files from the cache; not a job of the plan

# The item of a plan that one job makes.
Subject = (
    Part
    | Search
    | Node
    | Conversion
    | Evaluation
    | EvaluationData
    | Imatrix
    | Quantized
    | RoutingReport
    | Reference
    | FileLoss
)


@dataclass(frozen=True)
class Job:
    """One job.

    Args:
        rule: The rule that runs it, without the model's name.
        id: The id in the names of its files; empty if they have none.
        key: Digest of everything that decides its result, passed as the rule's param.
        inputs: The files that it reads.
        outputs: The files that it makes, as the rule declares them.
        subject: The item of the plan that it makes; None if it makes or reads the release as a whole.
        size_bytes: Bytes of weights that it makes; 0 if it makes none.
        also: Names of further models of the recipe that share its result.
        copied: Files of other jobs that it copies from what it would else make itself, if the same build makes them; its result
            is the same without them.
    """

    rule: str
    id: str
    key: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    subject: Subject | None = field(default=None, hash=False)
    size_bytes: int = 0
    also: tuple[str, ...] = ()
    copied: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """A name for people: its id without the key."""
        return self.id.rpartition("-")[0] or self.id

    @property
    def step(self) -> str:
        """The rule and the key: the arguments with which `herdbook` does the job, if it has a key in its files' names."""
        return f"{self.rule} {self.key}"

    @property
    def name(self) -> str:
        """The rule, and the id if the rule has several jobs."""
        return f"{self.rule} {self.id}".rstrip()

    @property
    def model(self) -> str:
        """Name of the recipe's model that it belongs to; empty if it belongs to none."""
        match self.subject:
            case Evaluation() | RoutingReport() | Reference():
                return self.subject.node.name
            case FileLoss():
                return self.subject.reference.node.name
            case Node():
                return self.subject.name
            case Part() | Search():
                return self.subject.model
        return ""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models of the recipe that it belongs to; the one in the names of its files comes first."""
        return (self.model, *self.also) if self.model else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All names by which people may refer to it: its label, and the same under the names of ``also``."""
        return (self.label, *(name + self.label.removeprefix(self.model) for name in self.also))


def all_jobs(plan: Plan, signer: SignerIdentity | None = None) -> list[Job]:
    """Return all jobs of a plan, each after those whose files it reads.

    They include jobs that the release does not need, such as assembling a model that no other job reads as a whole.

    Args:
        plan: The plan.
        signer: The signer of the claims; None if they are not signed.
    """
    return [*result_jobs(plan), *_release(plan, signer)]


def result_jobs(plan: Plan) -> list[Job]:
    """Return the jobs whose results have their key in their names: models, quantized files, measurements.

    A result that several names of a recipe refer to is made by one job.
    """
    return [*model_jobs(plan), *_once(_measured(plan))]


def model_jobs(plan: Plan) -> list[Job]:
    """Return the jobs that make the models of a plan, each as a folder that transformers can load."""
    return _once(_models(plan))


def _once(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs with those that make the same files joined into the first, which gets the names of the others' models."""
    by_outputs: dict[tuple[Path, ...], Job] = {}
    for job in jobs:
        first = by_outputs.setdefault(job.outputs, job)
        if first is not job:
            by_outputs[job.outputs] = replace(first, also=(*first.also, *job.also))
    return list(by_outputs.values())


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
        raise RecipeError(f"{rule}: this recipe has no such step{ABSENT.get(rule, '')}")
    named = [job for job in of_rule if key and key in {job.id, *job.labels}]
    matches = named or [job for job in of_rule if job.key.startswith(key)]
    if len(matches) == 1:
        return matches[0]
    ids = [job.id for job in matches or of_rule]
    listed = ", ".join(ids[:MOST_LISTED]) + (f" and {len(ids) - MOST_LISTED} more" * (len(ids) > MOST_LISTED))
    if matches:
        raise RecipeError(f"{rule}: {key!r} may be any of {listed}; give more digits of the key")
    raise RecipeError(
        f"{rule}: no job has the key or name {key!r}. The jobs are {listed}. If the key is from an earlier plan, the "
        "recipe or the code has changed since: run `herdbook plan`."
    )


def jobs(plan: Plan, signer: SignerIdentity | None = None) -> list[Job]:
    """Return the jobs that a build of the release runs, each after those whose files it reads.

    Args:
        plan: The plan.
        signer: The signer of the claims; None if they are not signed.
    """
    every = all_jobs(plan, signer)
    return needed(every, every[-1:])


def needed_results(plan: Plan) -> list[Job]:
    """Return those of ``result_jobs`` that the release is made from, each after those whose files it reads."""
    every = result_jobs(plan)
    read = {path for one in plan.editions for path in (*contents(one).values(), *card_inputs(one))}
    return needed(every, [job for job in every if not read.isdisjoint(job.outputs)])


def needed(every: list[Job], last: Iterable[Job]) -> list[Job]:
    """Return the jobs that the last ones are made from, with these, in order."""
    makers = {path: job for job in every for path in job.outputs}
    found = set(reachable(last, lambda job: [makers[path] for path in job.inputs if path in makers]))
    return [job for job in every if job in found]


def _models(plan: Plan) -> Iterator[Job]:
    layout = plan.layout
    for node in plan.nodes.values():

        def other_name(model: str, name: str = node.name) -> tuple[str, ...]:
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
                also=other_name(search.model),
            )
        for part in node.parts:
            files = (layout.shard(part), layout.record(part))
            yield Job(
                part.rule,
                part.id,
                part.key,
                _part_inputs(plan, part),
                files,
                part,
                part.size_bytes,
                other_name(part.model),
            )
        first = plan.by_key[node.key]
        also = other_name(first.name)
        linked = (*(layout.shard(part) for part in node.parts), *read_files(plan, node))
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
        header = layout.header(item)
        yield Job("convert", item.id, item.key, released, (header,), item)
        if matrix := plan.imatrix:
            yield Job(
                "imatrix",
                matrix.id,
                matrix.key,
                _matrix_inputs(plan, matrix),
                matrix_files(plan, matrix),
                matrix,
            )
        for quantized in plan.quantized:
            size, read = quantized.size_bytes, (header, *released)
            if quantized.imatrix:
                read += matrix_files(plan, quantized.imatrix)
            files = _quantized_files(plan, quantized)
            copied = tuple(
                path for one in plan.siblings[quantized.id] for path in _quantized_files(plan, one)
            )
            yield Job("quantize", quantized.id, quantized.key, read, files, quantized, size, copied=copied)
    yield from _losses(plan)
    data: tuple[Path, ...] = ()
    if item_data := plan.data:
        data = data_paths(plan, item_data)
        yield Job(DATA, item_data.id, item_data.key, (), data, item_data)
    for measured in plan.evaluations:
        read = (*folder_paths(plan, measured.node), *data)
        if measured.quantized:
            read += _quantized_files(plan, measured.quantized)
        also = (measured.label,) if measured.made_as else ()
        result = (layout.evaluation(measured), layout.samples(measured))
        yield Job("evaluate", measured.id, measured.key, read, result, measured, also=also)


def _losses(plan: Plan) -> Iterator[Job]:
    layout, reference = plan.layout, plan.reference
    if reference is None:
        return
    released = folder_paths(plan, reference.node)  # of an encoded model, the one at full width
    kept = (layout.reference(reference), layout.reference_record(reference))
    yield Job("reference", reference.id, reference.key, released, kept, reference)
    for item in plan.losses:
        read = (*released, *kept)
        if item.quantized:
            read += _quantized_files(plan, item.quantized)
        if item.encoded:
            read += folder_paths(plan, item.encoded)
        yield Job("loss", item.id, item.key, read, (layout.loss(item),), item)


def matrix_files(plan: Plan, matrix: Imatrix) -> tuple[Path, ...]:
    """Return the files of an importance matrix: itself, and its record."""
    return plan.layout.matrix(matrix), plan.layout.matrix_record(matrix)


def _quantized_files(plan: Plan, item: Quantized) -> tuple[Path, ...]:
    return plan.layout.quantized(item), plan.layout.quantized_record(item)


def _matrix_inputs(plan: Plan, matrix: Imatrix) -> tuple[Path, ...]:
    given = (plan.beside_recipe(matrix.given.name),) if matrix.given and not matrix.commit else ()
    return (*folder_paths(plan, plan.released), *given)


def data_paths(plan: Plan, data: EvaluationData) -> tuple[Path, ...]:
    """Return the files of data sets, and the record of what tasks find in them."""
    files = [plan.layout.data(data, one.folder, file.name) for _, one in data.data_sets for file in one.files]
    return (*files, plan.layout.data_record(data))


def _release(plan: Plan, signer: SignerIdentity | None) -> Iterator[Job]:
    """Yield the jobs of the releases: each makes both, if the quantized files have one of their own."""
    editions = plan.editions
    card = tuple(one.layout.card_folder / name for one in editions for name in card_files(one))
    taken = tuple(dict.fromkeys(path for one in editions for path in contents(one).values()))
    written = tuple(one.layout.release_folder / name for one in editions for name in written_files(one))
    attested = tuple(one.layout.release_folder / name for one in editions for name in attested_files(signer))
    yield Job("card", "", card_key(plan), tuple(card_inputs(plan)), card)
    yield Job("release", "", release_key(plan), taken, written)
    yield Job("attest", "", attest_key(plan, signer), written, attested)
    sums = tuple(one.layout.release_folder / SUMS for one in editions)
    verified = tuple(path for one in editions for path in (one.layout.verification, one.layout.page))
    yield Job("verify", "", verification_key(plan, signer), (*sums, *attested), verified)
