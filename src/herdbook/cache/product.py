"""What a cache keeps: results that are costly, each known by a key before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.key import digest
from herdbook.plan import Evaluation, Node, Part, Quantized, RoutingReport, Search
from herdbook.plan.jobs import FILES, result_jobs

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan import Plan
    from herdbook.plan.jobs import Job


# What the outputs of a rule are, in their order. Those of ``files`` are what they are called.
PART = ("shard", "record")
ROLES = {
    **dict.fromkeys(("fetch", "laser", "adapter", "merge", "moe"), PART),
    "search": ("result",),
    "quantize": ("file", "record"),
    "evaluate": ("result",),
    "routing": ("result",),
}


@dataclass(frozen=True)
class Product:
    """What a job of a plan makes, as a cache keeps it.

    Args:
        job: The job.
        names: What its files mention beyond what the key holds: names that the recipe gives to models. The key knows
            parents by their keys alone, but a record cites them by name.
        gated: Whether something that it is made of is gated.
    """

    job: Job
    names: tuple[str, ...] = ()
    gated: bool = False

    @property
    def kind(self) -> str:
        """Which: the rule that makes it; ``files`` is the configuration and tokenizer of a source."""
        return self.job.rule

    @property
    def id(self) -> str:
        """What people call it."""
        return self.job.id

    @property
    def key(self) -> str:
        """Its key in the plan."""
        return self.job.key

    @property
    def files(self) -> dict[str, Path]:
        """Its files: by what each is, where it lies."""
        roles = ROLES.get(self.kind, tuple(path.name for path in self.job.outputs))
        return dict(zip(roles, self.job.outputs, strict=True))

    @property
    def entry(self) -> str:
        """Name of its entry in a cache. What is gated lies apart, so that rights can be given by place."""
        name = digest({"kind": self.kind, "key": self.key, "names": self.names})
        return f"{'gated' if self.gated else 'open'}/{name}"

    @property
    def there(self) -> bool:
        """Whether all its files lie in the results."""
        return all(path.exists() for path in self.files.values())


def products(plan: Plan) -> list[Product]:
    """Return what a cache keeps of a plan.

    The full-width GGUF and models' folders are not among it: they are copies of what is, or links to it.
    """
    gated = _gated(plan)
    return [
        Product(job, _names(plan, job), gated[_model(plan, job)])
        for job in result_jobs(plan)
        if job.rule in ROLES or job.rule == FILES
    ]


def _names(plan: Plan, job: Job) -> tuple[str, ...]:
    """Return what a job's files mention beyond what its key holds."""
    match job.subject:
        case Part() as part:
            return tuple(plan.parts[parent].model for parent in part.parents)
        case Quantized() as item:
            return (item.file,)
        case Evaluation() as item:
            return (item.name, *([item.quantized.file] if item.quantized else []))
        case RoutingReport():
            return tuple(plan.released.parents)
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


def _gated(plan: Plan) -> dict[str, bool]:
    """Return of which models a gated source is an ancestor, or which are one."""
    found: dict[str, bool] = {}

    def ask(node: Node) -> bool:
        source = plan.lock.sources.get(node.name)
        return bool(source and source.gated) or any(found[parent] for parent in node.parents)

    for node in plan.nodes.values():  # parents first
        found[node.name] = ask(node)
    return found
