"""Entry point of ``herdbook``: parses the command line, runs one command, and turns errors into one message."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook import __version__
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.cli import attest, cache, explain, export, lock, machine, new, publish, verify
from herdbook.errors import HerdbookError, RecipeError
from herdbook.files import dump_json
from herdbook.plan import gpu
from herdbook.settings import RECIPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from herdbook.plan import Plan


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="herdbook",
        description="Build a merged language model's release reproducibly, and prove what it is made of.",
    )
    top.add_argument("--version", action="version", version=f"herdbook {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, run: Callable[[argparse.Namespace], int | None], *, recipe: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        if recipe:
            command.add_argument(
                "--recipe",
                type=Path,
                default=Path(RECIPE.value),
                help=f"default: ${RECIPE.variable}, or {RECIPE.default}",
            )
            command.add_argument("--results", type=Path, default=Path("results"), help="default: %(default)s")
        return command

    importing = add(
        "import",
        "make a recipe of a mergekit configuration, and say what had to be assumed",
        _import,
        recipe=False,
    )
    importing.add_argument(
        "file", type=Path, help="mergekit_moe_config.yml, or a model card (README.md) that holds it"
    )
    importing.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="where the recipe is written (default: standard output)",
    )
    importing.add_argument("--name", help="name of the release")
    importing.add_argument("--license", help="its licence, by the Hub's identifier, such as apache-2.0")
    importing.add_argument("--force", action="store_true", help="replace the output if it exists")
    lock.register(add)
    planning = add(
        "plan", "show what a build makes, fetches, writes and needs; refuse what cannot be built", _plan
    )
    planning.add_argument(
        "--elsewhere",
        action="store_true",
        help="it is built on another machine: any disk here is large enough",
    )
    machine.register_gpu_memory(planning)
    for step, text in (
        ("fetch", "make a shard of a source: fetched, checked against its pin"),
        ("laser", "make a shard of a lasered model"),
        ("adapter", "make a shard of a model with an adapter folded in"),
        ("merge", "make a shard of a dense merge"),
        ("moe", "make a shard of a Mixture of Experts"),
    ):
        made = add(step, text, _step)
        made.add_argument("key", help="the part's key, as `herdbook plan` shows it")
        if step == "laser":
            machine.register(made)
    searching = add("search", "choose a lasered model's matrices and ranks, by ranking and by trying", _step)
    searching.add_argument("key", help="the search's key, as `herdbook plan` shows it")
    machine.register(searching)
    add("files", "put a source's configuration and tokenizer into its folder", _step).add_argument(
        "key", help="the model's key"
    )
    add("assemble", "make a model's folder, as transformers loads it", _step).add_argument(
        "key", help="the model's key"
    )
    measuring = add("evaluate", "measure a model or a quantized file", _step)
    measuring.add_argument("key", help="the measurement's key")
    machine.register(measuring)
    machine.register(add("routing", "report what the released mixture's routers choose", _step))
    add("convert", "make the full-width GGUF of the released model", _step)
    quantizing = add("quantize", "make a quantized file and derive it again from the weights", _step)
    quantizing.add_argument("key", help="the quantized file's key")
    quantizing.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    add("card", "render the model card and its figures", _step)
    add("release", "put the release together, with provenance and checksums", _step)
    looking = add(
        "routers",
        "look at the routers of any mixture: zero, equal or nearly parallel rows (exit status 1 if there are any)",
        _routers,
        recipe=False,
    )
    looking.add_argument("model", help="a folder, a safetensors file, or owner/name[@revision] on the Hub")
    looking.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON")
    seeing = add(
        "spectrum",
        "show the singular values of a checkpoint's matrices, and where rank rules would cut",
        _spectrum,
        recipe=False,
    )
    seeing.add_argument("model", help="a folder, a safetensors file, or owner/name[@revision] on the Hub")
    seeing.add_argument(
        "--matrices", nargs="+", default=[], metavar="PATTERN", help="such as 'mlp.*' (default: all)"
    )
    seeing.add_argument(
        "--layers", default="all", help="a number or a range such as 20-29 (default: %(default)s)"
    )
    seeing.add_argument(
        "--page", type=Path, metavar="FILE", help="write heat maps and every spectrum here, for a browser"
    )
    seeing.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here, for machines")
    machine.register(seeing)
    for module in (new, cache, explain, attest, publish, verify, export):
        module.register(add)
    add("schema", "print the JSON Schema of recipes, for editors", _schema, recipe=False)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status (see ``herdbook.errors``)."""
    options = parser().parse_args(arguments)
    sys.excepthook = _show_traceback
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
    except HerdbookError as error:
        if options.debug:
            raise
        print(f"herdbook {options.command}: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if options.debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"herdbook {options.command}: {place}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"herdbook {options.command}: interrupted; what is whole stays, run again to go on",
            file=sys.stderr,
        )
        return 130
    return int(status)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback. A server's words in it may quote the token that it was sent."""
    from herdbook.hub import without_tokens

    text = "".join(traceback.format_exception(kind, error, trace))
    print(without_tokens(text), end="", file=sys.stderr)


