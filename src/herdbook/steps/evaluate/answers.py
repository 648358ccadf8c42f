"""The answers of an evaluation that has not ended, on the disk, so that a killed one goes on from them.

What is kept are answers of whole batches: the batches follow from the requests alone, so an evaluation that goes on computes
the same batches as one that was never interrupted, and its results are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from threading import Lock
from typing import TYPE_CHECKING, Any, TypedDict

from herdbook.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Batch(TypedDict):
    """The answers to a batch of requests."""

    batch: str
    answers: list[Any]


class Answers(Journal[Batch]):
    """Answers by batch. Several threads may add some.

    Args:
        path: The file.
        head: What the answers depend on beyond the requests: the job's key, and the kind of device.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        super().__init__(path, head)
        self._known = {entry["batch"]: list(entry["answers"]) for entry in self.entries}
        self._lock = Lock()

    def check(self, entry: Any) -> Batch:
        """Return an entry that was read. Raises KeyError or TypeError if it is not one."""
        entry["batch"], list(entry["answers"])
        return super().check(entry)

    def known(self, batch: str) -> list[Any] | None:
        """Return the answers to a batch; None if it was not answered yet."""
        return self._known.get(batch)

    def keep(self, batch: str, answers: Sequence[Any]) -> None:
        """Keep the answers to a batch."""
        with self._lock:
            self.add({"batch": batch, "answers": list(answers)})


def name_of(kind: str, requests: Sequence[Any]) -> str:
    """Return the name of a batch: a digest of its requests and their settings."""
    return hashlib.sha256(json.dumps([kind, list(requests)], sort_keys=True).encode()).hexdigest()
