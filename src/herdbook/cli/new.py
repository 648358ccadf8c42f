"""``herdbook new``: a repository for recipes."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook import __version__, settings
from herdbook.cli import options
from herdbook.errors import RecipeError, UnreachableError
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from herdbook.importing import Imported

VERSION = "@version@"  # replaced by Herdbook's version
PROJECT = "@project@"  # replaced by a link to Herdbook, once it has a public address
MAY_EXIST = {".git"}  # the repository may have been created or cloned before
EXAMPLE = Path("recipes/example.yaml")
SCHEMA = "# yaml-language-server: $schema=recipe.schema.json\n"
ABOUT = "{folder}: a repository for recipes; its README.md describes the files. Next:"


@click.command(
    epilog=options.examples(
        "herdbook new herd",
        "herdbook new herd --from mergekit_config.yml",
        "herdbook new herd --from owner/name",
    )
)
@click.argument("folder", type=options.PATH)
@click.option(
    "--from",
    "source",
    metavar="SOURCE",
    help="Begin with the recipe of a merge: a mergekit configuration or card (FILE), or owner/name[@revision] on the Hub. It is "
    "locked and planned.",
)
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="NAME=MODEL",
    help="With --from: what a name of a model stands for, as for `herdbook import`. Repeatable; @FILE names a file.",
)
def command(folder: Path, source: str | None, mapped: tuple[str, ...]) -> None:
    """Make a repository for recipes, with workflows for GitHub.

    FOLDER must be new or empty.
    """
    from herdbook.files import write_text
    from herdbook.tools.installed import root

    if mapped and source is None:
        raise click.UsageError("--map is about names in the configuration of --from")
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file; pass a new folder", str(folder))
    if folder.is_dir() and {path.name for path in folder.iterdir()} - MAY_EXIST:
        raise RecipeError("is not empty, so nothing was written; pass a new folder", str(folder))
    recipe, imported = EXAMPLE, None
    if source is not None:
        imported = _imported(source, folder, mapped)
        recipe = EXAMPLE.with_name(f"{_file_name(imported)}.yaml")
    is_new, written = not folder.exists(), []
    for name, content in _contents(root()):
        path, text = folder / name, content
        if imported and name == EXAMPLE:
            path, text = folder / recipe, SCHEMA + imported.text
        elif name == Path("config/config.yaml"):
            text = text.replace(EXAMPLE.as_posix(), recipe.as_posix())
        write_text(path, text)
        written.append(path)
    about = ABOUT.format(folder=folder)
    enter = [f"  cd {folder}"] if folder.resolve() != Path.cwd() else []
    if imported is None:
        say(
            about,
            *enter,
            "  git init",
            "  herdbook lock    # of recipes/example.yaml: fetches its model, 93 MB",
            "  snakemake -n",
        )
        return
    for line in imported.assumed:
        say(f"assumed: {line}", file=sys.stderr)
    try:
        _lock_and_plan(folder, recipe)
    except UnreachableError as error:  # which no change of the recipe helps against
        _remove(written, folder, is_new=is_new)
        raise UnreachableError(f"{error} Nothing was written to {folder}.") from error
    say(about, *enter, "  git init", "  snakemake --cores all")


def _imported(source: str, folder: Path, mapped: tuple[str, ...]) -> Imported:
    """Return the recipe that a configuration becomes in a repository, of a file or of somebody's merge.

    Raises:
        RecipeError: If there is none, or one that cannot be built.
    """
    from herdbook import recipe
    from herdbook.audit.configuration import FILES, text_of
    from herdbook.importing import import_recipe, read_mapping
    from herdbook.importing.convert import convert
    from herdbook.release.subject import FolderSubject, can_be_opened, open_subject

    mapping, recipes = read_mapping(mapped), folder / EXAMPLE.parent
    if Path(source).is_file():
        return import_recipe(Path(source), relative_to=recipes, mapping=mapping, folder=folder.resolve().name)
    if not can_be_opened(source):
        raise RecipeError(
            "--from: is neither a file, a folder, nor owner/name or owner/name@revision", source
        )
    subject = open_subject(source)
    found = text_of(subject)
    if found is None:
        raise RecipeError(
            f"--from: has none of {', '.join(FILES)}, so nothing states what it was merged from", source
        )
    content, name = found
    where = Path(source.partition("@")[0]) / name
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise RecipeError(f"--from: {name} is not a text: {error}", source) from error
    is_local = isinstance(subject, FolderSubject)
    imported = convert(text, where, None, None, recipes, mapping, is_local=is_local)
    recipe.parse(imported.text, f"{where}, as a recipe")
    return imported


def _file_name(imported: Imported) -> str:
    """Return the name of a recipe's file, by that of its release."""
    from herdbook.importing.models import slug

    return slug(imported.content["release"]["name"]) or "imported"


def _lock_and_plan(folder: Path, recipe: Path) -> None:
    from herdbook import plan as plans
    from herdbook.cli.lock import lock_recipe
    from herdbook.cli.plan import show
    from herdbook.errors import HerdbookError

    try:
        lock_recipe(folder / recipe)
        show(plans.load(folder / recipe, folder / settings.RESULTS.default))
    except UnreachableError:
        raise
    except HerdbookError:
        say(
            f"{folder}: was made, but {recipe} could not be locked or planned, for the reason below. Change it, then:",
            f"  cd {folder}",
            "  herdbook lock",
            file=sys.stderr,
        )
        raise


def _remove(written: Iterable[Path], folder: Path, *, is_new: bool) -> None:
    """Remove the files that were written, and the folders that have become empty by that; the outermost if it was made, too."""
    for path in written:
        path.unlink(missing_ok=True)
    inside = {parent for path in written for parent in path.relative_to(folder).parents if parent != Path()}
    for parent in (*sorted(inside, reverse=True), *([Path()] if is_new else [])):
        with suppress(OSError):  # it has something else
            (folder / parent).rmdir()


def _contents(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of the repository: its path, and its text."""
    from herdbook import recipe as recipes
    from herdbook.files import dump_json
    from herdbook.tools.installed import homepage

    address = homepage()
    for source, name in _files(root):
        text = source.read_text(encoding="utf-8").replace(VERSION, __version__)
        yield name, text.replace(PROJECT, f"[Herdbook]({address})" if address else "Herdbook")
    yield Path("recipes/recipe.schema.json"), dump_json(recipes.json_schema())
    yield Path("config/config.schema.json"), dump_json(settings.json_schema())


def _files(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file that is copied, with its path in the repository."""
    starter = root / "starter"
    for path in sorted(starter.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":  # pip compiles jobs/verify.py
            yield path, path.relative_to(starter)
    profiles = root / "profiles"
    yield from ((path, path.relative_to(root)) for path in sorted(profiles.glob("*/*")) if path.is_file())
    suites = root / "config/suites"
    yield from ((path, Path("recipes/suites") / path.name) for path in sorted(suites.glob("*.yaml")))
    yield root / "requirements.lock", Path("constraints.txt")
