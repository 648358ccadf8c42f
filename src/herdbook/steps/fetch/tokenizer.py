"""Whether transformers splits texts into the tokens that a source's tokenizer defines, from its small files alone."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook import apart
from herdbook.architectures.rows import rows_of
from herdbook.errors import RecipeError
from herdbook.files import link, write_json
from herdbook.key import digest
from herdbook.layout import CONFIG
from herdbook.plan.folder import files_origin
from herdbook.plan.tokenizer_model import FORMATS, advice, readers
from herdbook.sources.select import TOKENIZER_FILES
from herdbook.sources.vocabulary import TOKENIZER
from herdbook.steps.fetch.step import locate

if TYPE_CHECKING:
    from herdbook.lock import LockedFile
    from herdbook.plan import Node, Plan

PROGRAM = "herdbook.inference.agreement"
SHOWN = 6  # tokens


def check_tokenizers(plan: Plan) -> str | None:
    """Compare the tokens of each tokenizer that the build reads texts with, or releases; its files are deleted afterwards.

    Of a GGUF, transformers itself makes the tokenizer, which takes long; it reads what it wrote.

    Returns:
        A warning if transformers is not installed; else None.

    Raises:
        RecipeError: If transformers does not load a tokenizer, or splits texts into other tokens than the file defines.
        SourceError: If a file is unavailable.
    """
    chosen: dict[str, Node] = {}
    for reader in readers(plan.recipe, plan.nodes):
        if (
            FORMATS & set(reader.files)
            and plan.lock.sources[files_origin(plan, reader).name].weights != "gguf"
        ):
            chosen.setdefault(_chosen_by(plan, reader), reader)
    problems: dict[str, str] = {}
    for reader, found in zip(chosen.values(), _tokenized(plan, list(chosen.values())), strict=True):
        origin = files_origin(plan, reader)
        if missing := found.get("missing"):
            return (
                f"models: whether transformers reads texts as the tokenizers define is not known, since {missing} is not installed "
                "here: pip install 'herdbook[build]'"
            )
        if what := _problem(found, reader, origin):
            problems.setdefault(origin.name, f"models.{origin.name}: {what}")
    if problems:
        raise RecipeError(list(problems.values()))
    return None


def _chosen_by(plan: Plan, reader: Node) -> str:
    """Return a digest of what decides which tokenizer is loaded, and how; models of a recipe often have the same one."""
    files = [[file.name, file.sha256 or file.git_blob] for file in _files(plan, reader)]
    return digest([files, [reader.config.get(key) for key in ("model_type", "tokenizer_class")]])


def _files(plan: Plan, reader: Node) -> list[LockedFile]:
    """Return the files of the tokenizer; how a chat is made a text, which does not count, may be in files of its own."""
    files = plan.lock.sources[files_origin(plan, reader).name].files
    return [
        file for file in files if file.name in TOKENIZER_FILES and not file.name.startswith("chat_template")
    ]


def _tokenized(plan: Plan, models: list[Node]) -> list[dict[str, Any]]:
    if not models:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(number) for number in range(len(models))]
        for folder, reader in zip(folders, models, strict=True):
            folder.mkdir()
            for file in _files(plan, reader):
                link(locate(plan, files_origin(plan, reader), file).absolute(), folder / file.name)
            write_json(folder / CONFIG, reader.config)
        try:
            found: list[dict[str, Any]] = apart.ask(
                PROGRAM, json.dumps({"folders": list(map(str, folders))})
            )["found"]
        except apart.FailedError as error:
            return [{"error": f"its process {error}"}] * len(models)
        return found


def _problem(found: dict[str, Any], reader: Node, origin: Node) -> str:
    """Return what is wrong with a tokenizer; empty if nothing is."""
    whose = "" if reader.name == origin.name else f" in {reader.name!r},"
    kind = f"{whose} of model_type {reader.config.get('model_type')!r}"
    if error := found.get("error"):
        return f"transformers does not load its tokenizer or its config.json,{kind}: {error}"
    start = f"transformers loads its tokenizer as {found['kind']},{kind}, and"
    if "text" in found:
        read, own = (_shown(found[key]) for key in ("read", "own"))
        return (
            f"{start} cuts {found['text'][:40]!r} into {read}, not {own}. {advice(TOKENIZER in origin.files)}"
        )
    rows = rows_of(reader.form) or found["highest"] + 1
    if found["highest"] >= rows:
        return (
            f"{start} gives {found['last']!r} the id {found['highest']}, for which the embeddings, of {rows} rows, have none. Name the "
            "special tokens in tokenizer_config.json (pad_token, ...)"
        )
    return ""


def _shown(tokens: list[str]) -> str:
    return " ".join(map(repr, tokens[:SHOWN])) + (" ..." if len(tokens) > SHOWN else "") or "nothing"
