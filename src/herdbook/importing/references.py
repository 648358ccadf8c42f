"""References to models, as mergekit reads them: ``path[@revision][+adapter[@revision]]``, or the same as a mapping."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from herdbook.importing.value import Value

HUB = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}$", re.ASCII)
ADDRESS = re.compile(
    r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([^/\s]+/[^/\s]+?)(?:/(?:tree|blob|commit)/([^/\s]+))?/?$"
)
# A folder of the Hub's cache: .../models--owner--name/snapshots/<commit>
CACHED = re.compile(
    r"(?:^|[/\\])models--([\w.-]+?)--([\w.-]+)(?:[/\\]snapshots[/\\]([0-9a-f]{40}))?[/\\]?$", re.ASCII
)
LONGEST = 300
# Folders that people write the results of steps to, as in output/left; none of them is an owner on the Hub.
WORK_FOLDERS = frozenset(
    [
        "intermediate",
        "intermediates",
        "merge",
        "merges",
        "merged",
        "model",
        "models",
        "out",
        "output",
        "outputs",
        "tmp",
        "temp",
    ]
)
_PLAIN = re.compile(r"[^\x00-\x1f\x7f]+")
LONG_FORM = {"model", "lora", "override_architecture"}


@dataclass(frozen=True)
class Place:
    """Where a model or an adapter is, as a configuration names it.

    Args:
        path: A repository of the Hub, a folder, or the name of another step.
        revision: Its revision; empty if none is named.
    """

    path: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.path}@{self.revision}" if self.revision else self.path

    @property
    def last(self) -> str:
        """The last part of its path."""
        return re.split(r"[/\\]", self.path.rstrip("/\\"))[-1]

    @property
    def is_on_hub(self) -> bool:
        """Whether it is a repository by its form."""
        owner = self.path.partition("/")[0].lower()
        return bool(HUB.match(self.path)) and ".." not in self.path and owner not in WORK_FOLDERS

    @property
    def public(self) -> str:
        """What a recipe may say of it: a repository, or the last part of a path, since a release contains no path of a machine."""
        return str(self) if HUB.match(self.path) else self.last


@dataclass(frozen=True)
class Reference:
    """A reference to a model.

    Args:
        model: The model.
        lora: The adapter that is folded into it.
        architecture: Under which class mergekit shall read it (``override_architecture``); empty if not given.
    """

    model: Place
    lora: Place | None = None
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.model}+{self.lora}" if self.lora else str(self.model)


def read(value: Value) -> Reference | None:
    """Return a reference; None if it does not name a model, which is refused."""
    content = value.content
    if isinstance(content, str):
        model, plus, lora = content.partition("+")
        places = [_place(model), *([_place(lora)] if plus else [])]
        if None not in places and "+" not in lora:
            return Reference(places[0], places[1] if plus else None)  # type: ignore[arg-type]  # none of them is None
    elif isinstance(content, dict) and content.keys() <= LONG_FORM:
        inner, folded = content.get("model"), content.get("lora")
        if isinstance(inner, str) and "+" in inner and folded is None:
            whole = read(value.child("model"))
            return whole and Reference(whole.model, whole.lora, _word(content.get("override_architecture")))
        place, adapter = _long(inner), _long(folded)
        if place and (adapter or folded is None):
            return Reference(place, adapter, _word(content.get("override_architecture")))
    elif isinstance(content, dict) and content.keys() <= {"path", "revision"} and (place := _long(content)):
        return Reference(place)
    value.refuse(f"{value.shown} does not name a model: expected path, path@revision or path+adapter")
    return None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _long(value: Any) -> Place | None:
    if isinstance(value, str):
        return _place(value)
    if not isinstance(value, dict) or not value.keys() <= {"path", "revision"}:
        return None
    path, revision = value.get("path"), value.get("revision")
    if revision is None:
        return _place(path) if isinstance(path, str) else None
    # YAML reads a commit of digits alone as a number
    return _place(f"{path}@{revision}") if isinstance(path, str) and isinstance(revision, str | int) else None


def _place(text: str) -> Place | None:
    if not _PLAIN.fullmatch(text) or len(text) > LONGEST or text.count("@") > 1:
        return None
    text = text.strip()
    if match := ADDRESS.match(text):
        return Place(match[1], match[2] or "")
    if match := CACHED.search(text):
        return Place(f"{match[1]}/{match[2]}", match[3] or "")
    path, _, revision = text.partition("@")
    path = path.rstrip("/") or path
    return Place(path, revision) if path.strip() else None
