"""``herdbook new``: a repository for recipes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from herdbook import __version__, settings
from herdbook.cli import options
from herdbook.errors import RecipeError
from herdbook.visible import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.importing import Imported
    from herdbook.release.reader import Release
    from herdbook.release.rebuilding import Inputs

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
        "herdbook new herd --from owner/a-release-of-herdbook@v1",
    )
)
@click.argument("folder", type=options.PATH)
@click.option(
    "--from",
    "source",
    metavar="SOURCE",
    help="Begin with the recipe of a merge: a mergekit configuration or card (FILE), or owner/name[@revision] on the Hub. It is "
    "locked and planned. Or with a release of Herdbook, a folder or owner/name[@revision]: its own recipe, lock and inputs, to "
    "build it again.",
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
    from herdbook.files import atomic_writer, write_text
    from herdbook.release.rebuilding import inputs_of
    from herdbook.tools.installed import root

    if mapped and source is None:
        raise click.UsageError("--map is about names in the configuration of --from")
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file; pass a new folder", str(folder))
    if folder.is_dir() and {path.name for path in folder.iterdir()} - MAY_EXIST:
        raise RecipeError("is not empty, so nothing was written; pass a new folder", str(folder))
    recipe, imported, inputs = EXAMPLE, None, None
    if source is not None and (release := _release(source, folder)):
        if mapped:
            raise click.UsageError(
                "--map is about names in a mergekit configuration, and --from is a release of Herdbook"
            )
        inputs = inputs_of(release, EXAMPLE.parent)
        recipe = inputs.recipe
    elif source is not None:
        imported = _imported(source, folder, mapped)
        recipe = EXAMPLE.with_name(f"{_file_name(imported)}.yaml")
    for path, content in inputs.files.items() if inputs else ():
        with atomic_writer(folder / path) as file:
            file.write(content)
    for name, text in _contents(root()):
        if name == EXAMPLE and inputs:
            continue
        if name == EXAMPLE and imported:
            write_text(folder / recipe, SCHEMA + imported.text)
        elif name == Path("config/config.yaml"):
            write_text(folder / name, text.replace(EXAMPLE.as_posix(), recipe.as_posix()))
        else:
            write_text(folder / name, text)
    about = ABOUT.format(folder=folder)
    enter = [f"  cd {folder}"] if folder.resolve() != Path.cwd() else []
    if inputs:
        _plan_again(folder, inputs)
        build = "  snakemake --cores all" + "    # once the missing files are there" * bool(inputs.absent)
        say(about, *enter, "  git init", build)
        return
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
    _lock_and_plan(folder, recipe)
    say(about, *enter, "  git init", "  snakemake --cores all")


def _release(source: str, folder: Path) -> Release | None:
    """Return the release of Herdbook that a text names; None if it is of something else.

    Raises:
        RecipeError: If it is a file of a release.
    """
    from herdbook.release.reader import Release
    from herdbook.release.rebuilding import is_release, release_with
    from herdbook.release.subject import can_be_opened, open_subject

    if Path(source).is_file():
        if of := release_with(Path(source)):
            raise RecipeError(
                f"--from: belongs to a release of Herdbook; name its folder: herdbook new {folder} --from {of}",
                source,
            )
        return None
    if not can_be_opened(source):
        return None
    subject = open_subject(source)
    return Release(subject) if is_release(subject.files) else None


def _plan_again(folder: Path, inputs: Inputs) -> None:
    """Show the plan of a release that was laid out, and say what it lacks."""
    from herdbook import plan as plans
    from herdbook.cli.plan import show
    from herdbook.errors import HerdbookError
    from herdbook.humanize import plural

    say(
        f"{folder / inputs.recipe}: recipe and lock of the release, and {plural(len(inputs.files) - 2, 'input')}"
    )
    try:
        show(plans.load(folder / inputs.recipe, folder / settings.RESULTS.default))
    except HerdbookError:
        say(
            f"{folder}: was made, but the release cannot be planned here, for the reason below.",
            file=sys.stderr,
        )
        raise
    if inputs.absent:
        say(
            "not in the release, since they were files of its author's:",
            *(f"  {one.where}: {folder / one.path} ({plural(one.files, 'file')})" for one in inputs.absent),
            "The jobs that read them fail without them, and so nothing that is made from them can be built. Put them there if you "
            "have them: each is compared with its digest in the lock. Or change the recipe and run `herdbook lock`, which makes "
            "another release. `herdbook verify` checks the release as it is.",
            file=sys.stderr,
        )
    if inputs.code:
        names = ", ".join(str(folder / path) for path in inputs.code)
        say(
            f"warning: its tasks run code of its author's. Read it before you build: {names}", file=sys.stderr
        )


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
    except HerdbookError:
        say(
            f"{folder}: was made, but {recipe} could not be locked or planned, for the reason below. Change it, then:",
            f"  cd {folder}",
            "  herdbook lock",
            file=sys.stderr,
        )
        raise


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
