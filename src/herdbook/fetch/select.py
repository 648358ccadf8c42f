"""Which files of a source are wanted, and which are refused. Upstream is untrusted."""

from __future__ import annotations

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NoReturn

from herdbook.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
# What is taken along besides the weights: data that transformers and llama.cpp read, never code.
SIDE_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def check_name(name: str, what: str) -> str:
    """Return a file name of a source if it stays inside the source's folder.

    Raises:
        SourceError: If it does not, or is no plain relative name.
    """
    parts = PurePosixPath(name).parts
    if (
        not parts
        or PurePosixPath(name).is_absolute()
        or PureWindowsPath(name).drive
        or ".." in parts
        or "\\" in name
        or any(ord(letter) < 32 for letter in name)
    ):
        raise SourceError(f"{what}: the file name {name!r} leads out of its folder; refused")
    return name


def refuse_pickle(what: str) -> NoReturn:
    """Refuse a source whose weights are pickles.

    Raises:
        SourceError: Always; the message says how to convert.
    """
    raise SourceError(
        f"{what}: has no safetensors weights, only pickles, which can run code when they are opened; refused. "
        "Convert it first: in a sandbox, load it with AutoModelForCausalLM.from_pretrained and save it with "
        "save_pretrained(folder), then name that folder; or ask its author for a safetensors revision."
    )


def weight_files(names: Iterable[str], index: bytes | None, what: str) -> list[str]:
    """Return the safetensors files that make up a model, in the order of their first use.

    Args:
        names: All file names of the source.
        index: Content of ``model.safetensors.index.json``, if the source has one.
        what: How errors call the source.

    Raises:
        SourceError: If there are none, if the index is damaged, or if it names a file that is missing.
    """
    present = set(names)
    if index is not None:
        try:
            weight_map: dict[str, Any] = json.loads(index)["weight_map"]
            wanted = list(dict.fromkeys(weight_map.values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{what}: {INDEX} is damaged: {error!r}") from error
        for name in wanted:
            check_name(str(name), what)
        missing = [name for name in wanted if name not in present]
        if missing:
            raise SourceError(f"{what}: {INDEX} names {missing[0]}, which is not there")
        return sorted(wanted)
    if SINGLE in present:
        return [SINGLE]
    others = sorted(name for name in present if name.endswith(".safetensors") and "/" not in name)
    if len(others) == 1:
        return others
    if others:
        raise SourceError(f"{what}: has {len(others)} safetensors files but no {INDEX} that says which belong together")
    if any(name.endswith(PICKLE_SUFFIXES) for name in present):
        refuse_pickle(what)
    raise SourceError(f"{what}: has no safetensors weights")


def side_files(names: Iterable[str]) -> list[str]:
    """Return the files to take along besides the weights, sorted."""
    return sorted(set(names) & set(SIDE_FILES))
