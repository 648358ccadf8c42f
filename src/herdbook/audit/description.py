"""A card for any checkpoint, as far as its files go: what they contain, and what they do not state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook import humanize, yamlio
from herdbook.audit.model import open_model
from herdbook.errors import VerificationError
from herdbook.escape import code, fenced, md, one_line
from herdbook.layout import CARD, CONFIG
from herdbook.sources.card import Card, front_matter, read_card
from herdbook.sources.license_files import license_files
from herdbook.sources.tokenizer_settings import DEFAULT, read_templates
from herdbook.steps.card.choices import context_length
from herdbook.steps.card.counts import Counts, count_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from herdbook.audit.model import Model
    from herdbook.release.subject import Subject

MERGE_CONFIGURATIONS = ("mergekit_config.yml", "mergekit_config.yaml", "mergekit_moe_config.yml")
EXPERTS_PER_TOKEN = "num_experts_per_tok"  # noqa: S105 - a key of a configuration, not a password


@dataclass(frozen=True)
class Described:
    """What the files of a checkpoint state.

    Args:
        model: Its tensors and configuration.
        card: What its own card declares.
        counts: Its parameters, counted from its tensors.
        templates: Whether it has a default chat template.
        recipe: Its merge's configuration, and the file that it is in; None if it has none.
    """

    model: Model
    card: Card
    counts: Counts
    templates: bool
    recipe: tuple[str, str] | None


def describe(subject: Subject) -> str:
    """Return a card, in Markdown, of what the files of a model state. No weights are read.

    Args:
        subject: The folder or repository.

    Raises:
        SourceError: If it has no weights in safetensors, or they or its card cannot be read.
        CheckpointError: If a header is damaged.
        VerificationError: If it contradicts itself.
    """
    model = open_model(subject)
    per_token = model.config.get(EXPERTS_PER_TOKEN, 0)
    if type(per_token) is not int or per_token < 0:
        raise VerificationError(f"{subject.name}: {CONFIG}: {EXPERTS_PER_TOKEN} is not a number")
    shapes = ((name, piece.shape) for name, piece in model.pieces.items())
    found = next((name for name in MERGE_CONFIGURATIONS if name in subject.files), None)
    described = Described(
        model,
        read_card(subject.files, subject.read, subject.name),
        count_parameters(shapes, per_token),
        DEFAULT in read_templates(subject.files, subject.read),
        (found, subject.read(found).decode("utf-8", errors="replace")) if found else None,
    )
    return "\n".join(_lines(subject, described)) + "\n"


def _lines(subject: Subject, described: Described) -> Iterator[str]:
    yield from (f"# {md(subject.name.rstrip('/').rpartition('/')[2])}", "", "| | |", "| --- | --- |")
    for label, value in _facts(subject, described):
        yield f"| {label} | {value} |"
    yield from ("", "## Files", "", "| file | size |", "| --- | ---: |")
    for name, entry in sorted(subject.files.items()):
        if name.endswith((".safetensors", ".gguf")):
            yield f"| {code(name)} | {humanize.size(entry.size_bytes)} |"
    if described.recipe:
        name, text = described.recipe
        yield from ("", "## How it was merged", "", f"Declared in {code(name)}:", "", fenced(text, "yaml"))
    missing = list(_missing(subject, described))
    if missing:
        yield from ("", "## What its files do not state", "", *(f"- {line}" for line in missing))


def _facts(subject: Subject, described: Described) -> Iterator[tuple[str, str]]:
    config, counts = described.model.config, described.counts
    active = ""
    if counts.experts and counts.experts_per_token:
        active = (
            f", {humanize.amount(counts.active)} active per token: {len(counts.experts)} experts, "
            f"{counts.experts_per_token} per token"
        )
    yield "architecture", code(str(config.get("model_type") or "not stated"))
    yield "parameters", f"{humanize.amount(counts.total)}{active}"
    yield "numbers", ", ".join(sorted({piece.dtype for piece in described.model.pieces.values()}))
    if length := context_length(config):
        yield "context", f"{humanize.integer(length)} tokens"
    yield "chat template", "yes" if described.templates else "none: it continues text"
    if described.card.license:
        yield "license, as declared", md(described.card.license)
    if described.card.base_models:
        yield "made from, as declared", ", ".join(code(name) for name in described.card.base_models)
    if texts := license_files(subject.files):
        yield "license texts", ", ".join(code(name) for name in texts)
    if tags := _tags(subject):
        yield "tags", ", ".join(code(tag) for tag in tags)


def _tags(subject: Subject) -> list[str]:
    if CARD not in subject.files:
        return []
    try:
        tags = front_matter(subject.read(CARD)).get("tags")
    except yamlio.YamlError:  # which read_card has reported
        return []
    return [one_line(tag) for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _missing(subject: Subject, described: Described) -> Iterator[str]:
    if CARD not in subject.files:
        yield f"no {CARD}"
    if not described.card.license:
        yield "its license, so nobody knows what may be done with it"
    if not described.card.base_models:
        yield "which models it was made from (`base_model`)"
    if not described.recipe:
        yield "how it was made: no merge configuration; `herdbook audit` finds those that a card quotes"
    yield "at which commits its sources were, and whether its bytes are theirs: `herdbook audit` compares them"
