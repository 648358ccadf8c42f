"""What each field of a release is derived from, and at which level it is proven; what no level proves is asserted.

Nothing that a release says of itself may loosen a check. What can follow from the recipe, from upstream's bytes or from
arithmetic is derived by the verifier and compared. Everything else is in this table without a level, and is listed by name at
the end of each level, as is what only later levels prove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.errors import HerdbookError
from herdbook.layout import LOCK, SIGNATURE
from herdbook.recipe import Adapter, Hub, Laser, Merge, Moe
from herdbook.verify.gguf.table import CONFIG, CONVERTER, RECIPE, ROWS, TENSORS, TOKENIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from herdbook.recipe import Recipe
    from herdbook.release.finding import Options
    from herdbook.release.reader import Release

ASSERTED = "asserted"
AGE = "that no newer release exists"


def _always(recipe: Recipe) -> bool:
    del recipe
    return True


def _has(*kinds: type) -> Callable[[Recipe], bool]:
    return lambda recipe: any(isinstance(model, kinds) for model in recipe.models.values())


def _quantizes(recipe: Recipe) -> bool:
    return bool(recipe.quantize)


def _spreads(recipe: Recipe) -> bool:
    lasered = (model for model in recipe.models.values() if isinstance(model, Laser))
    return any(rule.spreads is not None for model in lasered for rule in model.ranks)


def _texts(recipe: Recipe) -> bool:
    return bool(recipe.evaluate or recipe.calibration)


@dataclass(frozen=True)
class Fact:
    """Something that a release says.

    Args:
        name: What it is, for people.
        file: The file that says it.
        fields: The fields of that file; empty for the whole file.
        origin: What it is derived from, or who says so.
        level: The level at which it is proven; ``ASSERTED`` if none does.
        concerns: Whether releases of a recipe say it at all.
    """

    name: str
    file: str
    fields: tuple[str, ...]
    origin: str
    level: str
    concerns: Callable[[Recipe], bool] = _always


GGUF = "*.gguf"
RECORD = "provenance/records/*.json"
FACTS = (
    Fact("files", "SHA256SUMS", (), "the bytes of the files", "files"),
    Fact(
        "which sources are pinned",
        LOCK,
        ("version", "sources.asked", "sources.uri", "adapters.asked"),
        "the recipe",
        "claims",
    ),
    Fact(
        "commits and what the lock says of the sources",
        LOCK,
        (*tuple(f"sources.{field}" for field in (*("revision", "weights", "files", "members", "tensors", "config"), *("tokens", "generation", "license", "base_models", "chat_template"))), "token_differences"),
        "the sources, on the Hub",
        "upstream",
    ),
    Fact("who may download the sources", LOCK, ("sources.gated",), "the Hub, when it was locked", ASSERTED),
    Fact(
        "what the lock says of the adapters",
        LOCK,
        ("adapters.revision", "adapters.files", "adapters.config", "adapters.tensors", "adapters.tokens", "adapters.padding", "adapters.chat_template"),
        "the adapters, whose weights are compared as far as they are read",
        ASSERTED,
        _has(Adapter),
    ),
    Fact(
        "texts that were measured or calibrated on, and snapshots of leaderboards",
        LOCK,
        ("tasks", "calibration", "leaderboards"),
        "the author's folder",
        ASSERTED,
        lambda recipe: _texts(recipe) or bool(recipe.leaderboards),
    ),
    Fact("configuration, index, tokenizer", "config.json, ...", (), "recipe and lock", "claims"),
    Fact(
        "steps",
        RECORD,
        ("key", "code", "operation", "parameters", "tensors.action", "tensors.dtype", "tensors.shape", "tensors.from", "tensors.gate"),
        "the plan of recipe and lock",
        "claims",
    ),
    Fact("copied tensors", RECORD, ("tensors.sha256",), "the sources' bytes", "equality"),
    Fact(
        "computed tensors",
        RECORD,
        ("tensors.sha256",),
        "the steps, run again (a sample)",
        "recomputed",
        lambda recipe: not all(isinstance(model, Hub) for model in recipe.models.values()),
    ),
    Fact("routers", "*.safetensors", (), "prompts and base", "recomputed", _has(Moe)),
    Fact(
        "ranks, energies and spectra",
        RECORD,
        ("tensors.rule", "tensors.rank", "tensors.of", "tensors.energy", "tensors.change", "tensors.tolerance",
         "tensors.threshold", "tensors.clusters", "tensors.spectrum", "tensors.assumption_holds"),
        "the steps, run again (a sample)",
        "recomputed",
        _has(Laser),
    ),
    Fact(
        "what the records say of folded and merged tensors",
        RECORD,
        (),
        "the steps, run again (a sample)",
        "recomputed",
        _has(Adapter, Merge),
    ),
    Fact("digests of shards that are not released", RECORD, ("file",), "the steps, run again", "rebuild"),
    Fact("devices, and digests of spectra", RECORD, ("tensors.device", "tensors.spectrum.sha256"), "the builder", ASSERTED, _has(Laser)),
    Fact("the card", "README.md, figures", (), "records, results and snapshots", "recomputed"),
    Fact("lineage, bills of materials, claims of the build", "provenance", (), "recipe, lock and records", "claims"),
    *(
        Fact(name, GGUF, tuple(row.key for row in ROWS if row.origin == origin), origin, level, _quantizes)
        for name, origin, level in (
            ("settings in the headers of GGUF files", CONFIG, "claims"),
            ("tokens, special tokens and chat templates in the headers of GGUF files", TOKENIZER, "claims"),
            ("names, licenses and methods in the headers of GGUF files", RECIPE, "claims"),
            ("sizes in the headers of GGUF files", TENSORS, "claims"),
            ("how GGUF files split text, unless their tokenizer is of SentencePiece's kind", CONVERTER, "rebuild"),
        )
    ),
    Fact("names and shapes of the tensors in GGUF files", GGUF, (), "the released tensors", "claims", _quantizes),
    Fact("types, order and bytes of the tensors in GGUF files", GGUF, (), "the released weights, and the recipe's methods", "recomputed", _quantizes),
    Fact("the order of the entries in GGUF files, and the bytes between tensors", GGUF, (), CONVERTER, "rebuild", _quantizes),
    Fact(
        "budgets of rank that were spread over matrices, unless by a text",
        "provenance/searches/*.json",
        ("budgets", "chosen"),
        "the recipe, and the spectra, made again (a sample)",
        "recomputed",
        _spreads,
    ),
    Fact(
        "searches and measurements",
        "provenance/searches, evaluations, routing",
        (),
        "the author's texts (`rebuild --inputs`)",
        ASSERTED,
        _texts,
    ),
    Fact(AGE, "*", (), "a reference from elsewhere: `--expect`, `--not-before`", ASSERTED),
)  # fmt: skip


def unproven(release: Release, level: str, levels: Sequence[str], options: Options) -> tuple[str, ...]:
    """Return what a release says that is not proven after a level, each with the level that proves it.

    Args:
        release: The release.
        level: The level.
        levels: The names of all levels, in order.
        options: The options of the verification.
    """
    try:
        recipe = release.recipe
    except HerdbookError:  # a level has said so
        return ()
    done = levels[: levels.index(level) + 1]
    open_ = [fact for fact in FACTS if fact.level not in done and fact.concerns(recipe)]
    if options.expect or options.not_before:
        open_ = [fact for fact in open_ if fact.name != AGE]
    names = [
        f"{fact.name} ({fact.level if fact.level == ASSERTED else f'see level {fact.level}'})"
        for fact in open_
    ]
    if not (options.key or options.identity):
        signed = SIGNATURE in release.subject.files
        names.append(
            "who signed it (pass --key or --identity)" if signed else "its author (nothing is signed)"
        )
    return tuple(names)


def table() -> str:
    """Return the table of the documentation."""
    lines = ["| file | field | derived from | level, or asserted |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{fact.file}` | {', '.join(f'`{field}`' for field in fact.fields) or fact.name} | {fact.origin} | {fact.level} |"
        for fact in FACTS
    ]
    return "\n".join(lines)
