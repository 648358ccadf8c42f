"""What a release has for building it again: its recipe, its lock, and inputs, at the places where the recipe looks for them.

All of it is untrusted. So it goes into one folder that nothing but recipes is read from: no name in a release leads to a
Snakefile, a profile, a workflow of GitHub, or a module that Python would import from the working folder.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import limits
from herdbook.errors import VerificationError
from herdbook.importing.models import slug
from herdbook.layout import CARD, LOCK, RECIPE, SUMS
from herdbook.lock import LockedFile
from herdbook.lock.paths import is_absolute
from herdbook.recipe import Adapter, Folder

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from herdbook.release.reader import Release

MAX_LEVELS = 4  # that a recipe may name files above its folder, as when a release is verified by rebuilding


@dataclass(frozen=True)
class Absent:
    """What a recipe names and its release does not have.

    Args:
        where: The key of the recipe, or what names it.
        path: The place where the recipe looks for it.
        files: How many files it is.
    """

    where: str
    path: Path
    files: int


@dataclass(frozen=True)
class Inputs:
    """What a release has for building it again. All paths are relative to the repository that it is laid out in.

    Args:
        recipe: The path of the recipe; the lock is beside it.
        files: The content of all files, by path, with recipe and lock.
        absent: What the release does not have.
        code: The files of code that the recipe lets tasks run.
    """

    recipe: Path
    files: dict[Path, bytes]
    absent: tuple[Absent, ...]
    code: tuple[Path, ...]


@dataclass(frozen=True)
class _Named:
    """A file, or the files of a folder, that a recipe names.

    Args:
        where: The key of the recipe.
        path: The place, relative to the recipe.
        file: The file; None for a folder, of which a release has no files.
        files: How many files it is.
    """

    where: str
    path: str
    file: LockedFile | None
    files: int = 1


def is_release(files: Container[str]) -> bool:
    """Return whether files are, by their names, those of a release that Herdbook built."""
    return all(name in files for name in (SUMS, RECIPE, LOCK))


def release_with(path: Path) -> Path | None:
    """Return the release that a path leads to: itself, or the folder of its recipe, lock or card. None if it does not."""
    folder = path.parent if path.name in {CARD, RECIPE, LOCK} and path.is_file() else path
    names = (SUMS, RECIPE, LOCK)
    return folder if is_release({name for name in names if (folder / name).is_file()}) else None


def inputs_of(release: Release, recipes: Path) -> Inputs:
    """Return what a release has for building it again, and what it lacks.

    Args:
        release: The release.
        recipes: The folder of recipes, relative to the repository. The files get a folder of their own in it.

    Raises:
        VerificationError: If recipe, lock or checksums are damaged or contradict each other, or name a path outside.
        UnverifiedError: If the lock is of another version.
        RecipeError: If the recipe is damaged.
    """
    named = list(_named(release))
    for one in named:
        if wrong := _wrong(one.path):
            raise VerificationError(f"{release.name}: {one.where}: {one.path!r} {wrong}")
    levels = max((_levels(one.path) for one in named), default=0)
    if levels > MAX_LEVELS:
        far = next(one for one in named if _levels(one.path) == levels)
        raise VerificationError(
            f"{release.name}: {far.where}: {far.path} is {levels} levels above the recipe's folder, over the limit of {MAX_LEVELS}"
        )
    own = recipes / (slug(release.recipe.release.name) or "release")
    beside = own.joinpath(*["recipe"] * levels)
    files: dict[Path, bytes] = {}
    for name in (RECIPE, LOCK):
        files[beside / name] = _read(release, name)
    held = {digest: name for name, digest in release.sums.items()}
    absent: dict[Path, Absent] = {}
    read_bytes = 0
    for one in named:
        place = _place(beside, one.path)
        source = held.get(str(one.file.sha256)) if one.file else None
        if source is None or source not in release.subject.files:
            absent[place] = Absent(one.where, place, one.files)
            continue
        content = _read(release, source)
        if files.setdefault(place, content) != content:
            raise VerificationError(f"{release.name}: {one.where}: {one.path} is another file as well")
        read_bytes += len(content)
        if read_bytes > limits.TEXTS_BYTES:  # a lock may name one file at any number of places
            raise VerificationError(
                f"{release.name}: its inputs have more than {limits.TEXTS_BYTES:,} bytes together, the limit"
            )
    for path in files:
        if other := next((parent for parent in path.parents if parent in files), None):
            raise VerificationError(f"{release.name}: {other} would be a file and the folder of {path.name}")
    trusted = release.recipe.evaluate.trust if release.recipe.evaluate else []
    code = tuple(_place(beside, path) for path in trusted)
    return Inputs(beside / RECIPE, files, tuple(absent.values()), code)


def _named(release: Release) -> Iterator[_Named]:
    """Yield the local files that a recipe names, as its lock pins them."""
    recipe, lock = release.recipe, release.lock
    for name, model in recipe.models.items():
        if isinstance(model, Folder) and name in lock.sources:
            yield _Named(f"models.{name}.folder", model.folder, None, len(lock.sources[name].files))
        elif isinstance(model, Adapter) and isinstance(model.adapter, str) and name in lock.adapters:
            yield _Named(f"models.{name}.adapter", model.adapter, None, len(lock.adapters[name].files))
    for name, task in lock.tasks.items():
        yield from (_Named(f"the task {name}", file.name, file) for file in task.local)
        beside = os.path.dirname(task.file.name) if task.file else ""  # noqa: PTH120 - not of this machine
        for file in task.data:
            yield _Named(f"the task {name}", os.path.join(beside, file.name), file)  # noqa: PTH118
    for suite in lock.suites.values():
        yield _Named(f"the suite {suite.suite.suite}", suite.file.name, suite.file)
    for name, text in lock.calibration.items():
        yield from (_Named(f"calibration.{name}", file.name, file) for file in text.data)
    for name, file in lock.leaderboards.items():
        yield _Named(f"leaderboards.{name}", file.name, file)
    for file in lock.templates.values():
        yield _Named("card.templates", file.name, file)
    if lock.image:
        yield _Named("release.image", lock.image.name, lock.image)
    if isinstance(lock.imatrix, LockedFile):
        yield _Named("quantize.imatrix.file", lock.imatrix.name, lock.imatrix)


def _wrong(path: str) -> str | None:
    """Return why a path is not one that a recipe of a repository has; None if it is."""
    if is_absolute(path):
        return "is an absolute path"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "has control characters"
    if any(part.startswith(".") and part.strip(".") for part in path.split("/")):
        return "is hidden, as are the folders that programs such as git read settings from"
    return None


def _levels(path: str) -> int:
    """Return how many levels above its folder a relative path leads."""
    return os.path.normpath(path).split("/").count("..")


def _place(beside: Path, path: str) -> Path:
    """Return a path beside the recipe as one from the repository, without `..`."""
    return Path(os.path.normpath(beside / path))


def _read(release: Release, name: str) -> bytes:
    """Return a file of a release, as its checksums have it."""
    content = release.subject.read(name, limits.TEXTS_BYTES)
    if release.sums.get(name) != hashlib.sha256(content).hexdigest():
        raise VerificationError(f"{release.name}: {name}: is not the file that {SUMS} lists")
    return content
