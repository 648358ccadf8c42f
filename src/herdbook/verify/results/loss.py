"""What the losses of files must contain, and those of the model that they are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.layout import LOSSES
from herdbook.plan.compress import widths
from herdbook.plan.loss import LOSS_CODE
from herdbook.quantization.schemes import SCHEMES
from herdbook.recipe import Compress
from herdbook.release.reader import damaged
from herdbook.verify.gguf.recorded import file_of, recorded_types
from herdbook.verify.results.expected import Expected
from herdbook.verify.results.gguf import bits_and_types

if TYPE_CHECKING:
    from herdbook.plan import FileLoss, Node, Plan, Reference
    from herdbook.release.reader import Release

SUMMARY = [
    "kl_divergence",
    "perplexity",
    "perplexity_ratio",
    "same_top",
    "tokens",
]  # the fields of a measured loss


def reference(plan: Plan, release: Release, item: Reference) -> Expected:
    """Return what the result about the model with which files are compared must contain."""
    name = f"{LOSSES}/{item.id}.json"
    found = release.subject.json(name)
    with damaged(name):
        control = [sorted(found["control"])] if "control" in found else []
        tokens = [found["control"]["tokens"]] if control else []
    texts = {
        text: {"windows": windows, "tokens": windows * tokens} for text, windows, tokens in _sizes(plan, item)
    }
    predicted = sum(windows * (tokens - 1) for _, windows, tokens in _sizes(plan, item))
    return Expected(
        name,
        LOSS_CODE,
        {**item.about, "texts": texts},
        frozenset({"control"}),
        [
            ([SUMMARY] if item.has_control else [], control),
            ([predicted] if item.has_control else [], tokens),
        ],
    )


def loss(plan: Plan, release: Release, item: FileLoss) -> Expected:
    """Return what the losses of a file must contain."""
    name = f"{LOSSES}/{item.id}.json"
    found = release.subject.json(name)
    stated, free = dict(item.about), {"total", "texts"}
    if item.quantized:
        stated["file"] = file_of(release, item.quantized)
        stated |= bits_and_types(recorded_types(release, item.quantized))
    elif item.encoded and isinstance(item.encoded.recipe, Compress):
        stated["file"] = _weights_of(release, item.encoded)
        stated |= widths(item.encoded, SCHEMES[item.encoded.recipe.scheme])
    elif item.locked:
        pinned = item.locked.file
        stated["file"] = {"sha256": pinned.sha256, "size_bytes": pinned.size_bytes}
        free |= {"bits_per_weight", "types"}
    sizes = _sizes(plan, item.reference)
    counts = {text: windows * (tokens - 1) for text, windows, tokens in sizes}
    with damaged(name):
        texts = {text: entry["tokens"] for text, entry in found["texts"].items()}
        total = found["total"]["tokens"]
        fields = [sorted(found["total"]), *(sorted(entry) for entry in found["texts"].values())]
    return Expected(
        name,
        LOSS_CODE,
        stated,
        frozenset(free),
        [
            (counts, texts),
            (sum(counts.values()), total),
            ([SUMMARY] * (1 + len(counts)), fields),
        ],
    )


def _weights_of(release: Release, node: Node) -> dict[str, Any]:
    """Return the size of a released model's files, and their digests."""
    sizes = [release.subject.entry(name).size_bytes for name in node.shard_names if name in release.sums]
    return {
        "size_bytes": sum(sizes),
        "weights": {name: release.sums.get(name) for name in node.shard_names},
    }


def _sizes(plan: Plan, item: Reference) -> list[tuple[str, int, int]]:
    """Return the texts of losses: the name of each, how many windows are read, and the tokens of a window."""
    texts = [(name, plan.recipe.calibration[name]) for name in item.texts]
    return [(name, text.windows, text.tokens) for name, text in texts]
