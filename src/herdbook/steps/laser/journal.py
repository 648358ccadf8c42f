"""The trials of a search on disk, so that an interrupted search resumes after the last one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from herdbook.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from herdbook.recipe.spectral import CanonicalRule
    from herdbook.steps.laser.result import Trial


class Trials(Journal["Trial"]):
    """The trials of a search.

    Args:
        path: The journal's file. If it contains trials of the same search with the same start, the search resumes after them.
        key: The search's key.
        start: The windows' losses at the start.
    """

    def __init__(self, path: Path, key: str, start: Sequence[float]) -> None:
        super().__init__(path, {"key": key, "start": list(start)})
        self._known = {self._name(trial["tensor"], trial["rule"]): trial for trial in self.entries}

    def check(self, entry: Any) -> Trial:
        """Return a trial that was read. Raises KeyError or TypeError if it is not one."""
        entry["tensor"], entry["rule"], entry["kept"], entry["losses"]  # all keys must exist
        return super().check(entry)

    def known(self, tensor: str, rule: CanonicalRule) -> Trial | None:
        """Return the trial of a tensor and a rule; None if it was not made yet."""
        return self._known.get(self._name(tensor, rule))

    @staticmethod
    def _name(tensor: str, rule: CanonicalRule) -> tuple[str, str]:
        return tensor, json.dumps(rule, sort_keys=True)
