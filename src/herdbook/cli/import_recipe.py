"""``herdbook import``: a recipe from a mergekit configuration."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from herdbook.cli import options
from herdbook.errors import RecipeError
from herdbook.visible import say


@click.command(
    epilog=options.examples(
        "herdbook import mergekit_config.yml -o recipes/mine.yaml",
        "herdbook import README.md --name Mine-4x7B --license apache-2.0",
        "herdbook import README.md --map 'D:/models/one=owner/one' --check",
    )
)
@click.argument("file", type=options.PATH)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="FILE",
    help="Where to write the recipe (default: standard output).",
)
@click.option("--name", help="Name of the release.")
@click.option("--license", "license_", help="Its license, by the Hub's identifier, such as apache-2.0.")
@click.option(
    "--map",
    "mapped",
    multiple=True,
    metavar="NAME=MODEL",
    help="What a name of a model stands for: owner/name on the Hub, or a folder. Repeatable; @FILE names a file with one "
    "NAME=MODEL in each line.",
)
@click.option("--check", is_flag=True, help="Only print what is assumed or wrong; write nothing.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(
    file: Path,
    output: Path | None,
    name: str | None,
    license_: str | None,
    mapped: tuple[str, ...],
    *,
    check: bool,
    force: bool,
) -> None:
    """Make a recipe from a mergekit configuration.

    FILE is a mergekit_config.yml or mergekit_moe_config.yml, or a model card
    (README.md) that contains one or several that build on each other. Facts that
    the configuration lacks are assumed; each assumption is printed, and stands in
    the recipe as a comment. What is wrong is printed with its line and key, nothing
    is written, and the exit status is 2. Keys are looked at once the method is known.
    """
    from herdbook.files import write_output
    from herdbook.importing import import_recipe, read_mapping
    from herdbook.release.rebuilding import release_with
    from herdbook.release.unopened import is_archive

    if release := release_with(file):
        raise RecipeError(
            f"is of a release of Herdbook, which needs no import: herdbook new FOLDER --from {release}",
            str(file),
        )
    if not file.exists() and (repository := _repository(file)):
        raise RecipeError(
            f"there is no such file. Of a model on the Hub: herdbook new FOLDER --from {repository}",
            str(file),
        )
    if output and output.is_dir():
        raise RecipeError("is a folder; name the file of the recipe", str(output))
    if is_archive(file.name):
        raise RecipeError("is an archive; unpack it, and name the file with the configuration", str(file))
    if file.is_dir():
        raise RecipeError("is a folder; name the file with the configuration", str(file))
    if output and output.is_file() and not (force or check):
        raise RecipeError("the file exists; pass --force to replace it", str(output))
    beside = output.parent if output else Path()
    imported = import_recipe(
        file,
        name=name,
        license_=license_,
        relative_to=beside,
        mapping=read_mapping(mapped),
        output=output,
    )
    for line in imported.assumed:
        say(f"assumed: {line}", file=sys.stderr)
    if check:
        say(f"{file}: can be imported: {', '.join(imported.content['models'])}")
    elif output is None:
        say(*imported.text.removesuffix("\n").split("\n"))
    else:
        write_output(output, imported.text)
        say(output)
        say(f"next: herdbook lock {output}", file=sys.stderr)


def _repository(file: Path) -> str | None:
    """Return the repository on the Hub that a path which leads nowhere may be meant for; None if it is that of a file."""
    found = re.fullmatch(r"(?:https:/huggingface\.co/)?([\w-][\w.-]*/[\w-][\w.-]*)", str(file))
    return found[1] if found and file.suffix not in {".yml", ".yaml", ".md", ".txt", ".json"} else None
