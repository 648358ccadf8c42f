"""The entries of a GGUF's header for special tokens, chat templates and normalizers, from a model's tokenizer files.

Ids come from ``tokenizer_config.json``, by the added tokens of ``tokenizer.json``; what it does not state, ``config.json`` does.
Whether the beginning or end of a text gets a token follows from the template of ``tokenizer.json``, unless
``tokenizer_config.json`` states it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from herdbook.architectures.gguf_forms import form_of
from herdbook.sources.select import CHAT_TEMPLATE
from herdbook.sources.vocabulary import SETTINGS, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.verify.gguf.tokens import TokenizerFiles
    from herdbook.weights.gguf_header import Value

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# The keys of their ids; the misspelling is the format's. `cls` has none.
IDS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
}
ADDS = {kind: f"add_{kind}_token" for kind in ("bos", "eos", "sep")}
# Vocabularies that the converter recognizes by their size: those of Code Llama and of the small Granites.
CODE_LLAMA, CODE_LLAMA_EOT = 32016, 32010
WITHOUT_BOS = 49152


def special_entries(files: TokenizerFiles, config: Mapping[str, Any], limit: int | None) -> dict[str, Value]:
    """Return the entries, by the end of their keys (``tokenizer.ggml.``...).

    Args:
        files: The model's tokenizer files.
        config: Its ``config.json``.
        limit: The number of tokens, if ids beyond them are left out.
    """
    settings = files.json(SETTINGS)
    tokenizer = files.json(TOKENIZER)
    adds: dict[str, bool] = {}
    kinds = list(KINDS)
    if tokenizer:
        _read_template(tokenizer, settings, adds, kinds)
    for kind in kinds:
        if settings and isinstance(settings.get(f"add_{kind}_token"), bool):
            adds[kind] = settings[f"add_{kind}_token"]
    ids: dict[str, int] = {}
    for kind, number in (*_named_ids(files, settings, kinds), *_configured_ids(config, kinds)):
        if limit is None or number < limit:
            ids.setdefault(kind, number)
    form = form_of(config)
    of_llama = form is None or "fallback" in form.readers
    if of_llama and config.get("vocab_size") == CODE_LLAMA:
        ids.setdefault("eot", CODE_LLAMA_EOT)
    if of_llama and config.get("vocab_size") == WITHOUT_BOS:
        adds["bos"] = False
    entries: dict[str, Value] = {IDS[kind]: number for kind, number in ids.items() if kind in IDS}
    entries |= {ADDS[kind]: add for kind, add in adds.items() if kind in ADDS}
    if form and not form.space_prefix and files.is_sentencepiece:
        entries["add_space_prefix"] = False
    if of_llama and settings.get("add_prefix_space") is not None:
        entries["add_space_prefix"] = bool(settings["add_prefix_space"])
    for step in _steps(tokenizer.get("normalizer") or {}):
        entries |= _normalized(step)
    return entries


def templates(files: TokenizerFiles) -> dict[str, Value]:
    """Return the entries for chat templates, by their keys."""
    settings = files.json(SETTINGS)
    if not settings:
        return {}
    elsewhere: Any = None
    if CHAT_TEMPLATE in files.names:
        elsewhere = files.text(CHAT_TEMPLATE)
    elif "chat_template.json" in files.names:
        elsewhere = files.json("chat_template.json").get("chat_template")
    given = settings.get("chat_template", elsewhere)
    if isinstance(given, str):
        return {"tokenizer.chat_template": given}
    entries: dict[str, Value] = {}
    for one in given if isinstance(given, list) else []:
        name, template = re.sub("[^a-zA-Z0-9]", "_", one.get("name", "")), one.get("template")
        if not name or template is None:
            continue
        if name == "default":
            entries["tokenizer.chat_template"] = template
        else:
            entries[f"tokenizer.chat_template.{name}"] = template
    return entries


def _named_ids(
    files: TokenizerFiles, settings: Mapping[str, Any], kinds: list[str]
) -> Iterator[tuple[str, int]]:
    numbers: dict[str, int] = {}
    for token in files.added:
        numbers.setdefault(token["content"], token["id"])
    for kind in kinds:
        named = settings.get(f"{kind}_token")
        content = named.get("content") if isinstance(named, dict) else named
        if isinstance(content, str) and content in numbers:
            yield kind, numbers[content]


def _configured_ids(config: Mapping[str, Any], kinds: list[str]) -> Iterator[tuple[str, int]]:
    for kind in kinds:
        number = config.get(f"{kind}_token_id")
        if isinstance(number, int):
            yield kind, number


def _read_template(
    tokenizer: Mapping[str, Any], settings: dict[str, Any], adds: dict[str, bool], kinds: list[str]
) -> None:
    """Read which tokens the post-processor adds; what the settings do not name is named by it."""
    named = _Named(settings, kinds)
    processor = tokenizer.get("post_processor") or {}
    for step in processor.get("processors", [processor]):
        if step.get("type") == "RobertaProcessing":
            adds |= {"bos": True, "eos": True, "sep": True}
            named.fill("cls", step.get("cls", [named.bos])[0])
            named.fill("sep", step.get("sep", [named.eos])[0])
        elif step.get("type") == "TemplateProcessing":
            _read_single(step, named, adds)


class _Named:
    """The special tokens as far as they are named, in the settings, which are filled up."""

    def __init__(self, settings: dict[str, Any], kinds: list[str]) -> None:
        self.settings, self.kinds = settings, kinds
        self.bos, self.cls, self.eos, self.sep = (
            settings.get(f"{kind}_token") for kind in ("bos", "cls", "eos", "sep")
        )
        if not self.bos and self.cls:
            self.set("bos", self.cls)
        if not self.eos and self.sep:
            self.set("eos", self.sep)

    def set(self, kind: str, token: Any) -> None:
        """Name a token."""
        setattr(self, kind, token)
        self.settings[f"{kind}_token"] = token

    def fill(self, kind: str, token: Any) -> None:
        """Name a token unless it is named, or no settings exist."""
        if self.settings and not getattr(self, kind):
            self.set(kind, token)

    def replace_end(self, token: Any) -> None:
        """Make another token the end of a text; the one before becomes the end of a turn, or of a message."""
        spare = next((kind for kind in ("eot", "eom") if kind not in self.kinds), None)
        if spare:
            self.kinds.append(spare)
            self.settings[f"{spare}_token"] = self.eos
        self.set("eos", token)


def _read_single(step: Mapping[str, Any], named: _Named, adds: dict[str, bool]) -> None:
    single, pair = step.get("single", []), step.get("pair", [])
    first = last = None
    if len(single) > 1:
        if first := _token_of(single[0]):
            if not named.settings:
                named.bos = first
            elif first not in (named.bos, named.cls):
                named.fill("bos", first)
                named.fill("cls", first)
            adds["bos"] = first in (named.bos, named.cls)
        if last := _token_of(single[-1]):
            if not named.settings:
                named.eos = last
            elif last != named.eos:
                named.replace_end(last)
            adds["eos"] = last == named.eos
    inner = list(pair)
    if inner and first and _token_of(inner[0]) == first:
        del inner[0]
    if inner and last and _token_of(inner[-1]) == last:
        del inner[-1]
    ends = [part.get("Sequence", {}).get("id") for part in (inner[:1] + inner[-1:])]
    if ends == ["A", "B"] and (between := inner[1:-1]):
        separator = _token_of(between[0])
        adds_separator = separator is not None and separator in (named.sep, named.eos) and not last
        if len(between) == 2 and (second := _token_of(between[1])) is not None:
            adds_separator = adds_separator or second in (named.sep, named.eos)
        adds["sep"] = adds_separator
        if adds_separator and not named.sep and named.settings:
            named.settings["sep_token"] = named.eos


def _token_of(part: Mapping[str, Any]) -> str | None:
    token = part.get("SpecialToken", {}).get("id")
    return token or None


def _steps(normalizer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if normalizer.get("type") == "Sequence":
        for step in normalizer.get("normalizers", []):
            yield from _steps(step)
    else:
        yield normalizer


def _normalized(step: Mapping[str, Any]) -> dict[str, Value]:
    names = {"lowercase": "normalizer.lowercase", "strip_accents": "normalizer.strip_accents"}
    match step.get("type"):
        case "Lowercase":
            return {names["lowercase"]: True}
        case "StripAccents":
            return {names["strip_accents"]: True}
        case "BertNormalizer":
            return {names[key]: bool(step[key]) for key in names if step.get(key) is not None}
    return {}
