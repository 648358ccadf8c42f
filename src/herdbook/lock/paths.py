"""Paths in what is released. Recipe, lock and the files of a source must not show the author's machine, nor depend on it.

So what a recipe names has a path relative to the recipe. A path that climbs to the root of the file system is an absolute one
in another form. Whatever lies elsewhere is linked: only the link's name is released.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError, SourceError
from herdbook.recipe import Adapter, Folder, is_file, located, search_of
from herdbook.recipe.quantize import GivenImatrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.recipe import Recipe

# Keys under which the libraries that save models and adapters store paths: _name_or_path, tokenizer_file, ...
_PATH_KEY = re.compile(r"(?:path|file|dir)$")


def named(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the paths in a recipe, each after the key that it stands at."""
    for name, model in recipe.models.items():
        if isinstance(model, Folder):
            yield f"models.{name}.folder", model.folder
        elif isinstance(model, Adapter) and isinstance(model.adapter, str):
            yield f"models.{name}.adapter", model.adapter
    for index, entry in enumerate(recipe.evaluate.entries if recipe.evaluate else []):
        if is_file(entry.path):
            yield f"evaluate.tasks.{index}", entry.path
    for name, model in recipe.models.items():
        if search := search_of(model):
            for key, task in zip(("validation", "test"), search.tasks, strict=True):
                if is_file(task.task):
                    yield f"models.{name}.search.{key}", task.task
    for index, path in enumerate(recipe.evaluate.trust if recipe.evaluate else []):
        yield f"evaluate.trust.{index}", path
    for name, text in recipe.calibration.items():
        for index, file in enumerate(text.data):
            yield f"calibration.{name}.data.{index}", file
    if recipe.card.templates:
        yield "card.templates", recipe.card.templates
    if recipe.release.image:
        yield "release.image.file", recipe.release.image.file
    for name, board in recipe.leaderboards.items():
        yield f"leaderboards.{name}.snapshot", board.snapshot
    if recipe.quantize and isinstance(recipe.quantize.imatrix, GivenImatrix):
        yield "quantize.imatrix.file", recipe.quantize.imatrix.file


def is_absolute(path: str) -> bool:
    """Return whether a path leads to a place of one machine or one user, on any operating system."""
    return PurePosixPath(path).is_absolute() or path.startswith("~") or _is_windows(path)


def problem(path: str, beside: Path) -> str | None:
    """Return why a path may not be in a release; None if it may.

    Args:
        path: The path, as a recipe or a task names it.
        beside: The folder that it is relative to.
    """
    if _is_windows(path):
        return f"{path} is a path of Windows. Name it relative to {beside}/, with / between its parts"
    if not is_absolute(path) and not _reaches_root(path, beside):
        return None
    # an unknown user's home stays as it is
    target = os.path.normpath(beside / os.path.expanduser(path))  # noqa: PTH111
    relative = os.path.relpath(target, os.path.realpath(beside))
    if _reaches_root(relative, beside):
        link = Path(path).name
        place = (
            f"link it (`ln -s {shlex.quote(target)} {shlex.quote(str(beside / link))}`), and name it {link}"
        )
    else:
        place = f"name it {'./' * relative.startswith('~')}{relative}"
    kind = "is an absolute path" if is_absolute(path) else "climbs to the root of the file system"
    return f"{path} {kind}, and everyone would see it in the release: {place}"


def _is_windows(path: str) -> bool:
    return "\\" in path or PureWindowsPath(path).drive != ""


def _reaches_root(path: str, beside: Path) -> bool:
    """Return whether a relative path climbs to the root of the file system, so that the rest of it is absolute."""
    climbs = os.path.normpath(path).split("/").count("..")
    return climbs >= len(Path(os.path.realpath(beside)).parts) - 1


def check_recipe(recipe: Recipe, recipe_path: Path) -> None:
    """Check that a recipe contains no paths of this machine.

    Raises:
        RecipeError: If it does; each is named.
    """
    beside = recipe_path.parent
    problems = [
        f"{where}: {wrong}" for where, path in named(recipe) if (wrong := problem(path, beside)) is not None
    ]
    if not problems:
        problems = list(_shown(recipe_path.read_text(encoding="utf-8"), beside))
    if problems:
        raise located(problems, recipe_path)


def check_task(where: str, task: str, text: str, data: list[str], beside: Path) -> None:
    """Check that the file of an evaluation task, which becomes part of the release, contains no paths of this machine.

    Args:
        where: The key that names it, and the file, for error messages.
        task: The file's path, as the recipe names it.
        text: Its content.
        data: The paths of its data, relative to the file.
        beside: The recipe's folder.

    Raises:
        RecipeError: If it does; each is named.
    """
    folder = (beside / task).parent
    problems = [wrong for path in data if (wrong := problem(path, folder)) is not None]
    problems = problems or list(_shown(text, beside))
    if problems:
        raise RecipeError([f"{where}: {wrong}" for wrong in problems])


def _shown(text: str, beside: Path) -> Iterator[str]:
    """Yield the lines of a text, comments included, that contain the recipe's folder or the user's home.

    A home such as /root, which reveals nothing about its user, does not count.
    """
    folders = {os.path.abspath(beside), os.path.realpath(beside), os.path.expanduser("~")}  # noqa: PTH100, PTH111
    known = "|".join(re.escape(folder) for folder in sorted(folders) if len(Path(folder).parts) > 2)
    if not known:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if found := re.search(rf"(?<![\w.-])(?:{known})(?![\w.-])", line):
            yield f"line {number}: contains {found[0]}, a path of this machine, and everyone would see it in the release"


def check_saved(about: Any, what: str) -> None:
    """Check that what a library saved about a model in a local folder contains no paths of the machine where it was saved.

    Args:
        about: The content of a JSON file, or the free entries in the header of a safetensors file.
        what: The file, for messages.

    Raises:
        SourceError: If it does; the key is named.
    """
    for key, path in _keyed(about):
        if _PATH_KEY.search(key) and is_absolute(path):
            raise SourceError(
                f"{what}: {key} is {path}, a path of the machine on which it was saved, and everyone would see it in the "
                "release. Replace it by the model's name on the Hub, or remove the key."
            )


def _keyed(value: Any) -> Iterator[tuple[str, str]]:
    """Yield all strings in a JSON value that have a key, each after its key."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, str):
            yield key, inner
        yield from _keyed(inner)
    for inner in value if isinstance(value, list) else ():
        yield from _keyed(inner)
