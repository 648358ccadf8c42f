"""The lock as a whole: what all names of a recipe resolved to.

A lock pins every input: each source's files with their digests, each tensor with dtype, shape and file, the
configuration, the tokens, the adapters, the evaluation tasks with their data, and the leaderboard snapshots. Reading one needs
neither network nor torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from herdbook.lock.evaluation import (  # noqa: TC001 - pydantic reads them
    LockedDataSet,
    LockedHarness,
    LockedSnapshot,
    LockedSuite,
    LockedTask,
)
from herdbook.lock.file import FIRST, LockedCalibration, LockedFile, LockedHubFile
from herdbook.lock.predecessor import LockedPredecessor  # noqa: TC001 - pydantic reads it
from herdbook.lock.tuned import LockedSearch  # noqa: TC001 - pydantic reads it
from herdbook.lock.vocabulary import (  # noqa: TC001 - pydantic reads them
    LockedTokenDifference,
    LockedVocabulary,
)
from herdbook.lock.weights import LockedAdapter, LockedSource  # noqa: TC001 - pydantic reads them
from herdbook.recipe import Section

EVERY_MODEL = "*"


class Lock(Section):
    """A whole lock.

    ``requests`` exist once models were measured: by task and model, the digest of all that the model was asked. Unless a
    task goes through a chat template, that is the same for every model, ``*``.
    """

    version: Literal[1] = 1
    sources: Annotated[dict[str, LockedSource], FIRST] = Field(default_factory=dict)
    adapters: Annotated[dict[str, LockedAdapter], FIRST] = Field(default_factory=dict)
    tasks: Annotated[dict[str, LockedTask], FIRST] = Field(default_factory=dict)
    suites: Annotated[dict[str, LockedSuite], FIRST] = Field(default_factory=dict)
    data_sets: Annotated[dict[str, LockedDataSet], FIRST] = Field(default_factory=dict)
    harness: LockedHarness | None = None
    requests: Annotated[dict[str, dict[str, str]], FIRST] = Field(default_factory=dict)
    leaderboards: Annotated[dict[str, LockedSnapshot], FIRST] = Field(default_factory=dict)
    calibration: Annotated[dict[str, LockedCalibration], FIRST] = Field(default_factory=dict)
    others: Annotated[dict[str, LockedHubFile], FIRST] = Field(default_factory=dict)
    imatrix: LockedFile | LockedHubFile | None = None
    token_differences: Annotated[tuple[LockedTokenDifference, ...], FIRST] = ()
    vocabularies: Annotated[dict[str, LockedVocabulary], FIRST] = Field(default_factory=dict)
    templates: Annotated[dict[str, LockedFile], FIRST] = Field(default_factory=dict)
    image: LockedFile | None = None
    predecessor: LockedPredecessor | None = None
    tuned: Annotated[dict[str, LockedSearch], FIRST] = Field(default_factory=dict)

    def requests_of(self, model: str) -> dict[str, str]:
        """Return the digests of what a model is asked, by task."""
        return {
            task: found
            for task, digests in self.requests.items()
            if (found := digests.get(model, digests.get(EVERY_MODEL)))
        }
