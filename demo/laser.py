"""Choose the miniature herd's LASER settings by loss on validation text.

Screens reductions on the base, then tries the best of them on all three models; prints a table of losses. The
validation texts are not those that the recipe's evaluation reads (test), so the release's figures are not chosen by.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from data import default_cache, fetch_base, held_out_texts
from herdbook.laser.reduce import reduce
from train import ADAPTERS, KINDS, SPECIALISTS, load_tokenizer, merged

if TYPE_CHECKING:
    from collections.abc import Iterator

MATRICES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LAYERS = ("0-9", "10-19", "20-29")
RULES = ("0.98", "0.9", "0.75", "0.5", "marchenko-pastur")


@dataclass(frozen=True)
class Setting:
    """A reduction: which matrices of which layers, by which rule."""

    matrix: str
    layers: str
    rank: Any

    def __str__(self) -> str:
        rule = self.rank if isinstance(self.rank, str) else f"fraction {self.rank['fraction']}"
        return f"{self.matrix}, layers {self.layers}, {rule}"


def texts(share: float) -> list[str]:
    """Return validation documents of all kinds, the first ``share`` of each."""
    found = []
    for kind in KINDS:
        documents = held_out_texts(kind, "validation")
        found += documents[: math.ceil(share * len(documents))]
    return found


def losses(model: Any, tokenizer: Any, documents: list[str]) -> torch.Tensor:
    """Return each document's mean loss per token in nats, float64, shape ``(documents,)``."""
    found = []
    for text in documents:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            found.append(model(input_ids=ids, labels=ids).loss.item())
    return torch.tensor(found, dtype=torch.float64)


def reduced(model: Any, setting: Setting) -> Iterator[tuple[Any, torch.Tensor]]:
    """Yield each weight that a setting reduces with its reduced value, in the model's float32."""
    first, last = (int(number) for number in setting.layers.split("-"))
    for layer in range(first, last + 1):
        weight = model.model.layers[layer].get_submodule(setting.matrix).weight
        found = reduce(weight.detach().to(torch.bfloat16), setting.rank)
        yield weight, found.matrix.float()


def difference(
    model: Any, tokenizer: Any, documents: list[str], setting: Setting, before: torch.Tensor
) -> tuple[float, float]:
    """Return what a setting changes in the mean loss, and the standard error of that over documents (paired)."""
    changed = list(reduced(model, setting))
    kept = [weight.detach().clone() for weight, _ in changed]
    with torch.no_grad():
        for weight, value in changed:
            weight.copy_(value)
        found = losses(model, tokenizer, documents) - before
        for (weight, _), value in zip(changed, kept, strict=True):
            weight.copy_(value)
    return found.mean().item(), found.std().item() / math.sqrt(len(found))


def main() -> None:
    """Read the command line, screen, and try the best."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    parser.add_argument(
        "--share", type=float, default=0.34, help="of the documents, to screen (default: %(default)s)"
    )
    parser.add_argument(
        "--rules",
        nargs="+",
        default=RULES,
        metavar="RULE",
        help="fractions, or marchenko-pastur (default: all)",
    )
    parser.add_argument("--finalists", type=int, default=6, help="default: %(default)s")
    arguments = parser.parse_args()
    base = fetch_base(arguments.cache)
    tokenizer = load_tokenizer(base)
    documents = texts(arguments.share)
    model = merged(base, None)
    before = losses(model, tokenizer, documents)
    print(f"base: {before.mean():.4f} nats a token, mean of {len(documents)} documents\n")
    print("| setting | change of loss, base | standard error |\n| --- | ---: | ---: |")
    ranks: list[Any] = [
        rule if rule == "marchenko-pastur" else {"fraction": float(rule)} for rule in arguments.rules
    ]
    found = []
    for parts in tqdm(list(itertools.product(MATRICES, LAYERS, ranks)), desc="screening"):
        setting = Setting(*parts)
        change = difference(model, tokenizer, documents, setting, before)
        found.append((change[0], setting))
        tqdm.write("| {} | {:+.4f} | {:.4f} |".format(setting, *change))
    ranked = sorted(found, key=lambda pair: pair[0])
    finalists = [setting for _, setting in ranked[: arguments.finalists]]
    documents = texts(1.0)
    models = {"base": None, **{kind: ADAPTERS / kind for kind in SPECIALISTS}}
    table: list[list[str]] = [[] for _ in finalists]
    for name, adapter in models.items():
        model = merged(base, adapter)
        before = losses(model, tokenizer, documents)
        for row, setting in zip(table, tqdm(finalists, desc=name), strict=True):
            row.append("{:+.4f} ± {:.4f}".format(*difference(model, tokenizer, documents, setting, before)))
    print(f"\n| setting | {' | '.join(models)} |\n| --- |{' ---: |' * len(models)}")
    for setting, cells in zip(finalists, table, strict=True):
        print(f"| {setting} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
