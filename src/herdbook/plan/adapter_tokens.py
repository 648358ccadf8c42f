"""Whether an adapter was trained with the tokens of the model that it is folded into.

The result has the tokenizer of the model. A token that only the adapter's tokenizer has would be cut into others, and one that has
another id would stand for another row of the embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook.errors import RecipeError
from herdbook.recipe import Adapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from herdbook.lock import Lock, LockedAdapter, LockedTokenDifference
    from herdbook.plan.model import Node


def check_adapter_tokens(lock: Lock, nodes: Mapping[str, Node]) -> list[str]:
    """Compare the tokenizers that lie beside adapters with those of their models.

    Returns:
        Warnings, one line each.

    Raises:
        RecipeError: If an adapter was trained with tokens that its model does not have, or that have other ids in it.
    """
    known = {difference.between: difference for difference in lock.token_differences}
    problems: list[str] = []
    warnings: list[str] = []
    for node in nodes.values():
        if not isinstance(node.recipe, Adapter):
            continue
        where, locked, origin = f"models.{node.name}.adapter", lock.adapters[node.name], node.name
        while nodes[origin].files_from != origin:
            origin = nodes[origin].files_from
        if locked.chat_template and not node.chat_template:
            warnings.append(
                f"{where}: its tokenizer has a chat template, and that of {origin!r} has none; the result has none"
            )
        mine, theirs = locked.tokens, lock.sources[origin].tokens
        if mine is None or mine == theirs:
            continue
        if theirs is None:
            warnings.append(
                f"{where}: it comes with a tokenizer, and {origin!r} has none that can be read, so it is not known whether it was "
                "trained with the same tokens"
            )
            continue
        low, high = sorted((mine.sha256, theirs.sha256))
        if (low, high) not in known:
            problems.append(
                f"{where}: its tokenizer has other tokens than that of {origin!r}, and the lock does not list them. Run "
                "`herdbook lock`"
            )
            continue
        difference = known[low, high].seen_from(mine.sha256)
        if what := _trained_otherwise(difference, locked, origin):
            problems.append(
                f"{where}: it was trained with another tokenizer: {what}. Fold it with PEFT into a copy of the model that has these "
                "tokens, and name that folder; or, if it was trained without them, remove the tokenizer's files from a copy of the "
                "adapter"
            )
        elif difference.alone[0]:
            warnings.append(
                f"{where}: its tokenizer also has {locked.padding!r}, which fills up texts in training; the result has the tokens of "
                f"{origin!r}"
            )
    if problems:
        raise RecipeError(problems)
    return warnings


def _trained_otherwise(difference: LockedTokenDifference, locked: LockedAdapter, origin: str) -> str:
    """Return how an adapter's tokens differ from those of a model; empty if they do not, or by a token for padding only."""
    if difference.moved_token:
        token, mine, theirs = difference.moved_token
        return f"{token!r} is {mine} there, and {theirs} in that of {origin!r}"
    if difference.reused_id:
        number, own, other = difference.reused_id
        return f"{number} stands for {own!r} there, and for {other!r} in that of {origin!r}"
    count, token = difference.alone[0], difference.alone_tokens[0]
    if not count or (count == 1 and token == locked.padding):
        return ""
    return f"{token!r}{f' and {count - 1} more' if count > 1 else ''} is not in that of {origin!r}"
