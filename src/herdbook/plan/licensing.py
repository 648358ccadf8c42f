"""Licenses over the lineage: what each source's license demands, how the release keeps it, and what it drops.

A release that drops an obligation is refused, unless the recipe waives it by name; the card then states the waiver. An
unknown license is never permissive, and prevents publishing; what is built for oneself needs no license.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import licensing
from herdbook.errors import RecipeError
from herdbook.layout import license_text
from herdbook.recipe import Adapter, ancestry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.licensing import Duty
    from herdbook.lock import Lock, LockedText
    from herdbook.recipe import LicenseWaiver, Recipe


@dataclass(frozen=True)
class Owed:
    """An obligation of a source, with the waiver of the recipe if it is dropped and waived."""

    duty: Duty
    waiver: LicenseWaiver | None

    @property
    def refused(self) -> bool:
        """Whether it is dropped without a waiver."""
        return bool(self.duty.dropped) and self.waiver is None


@dataclass(frozen=True)
class LicensedSource:
    """A source or an adapter that the released model is made from, and its license.

    Args:
        name: Its name in the recipe; of an adapter, that of the model that it is folded into.
        uri: Where a source is from; empty for an adapter.
        license: The license that it declares.
        gated: How access to it is granted, if it is gated.
        texts: The license texts among its files.
        owed: What its license demands.
    """

    name: str
    uri: str
    license: str | None
    gated: str | bool
    texts: tuple[LockedText, ...]
    owed: tuple[Owed, ...]

    def shown(self, obligation: str) -> list[str]:
        """Return the words that its license wants to be shown, for an obligation that is not waived."""
        return [
            item.duty.rule.value
            for item in self.owed
            if item.duty.rule.obligation == obligation and item.waiver is None
        ]

    @property
    def files(self) -> dict[str, LockedText]:
        """Its license texts, by their names in the release."""
        return {license_text(self.name, text.name): text for text in self.texts}


def licensed_sources(recipe: Recipe, lock: Lock) -> tuple[LicensedSource, ...]:
    """Return the sources and adapters that the released model is made from, in the recipe's order."""
    release = recipe.release
    names = (release.name, *([release.repo.partition("/")[2]] if release.repo else []))
    about = licensing.Release(release.license, names)
    waivers = {(waiver.source, waiver.obligation): waiver for waiver in release.waivers}

    def owed(name: str, license_: str | None) -> tuple[Owed, ...]:
        found = licensing.duties(license_, about)
        return tuple(Owed(duty, waivers.get((name, duty.rule.obligation))) for duty in found)

    needed = set(ancestry(recipe, release.model))
    found = []
    for name in (name for name in recipe.models if name in needed):
        model = recipe.models[name]
        if name in lock.sources:
            pin = lock.sources[name]
            made = LicensedSource(
                name, pin.uri, pin.license, pin.gated, pin.license_texts, owed(name, pin.license)
            )
            found.append(made)
        elif isinstance(model, Adapter):
            texts = lock.adapters[name].license_texts if name in lock.adapters else ()
            found.append(LicensedSource(name, "", model.license, False, texts, owed(name, model.license)))
    return tuple(found)


def check_licenses(recipe: Recipe, lock: Lock) -> None:
    """Check that the release drops no obligation of a source's license. Raises RecipeError; each one is named."""
    sources = licensed_sources(recipe, lock)
    problems = [*_refusals(sources, unknown=False), *_idle_waivers(recipe, sources)]
    words = [text for source in sources for text in source.shown("built-with")]
    if words and "opening" not in recipe.card.sections:
        problems.append(
            f"card.sections: 'opening' is missing, where the words are displayed that a license demands: {words[0]!r}"
        )
    if problems:
        raise RecipeError(problems)


def unknown_licenses(recipe: Recipe, lock: Lock) -> list[str]:
    """Return why nobody can know whether a release may be published, one line each."""
    problems = _refusals(licensed_sources(recipe, lock), unknown=True)
    if recipe.release.license == "unknown":
        return ["release.license: 'unknown' gives nobody a right to use the release: choose one", *problems]
    return list(problems)


def gated_sources(recipe: Recipe, lock: Lock) -> list[str]:
    """Return the sources of the released model that were gated when they were locked: ``name (uri, how)``."""
    return [
        f"{source.name} ({source.uri}, access {'granted manually' if source.gated == 'manual' else 'after accepting terms'})"
        for source in licensed_sources(recipe, lock)
        if source.gated
    ]


def _refusals(sources: tuple[LicensedSource, ...], *, unknown: bool) -> Iterator[str]:
    for source in sources:
        for item in source.owed:
            obligation = item.duty.rule.obligation
            if item.refused and (obligation == "unknown") is unknown:
                yield (
                    f"models.{source.name}: {item.duty.dropped} ({item.duty.rule.clause}). Change the release, or, if someone "
                    f"has checked and takes responsibility: release.waivers {{source: {source.name}, obligation: "
                    f"{obligation}, by, because}}"
                )


def _idle_waivers(recipe: Recipe, sources: tuple[LicensedSource, ...]) -> Iterator[str]:
    used = {id(item.waiver) for source in sources for item in source.owed if item.duty.dropped}
    for index, waiver in enumerate(recipe.release.waivers):
        if id(waiver) not in used:
            yield f"release.waivers.{index}: {waiver.source!r} has no dropped obligation {waiver.obligation!r}; leave it out"
