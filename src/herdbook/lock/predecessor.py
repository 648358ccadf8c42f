"""What a lock pins of a release's predecessor, so that the card can state what changed since."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat, JsonValue

from herdbook.lock.file import FIRST
from herdbook.recipe import Section


class LockedMeasurement(Section):
    """The predecessor's own results in a task.

    Args:
        requests: The digest of all that it was asked; results of other requests cannot be compared.
        metrics: The values by metric.
    """

    requests: str
    metrics: dict[str, FiniteFloat]


class LockedPredecessor(Section):
    """A predecessor at a commit. Its files were not verified.

    Args:
        asked: The recipe's entry.
        repo: Its repository.
        revision: The commit.
        weights: The digests of its weights, by file.
        models: The models of its recipe, as they are written there; None if it has no recipe that can be read.
        sources: Where its sources came from, by name; None if it has no lock that can be read.
        measured: Its own results by task, as its build measured them.
    """

    asked: str
    repo: str
    revision: str
    weights: Annotated[dict[str, str], FIRST] = Field(default_factory=dict)
    models: dict[str, JsonValue] | None = None
    sources: dict[str, str] | None = None
    measured: Annotated[dict[str, LockedMeasurement], FIRST] = Field(default_factory=dict)
