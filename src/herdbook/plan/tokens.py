"""Tokens: whether models that are joined have the same ones, and whether the embeddings have a row for each.

A model has the tokenizer of the source that its files descend from. What a row of its embeddings means is decided by the
tokens that its release can produce, those of that tokenizer; so each model that it is made from is compared with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.architectures.rows import rows_of
from herdbook.errors import RecipeError
from herdbook.layout import CONFIG, GENERATION_CONFIG
from herdbook.plan.alignment import origin_of, tokens_of
from herdbook.recipe import Merge, Moe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from herdbook.lock import Lock, LockedSource, LockedTokenDifference, LockedTokens
    from herdbook.plan.model import Node

SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


def check_tokens(
    lock: Lock, nodes: Mapping[str, Node], whole: set[str], read: Collection[str] = ()
) -> list[str]:
    """Check the tokens of all models.

    Args:
        lock: The lock, which describes the vocabularies of the sources and how they differ.
        nodes: The models, parents first.
        whole: Names of the models whose embeddings or tokenizers are used; see ``needed_whole``.
        read: Names of those whose tokenizer is used with their own embeddings; see ``readers``.

    Returns:
        Warnings, one line each.

    Raises:
        RecipeError: If tokens of models that are joined have different ids, or ids are beyond the embeddings.
    """
    check = _Check(lock, nodes)
    for node in nodes.values():
        if isinstance(node.recipe, Merge | Moe):
            check.joined(node)
        if node.name in whole and not check.only_lined_up(node.name, read):
            check.rows(node)
    if check.problems:
        raise RecipeError(check.problems)
    return check.warnings + check.unpinned_warnings()


class _Check:
    def __init__(self, lock: Lock, nodes: Mapping[str, Node]) -> None:
        self.lock, self.nodes = lock, nodes
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._unpinned: dict[str, None] = {}
        self._with_rows: set[tuple[str, str, int]] = set()
        self._differences = {difference.between: difference for difference in lock.token_differences}

    def joined(self, node: Node) -> None:
        """Compare the models that a merge or a mixture is made from with the one whose tokenizer it gets."""
        entry = node.recipe
        chosen = entry.merge.tokenizer if isinstance(entry, Merge) else None  # a name, or a template alone
        for member in dict.fromkeys(node.parents):
            if self._origin(member) == self._origin(node.name) or self._is_aligned(node):
                continue
            difference = self._difference(node, member)
            if difference is None:
                continue
            if isinstance(entry, Merge):
                self._merged(node, member, difference, is_chosen=chosen is not None)
            else:
                self._mixed(node, member, difference)

    def rows(self, node: Node) -> None:
        """Check that a model's embeddings have a row for each id that its tokenizer or its configuration names."""
        rows, origin = rows_of(node.form), self._origin(node.name)
        if rows is None:
            return
        locked, tokens = self._locked(node.name), self._tokens(node.name)
        where = f"models.{node.name}"
        if tokens and tokens.highest >= rows and self._is_new("", origin, rows):
            whose = "its tokenizer" if node.files_from == node.name else f"the tokenizer of {origin!r}"
            self.problems.append(
                f"{where}: {whose} has the token {tokens.last!r} with id {tokens.highest}, and its embeddings have {rows} "
                "rows, so transformers would fail at such a token (IndexError). Remove the token, or resize the embeddings"
            )
        for file, content in ((CONFIG, node.config), (GENERATION_CONFIG, locked.generation)):
            for key, number in _special_ids(content):
                if number >= rows and self._is_new(f"{file}: {key}", origin, rows):
                    self.problems.append(
                        f"{where}: {file} has {key} {number}, and its embeddings have {rows} rows. Correct the id"
                    )

    def only_lined_up(self, name: str, read: Collection[str]) -> bool:
        """Return whether nothing uses a model but lined-up rows of its embeddings, so that each token may have one or not."""
        children = [node for node in self.nodes.values() if name in node.parents]
        return (
            bool(children)
            and name not in read
            and all(
                self._is_aligned(node)
                if isinstance(node.recipe, Merge | Moe)
                else self.only_lined_up(node.name, read)
                for node in children
            )
        )

    def unpinned_warnings(self) -> list[str]:
        """Return a line about sources that could not be compared."""
        if not self._unpinned:
            return []
        names = ", ".join(self._unpinned)
        line = (
            f"models: {names}: their tokens are not in the lock, so it is not known whether equal ids are equal tokens. If the "
            "lock was written by an older version, run `herdbook lock`; otherwise they have no tokenizer that can be read"
        )
        return [line]

    def _merged(self, node: Node, member: str, difference: LockedTokenDifference, *, is_chosen: bool) -> None:
        where, keeper = f"models.{node.name}.merge", node.files_from
        if difference.moved:
            self.problems.append(
                f"{where}: {_moved(difference, member, keeper)}: the merge would mix up their embeddings. To line these up by "
                "their tokens, set `tokenizer: {source: union}` or `{source: base}`"
            )
        if difference.reused:
            line = f"{where}: {_reused(difference, member, keeper)}"
            if is_chosen:
                self.warnings.append(f"{line}; the merge has the tokens of {keeper!r}")
            else:
                self.problems.append(
                    f"{line}: the merge would mix up their embeddings. To build it all the same, name the model whose tokens "
                    "count: `tokenizer:`"
                )
        self.warnings += [f"{where}: {line}" for line in _alone(difference, member, keeper)]

    def _mixed(self, node: Node, member: str, difference: LockedTokenDifference) -> None:
        assert isinstance(node.recipe, Moe)  # noqa: S101 - the caller's choice
        moe = node.recipe.moe
        where, keeper = f"models.{node.name}.moe", node.files_from
        if difference.moved:
            line = f"{where}: {_moved(difference, member, keeper)}"
            if moe.semantics != "native-1":
                self.warnings.append(f"{line} (mergekit does not check this)")
            elif member == moe.base:
                self.problems.append(
                    f"{line}, and the embeddings are those of {member!r}. Leave out `tokenizer`"
                )
            else:
                self.problems.append(
                    f"{line}: it was trained on different tokens. To build it all the same, set `semantics: mergekit-0.1.5`."
                )
        if difference.reused:
            self.warnings.append(
                f"{where}: {_reused(difference, member, keeper)}; the mixture has the tokens of {keeper!r}"
            )
        # another number of rows is reported where the shapes are compared
        if self.nodes[member].config.get("vocab_size") == self.nodes[keeper].config.get("vocab_size"):
            self.warnings += [f"{where}: {line}" for line in _alone(difference, member, keeper)]

    def _difference(self, node: Node, member: str) -> LockedTokenDifference | None:
        """Return how a model's tokens differ from those of the model that it enters, seen from the former; None if not."""
        one, other = self._tokens(member), self._tokens(node.name)
        if one is None or other is None:
            missing = [name for name in (node.name, member) if self._tokens(name) is None]
            self._unpinned |= dict.fromkeys(map(self._origin, missing))
            return None
        if one.sha256 == other.sha256:
            return None
        low, high = sorted((one.sha256, other.sha256))
        if (low, high) not in self._differences:
            self.problems.append(
                f"models.{node.name}: {member!r} has other tokens than {node.files_from!r} ({one.count}, not {other.count}; or "
                "other ids), and the lock does not list them. Run `herdbook lock`"
            )
            return None
        return self._differences[low, high].seen_from(one.sha256)

    def _origin(self, name: str) -> str:
        """Return the name of the model whose tokenizer a model has: a source, or one that makes a vocabulary."""
        while self.nodes[name].files_from != name and name not in self.lock.vocabularies:
            name = self.nodes[name].files_from
        return name

    def _locked(self, name: str) -> LockedSource:
        return self.lock.sources[origin_of(self.nodes, name)]

    def _tokens(self, name: str) -> LockedTokens | None:
        return tokens_of(self.lock, self.nodes, name)

    def _is_aligned(self, node: Node) -> bool:
        """Return whether the rows of a merge or a mixture are lined up by their tokens."""
        return node.name in self.lock.vocabularies and bool(self.lock.vocabularies[node.name].rows)

    def _is_new(self, what: str, origin: str, rows: int) -> bool:
        """Return whether a problem was not found before: what is made of a model has it, too."""
        is_new = (what, origin, rows) not in self._with_rows
        self._with_rows.add((what, origin, rows))
        return is_new


