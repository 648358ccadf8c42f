"""``herdbook new``: a repository for recipes."""

from __future__ import annotations

import shlex
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
    from herdbook.release.rebuilding import Inputs
    from herdbook.release.subject import Subject

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
    from herdbook.release.reader import Release
    from herdbook.release.rebuilding import inputs_of, is_release
    from herdbook.tools.installed import root

    if mapped and source is None:
        raise click.UsageError("--map is about names in the configuration of --from")
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file; pass a new folder", str(folder))
    if folder.is_dir() and {path.name for path in folder.iterdir()} - MAY_EXIST:
        raise RecipeError("is not empty, so nothing was written; pass a new folder", str(folder))
    recipe, imported, inputs = EXAMPLE, None, None
    subject = _subject(source, folder) if source is not None else None
    if subject and is_release(subject.files):
        if mapped:
            raise click.UsageError(
                "--map is about names in a mergekit configuration, and --from is a release of Herdbook"
            )
        inputs = inputs_of(Release(subject), EXAMPLE.parent)
        recipe = inputs.recipe
    elif source is not None:
        imported = _imported(source, subject, folder, mapped)
        recipe = EXAMPLE.with_name(f"{_file_name(imported)}.yaml")
    for place, data in inputs.files.items() if inputs else ():
        with atomic_writer(folder / place) as file:
            file.write(data)
    is_new, written = not folder.exists(), []
    for name, content in _contents(root()):
        path, text = folder / name, content
        if name == EXAMPLE and inputs:
            continue
        if name == EXAMPLE and imported:
            path, text = folder / recipe, SCHEMA + imported.text
        elif name == Path("config/config.yaml"):
            text = text.replace(EXAMPLE.as_posix(), recipe.as_posix())
        write_text(path, text)
        written.append(path)
    about = ABOUT.format(folder=folder)
    enter = [f"  cd {shlex.quote(str(folder))}"] if folder.resolve() != Path.cwd() else []
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
    try:
        _lock_and_plan(folder, recipe)
    except UnreachableError as error:  # which no change of the recipe helps against
        _remove(written, folder, is_new=is_new)
        raise UnreachableError(f"{error} Nothing was written to {folder}.") from error
    say(about, *enter, "  git init", "  snakemake --cores all")


def _subject(source: str, folder: Path) -> Subject | None:
    """Return the folder or the repository that a text names, opened; None if it names a file.

    Raises:
        RecipeError: If it names none of these, or a file of a release of Herdbook.
    """
    from herdbook.release.rebuilding import release_with
    from herdbook.release.subject import can_be_opened, open_subject
    from herdbook.release.unopened import is_archive

    if Path(source).is_file():
        if of := release_with(Path(source)):
            raise RecipeError(
                f"--from: belongs to a release of Herdbook; name its folder: herdbook new {folder} --from {of}",
                source,
            )
        if is_archive(source):
            raise RecipeError(
                "--from: is an archive; unpack it, and name the folder that it contains", source
            )
        return None
    if not can_be_opened(source):
        raise RecipeError(
            "--from: is neither a file, a folder, nor owner/name or owner/name@revision", source
        )
    return open_subject(source)


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


def _imported(source: str, subject: Subject | None, folder: Path, mapped: tuple[str, ...]) -> Imported:
    """Return the recipe that a configuration becomes in a repository, of a file or of somebody's merge, which is opened.

    Raises:
        RecipeError: If there is none, or one that cannot be built.
    """
    from herdbook import recipe
    from herdbook.audit.configuration import FILES, text_of
    from herdbook.importing import import_recipe, read_mapping
    from herdbook.importing.convert import convert
    from herdbook.release.subject import FolderSubject

    mapping, recipes = read_mapping(mapped), folder / EXAMPLE.parent
    if subject is None:
        return import_recipe(Path(source), relative_to=recipes, mapping=mapping, folder=folder.resolve().name)
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
            f"  cd {shlex.quote(str(folder))}",
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
