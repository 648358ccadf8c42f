"""The trials of a search on disk, so that an interrupted search resumes after the last one."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Self

from herdbook.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.recipe.rank import CanonicalRule


class Journal:
    """The trials of a search, one per line; each is written to the disk before the next begins.

    Args:
        path: The journal's file. If it contains trials of the same search with the same start, the search resumes there.
        key: The search's key.
        start: The windows' losses at the start.
    """

    def __init__(self, path: Path, key: str, start: Sequence[float]) -> None:
        self.trials: list[dict[str, Any]] = []
        self._path, self._head = path, {"key": key, "start": list(start)}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        complete = lines[:-1]  # the last item is empty, or a line that was only partly written
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if complete and json.loads(complete[0]) == self._head:
                for line in complete[1:]:
                    trial = json.loads(line)
                    trial["tensor"], trial["rule"], trial["kept"], trial["losses"]  # all keys must exist
                    self.trials.append(trial)
        self._known = {self._name(trial["tensor"], trial["rule"]): trial for trial in self.trials}

    def __enter__(self) -> Self:
        write_text(self._path, "".join(self._line(entry) for entry in (self._head, *self.trials)))
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def known(self, tensor: str, rule: CanonicalRule) -> dict[str, Any] | None:
        """Return the trial of a tensor and a rule; None if it was not made yet."""
        return self._known.get(self._name(tensor, rule))

    def add(self, trial: dict[str, Any]) -> None:
        """Record a trial."""
        self.trials.append(trial)
        self._file.write(self._line(trial))
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def _line(entry: dict[str, Any]) -> str:
        return json.dumps(entry, sort_keys=True) + "\n"

    @staticmethod
    def _name(tensor: str, rule: CanonicalRule) -> tuple[str, str]:
        return tensor, json.dumps(rule, sort_keys=True)