def _special_ids(content: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key in SPECIAL:
        value = content.get(key)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int):
                yield key, number


def _moved(difference: LockedTokenDifference, member: str, keeper: str) -> str:
    assert difference.moved_token  # noqa: S101 - the lock has one for each difference
    token, mine, theirs = difference.moved_token
    count = f"{difference.moved} tokens have other ids" if difference.moved > 1 else "a token has another id"
    return f"{count} in {member!r} than in {keeper!r} ({token!r} is {mine}, not {theirs})"


def _reused(difference: LockedTokenDifference, member: str, keeper: str) -> str:
    assert difference.reused_id  # noqa: S101 - the lock has one for each difference
    number, mine, theirs = difference.reused_id
    count = (
        f"{difference.reused} ids stand for other tokens"
        if difference.reused > 1
        else "an id stands for another token"
    )
    return f"{count} in {member!r} than in {keeper!r} ({number} for {mine!r}, not for {theirs!r})"


def _alone(difference: LockedTokenDifference, member: str, keeper: str) -> Iterator[str]:
    """Yield a line for the tokens that only one model has; those whose ids the other uses were reported before."""
    for count, token, one, other in zip(
        difference.alone, difference.alone_tokens, (member, keeper), (keeper, member), strict=True
    ):
        if count > difference.reused:
            what = f"{count} tokens, such as {token!r}," if count > 1 else f"the token {token!r}"
            have = "are" if count > 1 else "is"
            yield f"{what} {have} in {one!r} and not in {other!r}; the result has the tokens of {keeper!r}"
