"""A fact of a release: what fields of it are derived from, and at which level they are proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from herdbook.recipe import Recipe

ASSERTED = "asserted"
# What many facts are derived from, and who asserts others.
FOLDERS = "the author's folders (`--inputs`)"
TEXTS = "the author's texts (`rebuild --inputs`)"
RERUN = "the steps, rerun (a sample)"
BUILDER = "the builder"


def _always(recipe: Recipe) -> bool:
    del recipe
    return True


@dataclass(frozen=True)
class Fact:
    """A statement of a release.

    Args:
        name: What it is, for people.
        file: The file that contains it, or a pattern of such files.
        fields: The fields of that file; empty for the whole file. ``*`` is any name or place. In records, a tensor is called by
            its action (``tensors.laser.rank``), and for its digest by what became of it (``released``, ``input`` of a step that
            made what is released, result ``between`` steps, ``unused``).
        origin: What it is derived from, or who asserts it.
        level: The level at which it is proven; ``ASSERTED`` if none does.
        concerns: Whether releases of a recipe contain it at all.
    """

    name: str
    file: str
    fields: tuple[str, ...]
    origin: str
    level: str
    concerns: Callable[[Recipe], bool] = _always

    def fitting(self, at: Sequence[str]) -> Iterator[int]:
        """Yield the length of each field that leads to some names; the longest is the most specific one."""
        for field in self.fields or ("",):
            parts = field.split(".") if field else []
            if len(parts) <= len(at) and all(
                part in {"*", name} for part, name in zip(parts, at, strict=False)
            ):
                yield len(parts)
