"""What routers choose, counted: over kinds of text, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.inference.mixture import RouterChoices

DIGITS = 6  # what a report writes of a share: float32 sums hold no more


def count(seen: RouterChoices, groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what one router chose, for each group of sequences.

    Args:
        seen: What the router did.
        groups: The group of each sequence.

    Returns:
        For each group, over all its tokens: ``share``, which part of the choices fell on each expert (they sum to 1);
        ``first``, the part of the tokens whose best expert it is; ``margin``, the mean gap of the odds (softmax over all
        experts) between the last expert that is chosen and the first that is not (None if all are chosen);
        ``effective``, the number of experts that would be as evenly used: the exponential of the shares' entropy.
    """
    found = {}
    for group in dict.fromkeys(groups):
        own = [place for place, name in enumerate(groups) if name == group]
        logits = torch.cat([seen.logits[place] for place in own])
        chosen = torch.cat([seen.chosen[place] for place in own])
        experts, wanted = logits.shape[1], chosen.shape[1]
        share = torch.bincount(chosen.reshape(-1), minlength=experts).double() / chosen.numel()
        first = torch.bincount(chosen[:, 0], minlength=experts).double() / len(chosen)
        odds = logits.double().softmax(dim=-1).sort(dim=-1, descending=True).values
        margin = float((odds[:, wanted - 1] - odds[:, wanted]).mean()) if wanted < experts else None
        found[group] = {
            "share": [round(float(one), DIGITS) for one in share],
            "first": [round(float(one), DIGITS) for one in first],
            "margin": None if margin is None else round(margin, DIGITS),
            "effective": round(effective(share.tolist()), DIGITS),
        }
    return found


def effective(shares: Sequence[float]) -> float:
    """Return the exponential of the shares' entropy: their number if they are equal, 1 if one has all."""
    return math.exp(-math.fsum(share * math.log(share) for share in shares if share > 0))


def mean(shares: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of rows of shares."""
    return [round(math.fsum(column) / len(shares), DIGITS) for column in zip(*shares, strict=True)]
