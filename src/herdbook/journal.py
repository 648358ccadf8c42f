"""A journal: what a long job has finished, line by line on the disk, so that an interrupted job resumes where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from herdbook.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


Entry = TypeVar("Entry", bound="Mapping[str, Any]")


class Journal(Generic[Entry]):
    """Entries of JSON, one per line; each is written to the disk before the next begins.

    Args:
        path: The journal's file. Its entries are taken over if its head is equal; a line that was only partly written, and
            what follows it, are not.
        head: What the entries depend on: with another head, they are of no use.
    """

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self.entries: list[Entry] = []
        self._path, self._head = path, dict(head)
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        complete = lines[:-1]  # the last item is empty, or a line that was only partly written
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if complete and json.loads(complete[0]) == self._head:
                for line in complete[1:]:
                    self.entries.append(self.check(json.loads(line)))

    def check(self, entry: Any) -> Entry:
        """Return an entry that was read. Raises KeyError or TypeError if it is not one."""
        return cast("Entry", dict(entry))

    def __enter__(self) -> Self:
        lines: list[Mapping[str, Any]] = [self._head, *self.entries]
        write_text(self._path, "".join(map(self._line, lines)))
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Record an entry."""
        self.entries.append(entry)
        self._file.write(self._line(entry))
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def _line(entry: Mapping[str, Any]) -> str:
        return json.dumps(entry, sort_keys=True) + "\n"
