"""What has no checksums, or more files than a release: a release that was damaged, or none. Which, and what to name instead.

Nothing is verified of what is none (exit status 2); a release that has lost its checksums fails like a forged one (8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import limits
from herdbook.errors import NoReleaseError, VerificationError
from herdbook.layout import CLAIMS, CONFIG, LINEAGE, LOCK, RECIPE, RECORDS, SUMS, is_large
from herdbook.release.subject import FolderSubject
from herdbook.release.unopened import repository_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from herdbook.release.subject import Subject

# The files that a release has beside its checksums, and nothing else is likely to have, except the lock of a recipe's folder.
_OF_RELEASES = (CLAIMS, LOCK, LINEAGE)
_RECORDS = f"{RECORDS}/"
_NAMED = 3  # of the releases in a folder
_RESULTS = "results/*/release"  # where a build puts releases, by default


def without_sums(subject: Subject) -> VerificationError:
    """Return the error for what has no checksums."""
    name, files = subject.name.rstrip("/") or subject.name, subject.files
    left = [] if _is_of_a_recipe(files) else _left(files)
    if SUMS in subject.odd:
        kind = VerificationError if left else NoReleaseError
        return kind(f"{name}: {SUMS} {subject.odd[SUMS]}{_instead_of_links(subject)}")
    if left:
        return VerificationError(
            f"{name}: has no {SUMS}, although it has {left[0]}: a release without its "
            "checksums proves nothing. Where it was built, `snakemake` makes it again"
        )
    places = _releases_in(files)
    if _is_of_a_recipe(files):
        return NoReleaseError(_of_a_recipe(name, places))
    if places:
        return NoReleaseError(f"{name}: is not a release itself: {_where(name, places)}")
    if not files and not subject.odd:
        return NoReleaseError(f"{name}: is not a release of Herdbook: it is empty")
    return NoReleaseError(
        f"{name}: is not a release of Herdbook: it has none of {', '.join((SUMS, *_OF_RELEASES))} and nothing in {_RECORDS}. "
        f"Name the folder or the repository that has them. To check another merge: herdbook audit {name}; to see what its "
        f"files are: herdbook card {name}; to check one file of a release: herdbook verify FILE --of RELEASE"
    )


def overfull(folder: Path) -> VerificationError:
    """Return the error for a folder that has more files and folders than any release has."""
    many = f"has more than {limits.FILES:,} files and folders"
    looked_for = (SUMS, *_OF_RELEASES, RECIPE, CONFIG)
    found = {name for name in looked_for if (folder / name).is_file()}
    if (folder / RECORDS).is_dir():
        found.add(_RECORDS)
    if SUMS in found or (_left(found) and not _is_of_a_recipe(found)):
        return VerificationError(
            f"{folder}: {many}, more than a release can have: others are among its own, so it was not read. A release is in a folder of its own"
        )
    places = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"{_RESULTS}/{SUMS}"))
    if _is_of_a_recipe(found):
        return NoReleaseError(_of_a_recipe(str(folder), places))
    where = f": {_where(str(folder), places)}" if places else ". Name the folder of a release alone"
    return NoReleaseError(f"{folder}: {many}, and is not a release itself{where}")


def _left(names: Collection[str]) -> list[str]:
    """Return those of the names that only releases have."""
    return sorted(name for name in names if name in _OF_RELEASES or name.startswith(_RECORDS))


def _is_of_a_recipe(names: Collection[str]) -> bool:
    """Return whether a folder has a recipe with its lock, as a release has, and nothing else of one: neither records nor a model."""
    left = _left(names)
    is_model = any(name == CONFIG or ("/" not in name and is_large(name)) for name in names)
    return left == [LOCK] and RECIPE in names and not is_model


def _of_a_recipe(name: str, places: Sequence[str]) -> str:
    advice = (
        _where(name, places)
        if places
        else f"build it with `snakemake`, and name the release that it makes, {_RESULTS.replace('*', 'NAME')}"
    )
    return f"{name}: is not a release, but the folder of a recipe ({RECIPE} and {LOCK}): {advice}"


def _where(name: str, places: Sequence[str]) -> str:
    listed = " and ".join(f"{name.rstrip('/')}/{place}" for place in places[:_NAMED])
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f"a release is in {listed}" if len(places) == 1 else f"releases are in {listed}{more}"


def _releases_in(files: Mapping[str, object]) -> list[str]:
    """Return the folders inside another one that are releases, by their files: whoever names it may mean one of them."""
    ends = {name.rpartition("/")[::2] for name in files if "/" in name}
    return sorted(
        folder for folder, name in ends if name == SUMS and any((folder, one) in ends for one in _OF_RELEASES)
    )


def _instead_of_links(subject: Subject) -> str:
    """Return what else to name than a folder of links, as the end of a message."""
    if not isinstance(subject, FolderSubject) or (repository := repository_of(subject.folder)) is None:
        return ""
    return f". To verify it on the Hub: herdbook verify {repository}"
