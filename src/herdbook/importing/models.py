"""The models of a recipe that a configuration's references become: sources, adapters on them, and other steps."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.humanize import did_you_mean, joined
from herdbook.importing.references import HUB, Place
from herdbook.visible import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from herdbook.importing.references import Reference
    from herdbook.importing.value import Notes, Value

LONGEST_NAME = 80


class Models:
    """The models of a recipe in the making.

    Args:
        notes: Notes on the configuration.
        file: The configuration.
        relative_to: The folder that the recipe will be written to.
        mapping: What names stand for, by the user: a repository of the Hub or a folder, by name.
        repositories: The repositories that the text of the card names.
        is_local: Whether the configuration was found on this machine, so that it may name folders here.
    """

    def __init__(
        self,
        notes: Notes,
        file: Path,
        relative_to: Path,
        mapping: Mapping[str, str],
        repositories: Iterable[str],
        is_local: bool = True,
    ) -> None:
        self.notes, self.file, self.relative_to, self.mapping = notes, file, relative_to, mapping
        self.repositories = tuple(repositories)
        self.is_local = is_local
        self.entries: dict[str, Any] = {}
        self.reserved: set[str] = set()
        self.made: Callable[[Place], str | None] = lambda _: (
            None
        )  # the name of the step that a name stands for, if any
        self._names: dict[tuple[str, ...], str] = {}
        self._unknown: dict[str, list[str]] = {}
        self._mapped: set[str] = set()
        self._moving: list[str] = []

    def name(self, reference: Reference, at: Value, *, again: int = 0) -> str:
        """Return the name of a model, which is added unless it is there.

        Args:
            reference: The model.
            at: The entry that names it.
            again: Which of several names of the same model to return.
        """
        if reference.architecture:
            self.notes.assume(
                f"override_architecture of {reference.model.public}: left out; tensors are taken by the names that they have in the files",
                "models",
            )
        base = self._source(reference.model, at, again)
        if reference.lora is None:
            return base
        key = (str(reference), str(again))
        if key not in self._names:
            self._names[key] = self._new_name(reference.lora)
            adapter = self._entry(reference.lora, at)
            place = adapter if "hub" in adapter else adapter["folder"]
            self.entries[self._names[key]] = {"adapter": place, "on": base}
        return self._names[key]

    def reserve(self, wanted: str) -> str:
        """Return a free name of a model that is made, as near as can be to what is wanted."""
        return self._free(wanted)

    def report(self) -> None:
        """Note what is assumed of the sources; refuse names that stand for nothing, and mappings of unknown names."""
        if self._moving:
            self.notes.assume(
                f"{', '.join(self._moving)}: no revision is named; `herdbook lock` pins the current one, not the one that was merged",
                "models",
            )
        for path, places in self._unknown.items():
            guesses = [f"{guess!r}" for guess in self._guesses(path)]
            hint = f"; it may be {joined(guesses)}" if guesses else ""
            kind = (
                "is a path of the author's machine"
                if _is_elsewhere(path)
                else "is neither a folder on this machine nor owner/name on the Hub"
            )
            if HUB.match(path):
                kind = "is neither a folder on this machine nor another step"
            elif not re.search(r"[/\\]", path):
                kind = "is neither a folder on this machine nor owner/name on the Hub, nor another step"
            if self.is_local and (_is_elsewhere(path) or re.match(r"\.{1,2}/", path)):
                kind = "names a folder, and no such folder exists on this machine"
            self.notes.refuse(f"{places[0]}: '{line(path)}' {kind}{hint}{_also(places)}")
        if self._unknown:
            first = next(iter(self._unknown))
            self.notes.refuse(
                ("correct the configuration, or " if self.is_local else "")
                + f"define what each of these names is with --map '{line(first)}=owner/name', or with --map @FILE and a line "
                "NAME=owner/name for each; a folder on this machine can be given, too"
            )
        for name in self.mapping.keys() - self._mapped:
            self.notes.refuse(f"--map {name}: no configuration names it{did_you_mean(name, self._seen())}")

    def _seen(self) -> list[str]:
        return [*self._unknown, *(key[0].partition("@")[0] for key in self._names)]

    def _source(self, place: Place, at: Value, again: int) -> str:
        if made := self.made(place):
            return made
        key = (str(place), str(again))
        if key not in self._names:
            self._names[key] = self._new_name(place)
            self.entries[self._names[key]] = self._entry(place, at)
        elif place.path in self._unknown:
            self._unknown[place.path].append(at.place)
        return self._names[key]

    def _entry(self, place: Place, at: Value) -> dict[str, Any]:
        """Return a source's entry in the recipe."""
        if place.path in self.mapping:
            self._mapped.add(place.path)
            return self._as_mapped(place)
        folder = self._folder(str(place)) if self.is_local else None
        if folder is not None:
            return {"folder": folder}
        if place.is_on_hub:
            return self._hub(place)
        self._unknown.setdefault(place.path, []).append(at.place)
        return {"hub": "unknown/unknown"}

    def _as_mapped(self, place: Place) -> dict[str, Any]:
        mapped, _, revision = self.mapping[place.path].partition("@")
        folder = self._folder(self.mapping[place.path])
        if folder is not None:
            return {"folder": folder}
        if HUB.match(mapped):
            self.notes.assume(f"{mapped}: what {place.public!r} is by --map", "models")
            return self._hub(Place(mapped, revision or place.revision))
        self.notes.refuse(
            f"--map {place.path}={self.mapping[place.path]}: {mapped!r} is neither owner/name on the Hub nor a folder here"
        )
        return {"hub": "unknown/unknown"}

    def _hub(self, place: Place) -> dict[str, Any]:
        if not place.revision and place.path not in self._moving:
            self._moving.append(place.path)
        return {"hub": str(place)}

    def _folder(self, path: str) -> str | None:
        """Return a local model's path relative to the recipe, or None if it is not on this machine."""
        for start in (Path(), self.file.parent):
            try:
                if not (start / path).is_dir():
                    continue
            except (OSError, ValueError):
                continue
            folder = (start / path).absolute()  # a link is named, not what it leads to
            return os.path.relpath(folder.parent.resolve() / folder.name, self.relative_to.resolve())
        return None

    def _new_name(self, place: Place) -> str:
        return self._free(place.last)

    def _free(self, wanted: str) -> str:
        base = slug(wanted) or "model"
        name, number = base, 2
        while name in self.reserved or name in self._names.values():
            name, number = f"{base}-{number}", number + 1
        self.reserved.add(name)
        return name

    def _guesses(self, path: str) -> list[str]:
        """Return the repositories that an unknown name may stand for."""
        last = _letters(Place(path).last)
        found = [name for name in self.repositories if _letters(name.partition("/")[2]) == last]
        found += [
            name for name in self.repositories if _letters(name) == _letters(path) and name not in found
        ]
        owner, _, name = Place(path).last.partition("_")
        if not found and owner and name and HUB.match(f"{owner}/{name}"):
            found.append(f"{owner}/{name}")  # as download tools write it
        return found[:3]


def slug(text: str) -> str:
    """Return a text as a name in a recipe; empty if nothing of it can be."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:LONGEST_NAME].strip("-_")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _is_elsewhere(path: str) -> bool:
    return bool(re.match(r"[A-Za-z]:[/\\]|[/~\\]", path))


def _also(places: list[str]) -> str:
    numbers = dict.fromkeys(place.partition(":")[0].removeprefix("line ") for place in places[1:])
    numbers.pop(places[0].partition(":")[0].removeprefix("line "), None)
    return f" (also in line {joined(numbers)})" if numbers else ""
