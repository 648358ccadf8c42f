"""The notice of a release, and the license texts of its sources: what their licenses want to be handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.escape import one_line
from herdbook.licensing import identifiers, terms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.plan.licensing import LicensedSource
    from herdbook.recipe import Release
    from herdbook.steps.card.origins import Source


def license_texts(licensed: Iterable[LicensedSource]) -> dict[str, str]:
    """Return the license texts of the sources, by their names in the release."""
    return {name: text.text for source in licensed for name, text in source.files.items()}


def notice(release: Release, licensed: Iterable[LicensedSource], places: dict[str, Source]) -> str:
    """Return the text of NOTICE.

    Args:
        release: The recipe's release.
        licensed: The sources with what their licenses demand.
        places: Where each source is from, by its name in the recipe.
    """
    lines = [
        f"{release.name}, under the license {one_line(release.license_name or release.license)}",
        "",
        "This model was made with Herdbook from the models below, whose weights were changed (README.md states how).",
        "The licenses and notices of each of them hold for what comes from it.",
    ]
    for source in licensed:
        lines += ["", *_about(source, places[source.name])]
    return "\n".join(lines) + "\n"


def _about(source: LicensedSource, place: Source) -> Iterator[str]:
    yield f"{source.name}: {one_line(place.uri)}" + (f" ({place.revision})" if place.revision else "")
    yield f"  license: {one_line(source.license) if source.license else 'not stated'}"
    for name, text in source.files.items():
        yield f"  text: {name} (SHA-256 of the source's file: {text.sha256})"
    if not source.texts:
        for address in filter(None, (terms_of(name).text for name in identifiers(source.license))):
            yield f"  text: {address} (its files contain none)"
    for obligation in ("built-with", "notice", "use-policy"):
        for value in filter(None, source.shown(obligation)):
            yield f"  {'use policy: ' if obligation == 'use-policy' else ''}{value}"