def _load(options: argparse.Namespace) -> Plan:
    return plans.load(options.recipe, options.results)


def _import(options: argparse.Namespace) -> None:
    from herdbook.files import write_text
    from herdbook.recipe.mergekit import import_recipe

    output: Path | None = options.output
    if output and output.exists() and not options.force:
        raise RecipeError("is there already; --force replaces it", str(output))
    beside = output.parent if output else Path()
    text, assumed = import_recipe(
        options.file, name=options.name, license_=options.license, relative_to=beside
    )
    for line in assumed:
        print(f"assumed: {line}", file=sys.stderr)
    if output is None:
        print(text, end="")
        return
    write_text(output, text)
    print(output)


def _plan(options: argparse.Namespace) -> None:
    from herdbook.cli.show import show

    plan = _load(options)
    show(plan)
    if not options.elsewhere:
        plans.check_disk(plan)
    gpu.check(plan, machine.gpu_bytes(options))


def _step(options: argparse.Namespace) -> None:
    from herdbook.cache.step import keep
    from herdbook.plan.jobs import all_jobs, find
    from herdbook.steps.registry import run

    plan = _load(options)
    job = find(all_jobs(plan), options.command, getattr(options, "key", ""))
    run(plan, job, machine.settings(options))
    keep(plan, job)


def _spectrum(options: argparse.Namespace) -> None:
    first, _, last = options.layers.partition("-")
    if options.layers != "all" and not (first.isdigit() and (last or first).isdigit()):
        raise RecipeError(f"--layers {options.layers}: a number or a range such as 20-29 is needed")
    from herdbook.files import write_json, write_text
    from herdbook.steps.laser import spectrum as spectra
    from herdbook.steps.machine import devices

    def wanted(layer: int) -> bool:
        return options.layers == "all" or int(first) <= layer <= int(last or first)

    found = spectra.matrices(options.model, options.matrices, wanted)
    seen = list(spectra.spectra(found, options.threads, devices(options.device)[0]))
    print(spectra.as_table(seen))
    if options.json:
        write_json(options.json, spectra.as_json(seen))
    if options.page:
        write_text(options.page, spectra.as_page(options.model, seen))


def _routers(options: argparse.Namespace) -> int:
    from herdbook.audit.router_rows import as_json, as_text, routers_of
    from herdbook.files import write_json
    from herdbook.steps.routing.rows import verdict

    found = routers_of(options.model)
    print(as_text(options.model, found))
    if options.json:
        write_json(options.json, as_json(options.model, found))
    return 1 if verdict(found) else 0


def _schema(options: argparse.Namespace) -> None:
    del options
    print(dump_json(recipes.json_schema()), end="")


if __name__ == "__main__":
    sys.exit(main())
