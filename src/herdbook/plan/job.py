"""A job: the rule that runs it, its key, what it reads and makes; and finding one by the names that people use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.plan.data import EvaluationData
from herdbook.plan.evaluate import Evaluation
from herdbook.plan.imatrix import Imatrix
from herdbook.plan.loss import FileLoss, Reference
from herdbook.plan.model import Node, Part, Search
from herdbook.plan.quantize import Conversion, Quantized
from herdbook.plan.routing import RoutingReport

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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
