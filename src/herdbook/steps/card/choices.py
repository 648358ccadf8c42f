"""The files that a visitor can choose from: their sizes, what each loses by this build's measurements, which one fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from herdbook.architectures.modules import stated
from herdbook.steps.card.counts import CONTEXT_TOKENS, context_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from herdbook.plan import Plan
    from herdbook.steps.card.counts import Counts
    from herdbook.steps.card.files import FileFacts
    from herdbook.steps.card.results import Measurement

FULL_WIDTH = "transformers, vLLM, further merging, other quantizations"
TOLERATED = 0.02  # the share of a score that the recommended file may lose in any task
# Usual memories, of one device or of several together.
MEMORIES_GB = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
USABLE = 0.9  # of a memory; the rest is for the program
CONTEXT_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
)


@dataclass(frozen=True)
class Choice:
    """A row of the table of files: the full-width weights, or a quantized file.

    Args:
        name: The file to load.
        method: The quantization method; None for the full-width weights.
        bits: Bits per weight, measured: the size of the file's tensors divided by the model's parameters.
        size_bytes: Size on the disk.
        memory_bytes: Memory for the weights and for a context of ``listed_tokens``.
        use: When to use it.
        loss: The share of the full-width weights' score that it loses in the task in which it loses most; negative if it
            gains in all. None for the full width, and if either was not measured.
        recommended: Whether it is the smallest file that loses no more than ``TOLERATED`` in any task.
        in_short: When to use it, in a word or two, beside the others.
    """

    name: str
    method: str | None
    bits: float
    size_bytes: int
    memory_bytes: int
    use: str
    loss: Decimal | None = None
    recommended: bool = False
    in_short: str = ""


@dataclass(frozen=True)
class Fit:
    """The smallest usual memory that has room for a file, of which no larger one fits there, and the tokens of context beside it."""

    memory_gb: int
    choice: Choice
    tokens: int


def choices(
    plan: Plan,
    counts: Counts,
    weights: Sequence[FileFacts],
    quantized: Mapping[str, tuple[FileFacts, float]],
    measurements: Iterable[Measurement],
) -> tuple[Choice, ...]:
    """Return the rows of the table of files.

    Args:
        plan: The plan.
        counts: The released model's parameters.
        weights: The files of full width.
        quantized: Each quantized file with its bits per weight, by name.
        measurements: All measurements.
    """
    context = context_bytes(plan.released.config, listed_tokens(plan.released.config))
    full = sum(file.size_bytes for file in weights)
    name = weights[0].name if len(weights) == 1 else f"model-*-of-{len(weights):05d}.safetensors"
    rows = [Choice(name, None, 8 * plan.released.size_bytes / counts.total, full, full + context, FULL_WIDTH)]
    own = {m.method: m for m in measurements if m.node == plan.released.name and not m.runtime}
    for item in plan.quantized:
        file, bits = quantized[item.file]
        rows.append(
            Choice(
                item.pattern,
                item.method,
                bits,
                file.size_bytes,
                file.size_bytes + context,
                item.use,
                _loss(own.get(None), own.get(item.method)),
            )
        )
    near = [row for row in rows if row.loss is not None and row.loss <= TOLERATED]
    best = min(near, key=lambda row: row.size_bytes, default=None)
    return tuple(replace(row, recommended=row is best, in_short=_in_short(row, best, rows)) for row in rows)


def to_run(rows: Sequence[Choice]) -> Choice:
    """Return the file that the commands of a card name.

    It is the recommended one. If none is, it is the largest quantized file that the smallest usual memory has room for; if none
    fits there, the smallest; if there are no quantized files, the full width.
    """
    quantized = [row for row in rows if row.method]
    small = [row for row in quantized if _is_small(row)]
    return next(
        (row for row in rows if row.recommended),
        max(small, key=lambda row: row.size_bytes)
        if small
        else min(quantized, key=lambda row: row.size_bytes, default=rows[0]),
    )


def _is_small(row: Choice) -> bool:
    """Return whether the smallest usual memory has room for a file, so that none has to be smaller."""
    return row.memory_bytes <= MEMORIES_GB[0] * 10**9 * USABLE


def _in_short(row: Choice, best: Choice | None, rows: Sequence[Choice]) -> str:
    if row.method is None:
        return "vLLM, merging"
    if row is best:
        return "try this first"
    memory = not all(map(_is_small, rows))
    if best:
        larger = row.size_bytes > best.size_bytes
        return ("more memory" if larger else "less memory") if memory else "larger" if larger else "smaller"
    sizes = [one.size_bytes for one in rows if one.method]
    if len(sizes) == 1 or not memory:
        return "llama.cpp"
    return {max(sizes): "most memory", min(sizes): "least memory"}.get(row.size_bytes, "in between")


def _loss(full: Measurement | None, file: Measurement | None) -> Decimal | None:
    """Return the share of a score that is lost in the task in which most is lost; None if a share does not exist."""
    if not full or not file:
        return None
    shares = []
    for task, result in full.tasks.items():
        for score in result.main:
            if not score.value:
                return None
            change = (file.tasks[task].scores[score.metric].value - score.value) / abs(score.value)
            shares.append(-change if score.higher_is_better else change)
    return max(shares, default=None)


def context_length(config: Mapping[str, object]) -> int | None:
    """Return how many tokens a model was made for; None if its configuration does not state it."""
    lengths = (length for name in CONTEXT_LENGTHS for length in stated(config, name))
    return next((length for length in lengths if type(length) is int), None)


def listed_tokens(config: Mapping[str, object]) -> int:
    """Return the length of the context in the memory of the table of files: no model is given more than it was made for."""
    return min(context_length(config) or CONTEXT_TOKENS, CONTEXT_TOKENS)


def fits(rows: Sequence[Choice], config: Mapping[str, object]) -> tuple[Fit, ...]:
    """Return for usual memories which file is the largest that fits, with at least ``listed_tokens`` of context.

    A memory that has room for no larger file than the one before it is left out. Nothing is returned where memory leaves no choice,
    as for models that the smallest one has room for at full width, and for models whose context takes an unknown amount of memory.
    """
    limit, token = context_length(config), context_bytes(config, 1)
    if not limit or not token:
        return ()
    found: list[Fit] = []
    for memory in MEMORIES_GB:
        room = int(memory * 10**9 * USABLE)
        fitting = [row for row in rows if row.size_bytes + listed_tokens(config) * token <= room]
        choice = max(fitting, key=lambda row: row.size_bytes, default=None)
        if choice and (not found or found[-1].choice is not choice):
            found.append(Fit(memory, choice, min(limit, (room - choice.size_bytes) // token)))
    return tuple(found) if len(found) > 1 else ()
