"""Counting the choices of routers, by kind of text and layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.inference.mixture import RouterChoices

DIGITS = 6  # decimals of a share in a report: float32 sums are not more accurate


def count(seen: RouterChoices, groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Count the choices of one router for each group of sequences.

    Args:
        seen: The router's logits and choices for each sequence.
        groups: The group of each sequence.

    Returns:
        For each group, over all its tokens: ``share``, the share of the choices that each expert gets (they sum to 1);
        ``first``, the share of the tokens for which it is the best expert; ``margin``, the mean difference of probability
        (softmax over all experts) between the last expert chosen and the first one not chosen (None if all are chosen);
        ``effective``, the effective number of experts: the exponential of the shares' entropy.
    """
    counts = {}
    for group in dict.fromkeys(groups):
        own = [index for index, name in enumerate(groups) if name == group]
        logits = torch.cat([seen.logits[index] for index in own])
        chosen = torch.cat([seen.chosen[index] for index in own])
        experts, per_token = logits.shape[1], chosen.shape[1]
        share = torch.bincount(chosen.reshape(-1), minlength=experts).double() / chosen.numel()
        first = torch.bincount(chosen[:, 0], minlength=experts).double() / len(chosen)
        odds = logits.double().softmax(dim=-1).sort(dim=-1, descending=True).values
        margin = float((odds[:, per_token - 1] - odds[:, per_token]).mean()) if per_token < experts else None
        counts[group] = {
            "share": [round(float(value), DIGITS) for value in share],
            "first": [round(float(value), DIGITS) for value in first],
            "margin": None if margin is None else round(margin, DIGITS),
            "effective": round(effective(share.tolist()), DIGITS),
        }
    return counts


def effective(shares: Sequence[float]) -> float:
    """Return the exponential of the shares' entropy: their number if they are equal, 1 if one of them is 1."""
    return math.exp(-math.fsum(share * math.log(share) for share in shares if share > 0))


def mean(shares: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of rows of shares."""
    return [round(math.fsum(column) / len(shares), DIGITS) for column in zip(*shares, strict=True)]
