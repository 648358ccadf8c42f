"""Cacheable results: those that are costly, each identified by a key before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import digest
from herdbook.plan import Evaluation, Imatrix, Node, Part, Quantized, Search
from herdbook.plan.jobs import FILES, result_jobs
from herdbook.recipe import Hub

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.job import Job


# The roles of a rule's outputs, in their order. The outputs of ``files`` have their names as roles.
PART = ("shard", "record")
ROLES = {
    **dict.fromkeys(("fetch", "laser", "adapter", "merge", "moe", "compress"), PART),
    "search": ("result",),
    "imatrix": ("file", "record"),
    "quantize": ("file", "record"),
    "evaluate": ("result", "samples"),
    "routing": ("result",),
    "reference": ("states", "record"),
    "loss": ("result",),
}


@dataclass(frozen=True)
class Product:
    """The outputs of one job, as a cache stores them.

    Args:
        job: The job.
        names: Names from the recipe that its files mention but its key does not cover: a measurement states whose it is.
        gated: Names of the gated sources that it descends from, ``owner/name``.
    """

    job: Job
    names: tuple[str, ...] = ()
    gated: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The rule that makes it; ``files`` is the configuration and tokenizer of a source."""
        return self.job.rule

    @property
    def id(self) -> str:
        """The job's id, for people."""
        return self.job.id

    @property
    def key(self) -> str:
        """Its key in the plan."""
        return self.job.key

    @property
    def files(self) -> dict[str, Path]:
        """The paths of its files in the results, by role."""
        roles = ROLES.get(self.kind, tuple(path.name for path in self.job.outputs))
        return dict(zip(roles, self.job.outputs, strict=True))

    @property
    def entry(self) -> str:
        """Name of its entry in a cache. Gated entries have a folder of their own, so that access can be restricted to it."""
        name = digest({"kind": self.kind, "key": self.key, "names": self.names})
        return f"{'gated' if self.gated else 'open'}/{name}"

    @property
    def exists(self) -> bool:
        """Whether the results contain all its files."""
        return all(path.exists() for path in self.files.values())


def products(plan: Plan) -> list[Product]:
    """Return the cacheable results of a plan.

    The headers of GGUF files and models' folders are not cached: they take seconds, or are links to cached results.
    """
    gated = _gated(plan)
    return [
        Product(job, _names(job), gated[_model(plan, job)])
        for job in result_jobs(plan)
        if job.rule in ROLES or job.rule == FILES
    ]


def _names(job: Job) -> tuple[str, ...]:
    """Return the names that a job's files mention but its key does not cover."""
    match job.subject:
        case Imatrix() | Quantized() as item:
            return (item.file,)
        case Evaluation() as item:
            return (
                item.name,
                *([item.group.suite] if item.group.suite else []),
                *([item.quantized.file] if item.quantized else []),
            )
    return ()


def _model(plan: Plan, job: Job) -> str:
    """Return the name of the model that a job's result is part of, or made from."""
    match job.subject:
        case Search() as search:
            return search.parent
        case Part() as part:
            return part.model
        case Node() as node:
            return node.name
        case Evaluation() as item:
            return item.node.name
    return plan.released.name


def _gated(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return, for each model by name, the gated sources that it is or descends from."""
    gated: dict[str, tuple[str, ...]] = {}
    for node in plan.nodes.values():  # parents first
        source = plan.lock.sources.get(node.name)
        name = node.recipe.hub.partition("@")[0] if isinstance(node.recipe, Hub) else node.name
        own = [name] if source and source.gated else []
        inherited = [name for parent in node.parents for name in gated[parent]]
        gated[node.name] = tuple(dict.fromkeys([*own, *inherited]))
    return gated
