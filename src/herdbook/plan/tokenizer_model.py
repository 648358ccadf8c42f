"""Tokenizers that exist only as SentencePiece's ``tokenizer.model``, and are read as other tokens than SentencePiece's.

transformers 5 makes a tokenizer of that file by the rules of a Llama for Llamas alone; of other types of models it reads `the`
as `t` and `he`. With a ``tokenizer.json``, nothing is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.sources.select import TOKENIZER_CONFIG
from herdbook.sources.vocabulary import SENTENCEPIECE, TOKENIZER, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.plan.model import Node
    from herdbook.recipe import Recipe

FORMATS = {TOKENIZER, SENTENCEPIECE, WORDS}
COMMAND = "from transformers import AutoTokenizer as T; T.from_pretrained('.').backend_tokenizer.save('tokenizer.json')"


def misread(recipe: Recipe, nodes: Mapping[str, Node]) -> list[str]:
    """Return a line for each source whose tokenizer the build would read, or release, as other tokens."""
    problems: dict[str, str] = {}
    for reader in readers(recipe, nodes):
        kind = reader.config.get("model_type")
        if set(reader.files) & FORMATS != {SENTENCEPIECE}:
            continue
        if kind == "llama" and TOKENIZER_CONFIG in reader.files:  # it names the class
            continue
        origin = reader
        while origin.files_from != origin.name:
            origin = nodes[origin.files_from]
        problems.setdefault(
            origin.name,
            f"models.{origin.name}: has a tokenizer.model without tokenizer.json, which transformers 5 reads as other tokens than "
            f"SentencePiece does (in {reader.name!r}, of type {kind}). {advice(is_fast=False)}",
        )
    return list(problems.values())


def advice(is_fast: bool) -> str:
    """Return what to do about a tokenizer that is read as other tokens; ``is_fast`` if it has a ``tokenizer.json``."""
    if is_fast:
        return "Check that `model_type` in config.json and `tokenizer_class` in tokenizer_config.json fit its tokenizer.json"
    return (
        "Name a folder that also has the tokenizer.json of the model that it was tuned from, or one that transformers 4 writes "
        f'there: python -c "{COMMAND}"'
    )


def readers(recipe: Recipe, nodes: Mapping[str, Node]) -> Iterator[Node]:
    """Yield the models whose folder is released or read with a text: measured, searched, or the source of hidden states."""
    names = {recipe.release.model, *(recipe.evaluate.models if recipe.evaluate else ())}
    names |= {node.search.parent for node in nodes.values() if node.search}
    keys = {key for node in nodes.values() for part in node.parts for key in part.operation.folders}
    yield from (node for name, node in nodes.items() if name in names or node.key in keys)
