"""The jobs of a build, as the workflow's rules make them of a plan: for those who look at a build from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.layout import SUMS
from herdbook.plan import Evaluation, Node, Part, Report, Search
from herdbook.steps.assemble.step import folder_files, taken_files, weights_files
from herdbook.steps.attest.step import attest_key, attested_files
from herdbook.steps.card.step import card_files, card_inputs, card_key
from herdbook.steps.release.step import contents, release_key, written_files
from herdbook.verify.levels import verification_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from herdbook.plan import Plan, Quantized
    from herdbook.steps.attest.step import Signer

# Of these, each model has a rule of its own: assemble_<model>.
ASSEMBLE = "assemble"
FILES = "files"
OF_A_MODEL = (ASSEMBLE, FILES)
TAKE = "take"  # whatever lies in the cache, file by file: it is no job of the plan


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
    """

    rule: str
    id: str
    key: str
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    subject: Part | Search | Node | Evaluation | Quantized | Report | None = field(default=None, hash=False)
    size_bytes: int = 0

    @property
    def label(self) -> str:
        """What people call it: its id without the key."""
        return self.id.rpartition("-")[0] or self.id

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


def all_jobs(plan: Plan, signer: Signer | None = None) -> list[Job]:
    """Return the jobs that make what a plan describes, each after those whose files it reads.

    Among them are those that the release does without, such as assembling a model that nobody reads as a whole.

    Args:
        plan: The plan.
        signer: Who signs the claims, if somebody does.
    """
    return [*_models(plan), *_measured(plan), *_release(plan, signer)]


def find(jobs: Iterable[Job], rule: str, key: str = "") -> Job:
    """Return the one job of a rule that has a key.

    Args:
        jobs: The jobs of a plan.
        rule: The rule.
        key: The key or its first digits; empty if the rule has one job.

    Raises:
        RecipeError: If no job has it, or several have.
    """
    found = [job for job in jobs if job.rule == rule and job.key.startswith(key)]
    if len(found) != 1:
        raise RecipeError(
            f"{rule}: {'no' if not found else 'more than one'} step has the key {key!r}. Either the recipe or the code "
            "changed since; `herdbook plan` shows the keys of today."
        )
    return found[0]


def jobs(plan: Plan, signer: Signer | None = None) -> list[Job]:
    """Return the jobs that a build of the release has, each after those whose files it reads.

    Args:
        plan: The plan.
        signer: Who signs the claims, if somebody does.
    """
    every = all_jobs(plan, signer)
    makers = {path: job for job in every for path in job.outputs}
    needed: set[Job] = set()
    pending = [every[-1]]
    while pending:
        job = pending.pop()
        if job not in needed:
            needed.add(job)
            pending += [makers[path] for path in job.inputs if path in makers]
    return [job for job in every if job in needed]


def _models(plan: Plan) -> Iterator[Job]:
    for node in plan.nodes.values():
        if search := node.search:
            read = _folder(plan, plan.nodes[search.parent])
            yield Job("search", search.id, search.key, read, (plan.layout.search(search),), search)
        for part in node.parts:
            made = (plan.layout.shard(part), plan.layout.record(part))
            yield Job(
                part.operation, part.id, part.key, _part_inputs(plan, part), made, part, part.size_bytes
            )
        shards = tuple(plan.layout.shard(part) for part in node.parts)
        folder = _folder(plan, node)
        if node.files_from == node.name:
            weights = tuple(plan.layout.folder(node) / name for name in weights_files(node))
            yield Job(ASSEMBLE, node.id, node.key, shards, weights, node)
            if node.files:
                yield Job(FILES, node.id, node.key, (), folder[len(weights) :], node)
        else:
            yield Job(ASSEMBLE, node.id, node.key, (*shards, *taken_files(plan, node)), folder, node)


def _part_inputs(plan: Plan, part: Part) -> tuple[Path, ...]:
    parents = [plan.parts[key] for key in part.parents]
    search = plan.searches.get(part.parameters.get("search", ""))
    return (
        *([plan.layout.search(search)] if search else []),
        *(plan.layout.shard(parent) for parent in parents),
        *(plan.layout.record(parent) for parent in parents),
        *(path for key in part.folders for path in _folder(plan, plan.by_key[key])),
    )


def _folder(plan: Plan, node: Node) -> tuple[Path, ...]:
    return tuple(plan.layout.folder(node) / name for name in folder_files(node))


def _measured(plan: Plan) -> Iterator[Job]:
    released = _folder(plan, plan.released)
    if plan.report:
        made = (plan.report_file(plan.report),)
        yield Job("routing", plan.report.id, plan.report.key, released, made, plan.report)
    if plan.quantized:
        yield Job(
            "convert",
            plan.converted.name.removesuffix(".full.gguf"),
            plan.converted_key,
            released,
            (plan.converted,),
            size_bytes=plan.released.size_bytes,
        )
    sizes = dict(plan.outputs())
    for item in plan.quantized:
        file, record = plan.quantized_file(item), plan.quantized_record(item)
        read = (plan.converted, *released)
        yield Job("quantize", item.id, item.key, read, (file, record), item, sizes[file])
    for one in plan.evaluations:
        read = _folder(plan, one.node)
        if one.quantized:
            read += (plan.quantized_file(one.quantized), plan.quantized_record(one.quantized))
        yield Job("evaluate", one.id, one.key, read, (plan.evaluation_file(one),), one)


def _release(plan: Plan, signer: Signer | None) -> Iterator[Job]:
    card = tuple(plan.card_folder / name for name in card_files(plan))
    yield Job("card", "", card_key(plan), tuple(card_inputs(plan)), card)
    written = tuple(plan.release_folder / name for name in written_files(plan))
    yield Job("release", "", release_key(plan), tuple(contents(plan).values()), written)
    attested = tuple(plan.release_folder / name for name in attested_files(signer))
    yield Job("attest", "", attest_key(plan, signer), written, attested)
    yield Job(
        "verify",
        "",
        verification_key(plan, signer),
        (plan.release_folder / SUMS, *attested),
        (plan.release_root / "verification.json",),
    )
