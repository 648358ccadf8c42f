"""Differences between two pins of one source or adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from herdbook.changes import changed_parameters
from herdbook.lock import LockedFile, LockedSource, LockedTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.lock import LockedAdapter

Thing = TypeVar("Thing", LockedFile, LockedTensor)


@dataclass(frozen=True)
class Change(Generic[Thing]):
    """A file or tensor that was added, removed or changed.

    Args:
        before: Its earlier state; None if it is new.
        after: Its state now; None if it was removed.
    """

    before: Thing | None
    after: Thing | None

    @property
    def name(self) -> str:
        """Its name."""
        state = self.after or self.before
        return state.name if state else ""

    @property
    def word(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "change": self.word,
            "before": self.before.model_dump(mode="json", exclude={"name"}) if self.before else None,
            "after": self.after.model_dump(mode="json", exclude={"name"}) if self.after else None,
        }


@dataclass(frozen=True)
class PinDifference:
    """All that differs between two pins.

    Args:
        files: Files with another size or digest, and those that are new or removed.
        tensors: Tensors with another dtype or shape, and those that are new or removed.
        facts: Other differences (license, gating, parents, configuration), a sentence each. They quote upstream,
            unescaped.
    """

    files: tuple[Change[LockedFile], ...] = ()
    tensors: tuple[Change[LockedTensor], ...] = ()
    facts: tuple[str, ...] = ()


def between(before: LockedSource | LockedAdapter, after: LockedSource | LockedAdapter) -> PinDifference:
    """Compare two pins of one source or adapter."""
    return PinDifference(
        files=tuple(_changes(before.files, after.files)),
        tensors=tuple(
            change
            for change in _changes(before.tensors, after.tensors)
            if not (change.before and change.after and _form(change.before) == _form(change.after))
        ),
        facts=(*_facts(before, after), *changed_parameters(before.config, after.config, "config")),
    )


def _changes(before: Iterable[Thing], after: Iterable[Thing]) -> Iterator[Change[Thing]]:
    old, new = ({thing.name: thing for thing in things} for things in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield Change(old.get(name), new.get(name))


def _form(tensor: LockedTensor) -> tuple[str, tuple[int, ...]]:
    """Return the facts of a tensor that matter to a build: the file that contains it does not."""
    return tensor.dtype, tensor.shape


def _facts(before: object, after: object) -> Iterator[str]:
    if not isinstance(before, LockedSource) or not isinstance(after, LockedSource):
        return
    if before.license != after.license:
        yield f"license: {before.license or 'unspecified'} -> {after.license or 'unspecified'}"
    if before.license_texts != after.license_texts:
        was, now = ({text.name: text.sha256 or "" for text in pin.license_texts} for pin in (before, after))
        for name in sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name)):
            yield f"{name}: {was.get(name, 'none')[:12]} -> {now.get(name, 'none')[:12]}"
    if before.gated != after.gated:
        yield f"gated: {_gating(before.gated)} -> {_gating(after.gated)}"
    if before.base_models != after.base_models:
        old, new = (", ".join(pin.base_models) or "none" for pin in (before, after))
        yield f"base models: {old} -> {new}"


def _gating(gated: str | bool) -> str:
    return gated if isinstance(gated, str) else "yes" if gated else "no"
