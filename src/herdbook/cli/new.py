"""``herdbook new``: a repository to keep recipes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import __version__
from herdbook.errors import RecipeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from herdbook.cli.command import Add

VERSION = "@version@"  # stands in the files for ours
MAY_BE_THERE = {".git"}  # of a repository that was made or cloned first
NEXT = """\
{folder}: a repository for recipes. Its README.md says what is where. Next:
  cd {folder}
  herdbook lock --recipe recipes/example.yaml
  snakemake -n
"""


def register(add: Add) -> None:
    """Add the command."""
    command = add(
        "new", "make a repository to keep recipes in, with its workflows for GitHub", _new, recipe=False
    )
    command.add_argument("folder", type=Path, metavar="FOLDER", help="not there yet, or empty")


def _new(options: argparse.Namespace) -> None:
    from herdbook.files import write_text
    from herdbook.tools.installed import root

    folder: Path = options.folder
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file; name a folder that is not there yet", str(folder))
    if folder.is_dir() and {path.name for path in folder.iterdir()} - MAY_BE_THERE:
        raise RecipeError(
            "is not empty, and nothing was written; name a folder that is not there yet", str(folder)
        )
    for source, name in _files(root()):
        write_text(folder / name, source.read_text(encoding="utf-8").replace(VERSION, __version__))
    print(NEXT.format(folder=folder), end="")


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file, and its name in the repository."""
    starter = root / "starter"
    yield from ((path, path.relative_to(starter)) for path in sorted(starter.rglob("*")) if path.is_file())
    profiles = root / "profiles"
    yield from ((path, path.relative_to(root)) for path in sorted(profiles.glob("*/*")) if path.is_file())
    yield root / "requirements.lock", Path("constraints.txt")
