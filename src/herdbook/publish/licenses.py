"""Check whether the sources' licenses allow the license that a release declares. Rules of thumb, not legal advice.

The licenses are those in the lock, as the sources' owners declared them. Tables of the Hub's identifiers state what each
requires of a derived work's license. An identifier in no table is unknown, and an unknown license is never permissive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.recipe import Adapter, ancestry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.lock import Lock
    from herdbook.recipe import Recipe

# The derived work may have any license, as long as notices are kept.
PERMISSIVE = frozenset((
    "afl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc0-1.0", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "ecl-2.0", "etalab-2.0", "isc", "mit", "ncsa", "odc-by", "openmdw-1.0",
    "openmdw-1.1", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
))  # fmt: skip
# The derived work keeps this license: share-alike, copyleft, or a vendor's own terms that apply to derived weights.
SAME = frozenset((
    "agpl-3.0", "apple-amlr", "apple-ascl", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "c-uda", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license",
    "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "fair-noncommercial-research-license", "gemma", "gfdl",
    "gpl", "gpl-2.0", "gpl-3.0", "grok2-community", "h-research", "intel-research", "lgpl", "lgpl-2.1",
    "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c",
    "mpl-2.0", "ms-pl", "odbl", "ofl-1.1", "openrail", "openrail++", "osl-3.0",
))  # fmt: skip
# The derived work must forbid commercial use, too.
NONCOMMERCIAL = frozenset(("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"))
NONCOMMERCIAL_TOO = NONCOMMERCIAL | {name for name in SAME if name.startswith("cc-by-nc-sa-")}
# Derived works are not allowed.
NO_DERIVATIVES = frozenset(("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"))
KNOWN = PERMISSIVE | SAME | NONCOMMERCIAL | NO_DERIVATIVES


def problems(recipe: Recipe, lock: Lock) -> list[str]:
    """Return each conflict of a source's license with the release's, one line each."""
    declared = recipe.release.license
    conflicts = (
        [] if declared in KNOWN else [f"release.license: {declared!r} is not in Herdbook's list of licenses"]
    )
    for name, license_ in source_licenses(recipe, lock):
        for identifier in [part.strip() for part in (license_ or "").split(",")]:
            reason = _objection(identifier.lower(), declared)
            if reason:
                conflicts.append(f"models.{name}: {reason}")
    return conflicts


def _objection(source: str, declared: str) -> str | None:
    if source in NO_DERIVATIVES:
        return f"its license, {source}, allows no derived works"
    if source not in KNOWN:
        state = f"its license, {source!r}, is not known to Herdbook" if source else "its license is not known"
        return f"{state}; a source with an unknown license may not be published"
    if source in SAME and source != declared:
        return f"its license, {source}, must also be that of derived works; release.license is {declared}"
    if source in NONCOMMERCIAL and declared not in NONCOMMERCIAL_TOO:
        return f"its license, {source}, forbids commercial use; release.license, {declared}, does not"
    return None


def source_licenses(recipe: Recipe, lock: Lock) -> Iterator[tuple[str, str | None]]:
    """Yield each source that the released model is made from, with its declared license."""
    for name in _released(recipe):
        model = recipe.models[name]
        if name in lock.sources:
            yield name, lock.sources[name].license
        elif isinstance(model, Adapter):
            yield name, model.license


def gated_sources(recipe: Recipe, lock: Lock) -> list[str]:
    """Return the sources of the released model that were gated when they were locked: ``name (uri, how)``."""
    return [
        f"{name} ({lock.sources[name].uri}, access {'granted manually' if lock.sources[name].gated == 'manual' else 'after accepting terms'})"
        for name in _released(recipe)
        if name in lock.sources and lock.sources[name].gated
    ]


def _released(recipe: Recipe) -> list[str]:
    """Return the names of the released model and all that it is made from, in the recipe's order."""
    needed = set(ancestry(recipe, recipe.release.model))
    return [name for name in recipe.models if name in needed]
