"""``herdbook new``: a repository for recipes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook import __version__
from herdbook.cli import options
from herdbook.errors import RecipeError
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "@version@"  # replaced by Herdbook's version
PROJECT = "@project@"  # replaced by a link to Herdbook, once it has a public address
MAY_EXIST = {".git"}  # the repository may have been created or cloned before
NEXT = """\
{folder}: a repository for recipes; its README.md describes the files. Next:
  cd {folder}
  herdbook lock recipes/example.yaml
  snakemake -n
"""


@click.command(epilog=options.examples("herdbook new herd"))
@click.argument("folder", type=options.PATH)
def command(folder: Path) -> None:
    """Make a repository for recipes, with workflows for GitHub.

    FOLDER must be new or empty.
    """
    from herdbook.files import write_text
    from herdbook.tools.installed import homepage, root

    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file; pass a new folder", str(folder))
    if folder.is_dir() and {path.name for path in folder.iterdir()} - MAY_EXIST:
        raise RecipeError("is not empty, so nothing was written; pass a new folder", str(folder))
    address = homepage()
    values = {VERSION: __version__, PROJECT: f"[Herdbook]({address})" if address else "Herdbook"}
    for source, name in _files(root()):
        text = source.read_text(encoding="utf-8")
        for word, value in values.items():
            text = text.replace(word, value)
        write_text(folder / name, text)
    say(*NEXT.format(folder=folder).removesuffix("\n").split("\n"))


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file with its path in the repository."""
    starter = root / "starter"
    for path in sorted(starter.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":  # pip compiles jobs/verify.py
            yield path, path.relative_to(starter)
    profiles = root / "profiles"
    yield from ((path, path.relative_to(root)) for path in sorted(profiles.glob("*/*")) if path.is_file())
    yield root / "requirements.lock", Path("constraints.txt")
