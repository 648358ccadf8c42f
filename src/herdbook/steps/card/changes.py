"""What changed since the predecessor: its recipe, sources, weights and own measurements, as the lock pins them, beside this release's."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from herdbook import yamlio
from herdbook.changes import changed_parameters
from herdbook.errors import StepError
from herdbook.provenance.slsa import HUB_PAGES
from herdbook.steps.card.results import read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan import Plan
    from herdbook.steps.card.results import Measurement, Score


@dataclass(frozen=True)
class ChangedResult:
    """A value of both releases, of the same requests: the task's title, the score now, and the predecessor's value."""

    title: str
    score: Score
    before: Decimal


@dataclass(frozen=True)
class Changes:
    """The differences from a predecessor.

    Args:
        repo: Its repository.
        revision: The commit.
        readable: Whether its recipe and lock could be read; if not, only weights are compared.
        sources: Each source that is new, gone or another: its name, where it was from, where it is from.
        settings: A sentence for each changed setting of the models.
        weights: How many files of weights it has with the same content, and how many this release has.
        results: Values of tasks in which both were asked the same.
        others: Titles of the tasks in which they were not.
    """

    repo: str
    revision: str
    readable: bool
    sources: tuple[tuple[str, str, str], ...]
    settings: tuple[str, ...]
    weights: tuple[int, int]
    results: tuple[ChangedResult, ...]
    others: tuple[str, ...]

    @property
    def page(self) -> str:
        """Its web address."""
        return f"{HUB_PAGES}/{self.repo}/tree/{self.revision}"


def changes_since(
    plan: Plan, own: Measurement | None, digests: Mapping[str, str], recipe_text: str
) -> Changes | None:
    """Return the differences from the predecessor; None if the recipe names none.

    Args:
        plan: The plan.
        own: The released model's measurement.
        digests: SHA-256 of the release's files of weights and quantized files, by name.
        recipe_text: The recipe, as it is written.

    Raises:
        StepError: If the released model's measurement is damaged.
    """
    before = plan.lock.predecessor
    if before is None:
        return None
    sources = {name: source.uri for name, source in plan.lock.sources.items()}
    models = yamlio.load(recipe_text).get("models")
    known = set(before.weights.values())
    asked = _requests(plan) if own else {}
    pairs = [(task, result) for task, result in own.tasks.items() if task in before.measured] if own else []
    same = [(task, result) for task, result in pairs if before.measured[task].requests == asked.get(task)]
    return Changes(
        before.repo,
        before.revision,
        before.models is not None and before.sources is not None,
        tuple(_sources(before.sources, sources)) if before.sources is not None else (),
        tuple(changed_parameters(before.models, models)) if before.models is not None else (),
        (sum(digest in known for digest in digests.values()), len(digests)),
        tuple(
            ChangedResult(result.title, score, Decimal(str(before.measured[task].metrics[score.metric])))
            for task, result in same
            for score in result.main
            if score.metric in before.measured[task].metrics
        ),
        tuple(result.title for task, result in pairs if (task, result) not in same),
    )


def _sources(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, before.get(name, ""), now.get(name, "")


def _requests(plan: Plan) -> dict[str, str]:
    """Return the digests of what the released model was asked, by task."""
    found: dict[str, str] = {}
    for item in plan.evaluations:
        if item.name == plan.released.name:
            content = read_json(plan.layout.evaluation(item), "measurement")
            try:
                found |= {task: str(result["requests"]) for task, result in content["tasks"].items()}
            except (LookupError, TypeError, AttributeError) as error:
                path = plan.layout.evaluation(item)
                raise StepError(
                    f"card: {path}: is damaged: {error!r}. Delete it and rerun `evaluate`."
                ) from error
    return found
