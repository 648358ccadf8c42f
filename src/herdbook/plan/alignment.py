"""Lining up embeddings: which row of which model a token of a merged vocabulary has in each model that is joined.

The result is described by runs of rows, in keys and in records. A run is a list: the first row, how many there are, a kind, and
what the kind needs:

- ``[first, count, "row", model, row]``: the rows of a model from ``row`` on;
- ``[first, count, "mean", [[model, row], ...]]``: the mean of rows of several models;
- ``[first, count, "zero"]``: zeros;
- ``[first, count, "padding"]``: the mean of all rows before them.

A model is given by its place among those that are joined. Source: mergekit, ``tokenizer/embed.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from herdbook import recipe as recipes
from herdbook.architectures.rows import is_other_table, is_per_token, rows_of
from herdbook.errors import RecipeError
from herdbook.recipe import ModelToken, Zero

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from herdbook.lock import Lock, LockedTokens, LockedVocabulary
    from herdbook.plan.model import Node, Origin, Tensor
    from herdbook.recipe import Section, Tokenizer

    Run = list[Any]

NUMBER = re.compile(r"\.\d+\.")  # of a layer
SPECIAL_ID = re.compile(r"_token_id$")  # keys of special tokens in a configuration
ROW, MEAN, ZERO, PADDING = "row", "mean", "zero", "padding"


@dataclass(frozen=True)
class Alignment:
    """How the rows of a merge or a mixture are made of those of its models.

    Args:
        section: The recipe's section.
        vocabulary: The tokens, and the rows of each model that belong to them, as locked.
    """

    section: Tokenizer
    vocabulary: LockedVocabulary

    @property
    def rows(self) -> int:
        """The number of rows: one for each id, and those that are added up to a multiple."""
        count, multiple = self.vocabulary.tokens.highest + 1, self.section.pad_to_multiple_of or 1
        return -(-count // multiple) * multiple

    def runs(self, models: Sequence[str], of: str, base: str | None) -> list[Run]:
        """Return the rows of one of the models in the order of the vocabulary.

        Args:
            models: The models whose rows can be used, in their order; a model may occur twice.
            of: The model.
            base: The model whose row is used for tokens that several models have, but not this one; None for their mean.
        """
        place = {model: number for number, model in reversed(list(enumerate(models)))}
        runs: list[Run] = []
        for first, stop, held, token in self._segments(list(dict.fromkeys(models))):
            run = self._run(place, of, base, held, token)
            if runs and _continues(runs[-1], run):
                runs[-1][1] += stop - first
            else:
                runs.append([first, stop - first, *run])
        beyond = self.vocabulary.tokens.highest + 1
        return [*runs, [beyond, self.rows - beyond, PADDING]] if self.rows > beyond else runs

    def changes(self, nodes: Mapping[str, Node], models: Sequence[str]) -> bool:
        """Return whether the embeddings of any of the models get other rows than they have."""
        return any(
            rows != self.rows or self.runs((model,), model, None) != [[0, self.rows, ROW, 0, 0]]
            for model in dict.fromkeys(models)
            if (rows := rows_of(nodes[model].form)) is not None
        )

    def problems(self, where: str, nodes: Mapping[str, Node], models: Sequence[str]) -> Iterator[str]:
        """Yield why the rows of some models cannot be lined up, one line each."""
        for name in dict.fromkeys(models):
            form, rows = nodes[name].form, nodes[name].config.get("vocab_size")
            others = [
                tensor
                for tensor, shape in form.items()
                if not is_per_token(tensor) and not NUMBER.search(tensor)
                if is_other_table(tensor, shape)
                or (
                    shape[:1] == (rows,)  # but a norm may have as many numbers
                    and (len(shape) > 1 or rows != nodes[name].config.get("hidden_size"))
                )
            ]
            if rows_of(form) is None or others:
                yield (
                    f"{where}.tokenizer: {name!r} may have rows for tokens in {others[0] if others else 'tensors of other names'}; "
                    "only those of embeddings and head can be lined up"
                )
            elif type(rows) is not int:
                yield f"{where}.tokenizer: the config.json of {name!r} states no vocab_size, so the number of rows cannot be changed"
        for token, entry in self.section.tokens.items():
            choice, source = self.vocabulary.choices[token], entry.source
            at = f"{where}.tokenizer.tokens.{token}.source"
            if isinstance(source, Zero):
                continue
            model = source.model if isinstance(source, ModelToken) else source
            if model not in models:
                yield f"{at}: {model!r} is not one of the models whose rows are used here"
            elif isinstance(source, str):
                if not any(
                    first <= choice.id < first + count for first, _, count in self.vocabulary.rows[model]
                ):
                    yield f"{at}: {model!r} has no token {token!r}"
            elif (rows := (rows_of(nodes[model].form) or 0)) <= (choice.row or 0):
                yield f"{at}: {model!r} has {rows} rows, and none with number {choice.row}"

    def lacking(self, where: str, models: Sequence[str], of: str, base: str | None) -> Iterator[str]:
        """Yield a line if tokens have rows of zeros, since none of the models has a row for them."""
        chosen = {choice.id for choice in self.vocabulary.choices.values()}
        count = sum(
            sum(number not in chosen for number in range(first, first + length))
            for first, length, kind, *_ in self.runs(models, of, base)
            if kind == ZERO
        )
        if count:
            names = " and ".join(map(repr, dict.fromkeys(models)))
            tokens = f"{count} tokens have rows" if count > 1 else "a token has a row"
            none = "none of " if len(set(models)) > 1 else ""
            yield f"{where}: {tokens} of zeros, since {none}{names} has {'one' if none else 'none'}"

    def configured(self, config: Mapping[str, Any], keeper: Node) -> dict[str, Any]:
        """Return a configuration with the number of rows, and the special tokens of the model that keeps its ids."""
        kept = {key: value for key, value in config.items() if not SPECIAL_ID.search(key)}
        special = {key: value for key, value in keeper.config.items() if SPECIAL_ID.search(key)}
        return {**kept, **special, "vocab_size": self.rows}

    def _segments(self, models: Sequence[str]) -> Iterator[tuple[int, int, dict[str, int], str | None]]:
        """Yield runs of ids for which one rule applies: first, stop, the first row in each model, the token if it is chosen."""
        choices = {choice.id: token for token, choice in self.vocabulary.choices.items()}
        known = {model: list(self.vocabulary.rows[model]) for model in models}
        edges = {0, self.vocabulary.tokens.highest + 1}
        edges |= {edge for number in choices for edge in (number, number + 1)}
        edges |= {
            edge for runs in known.values() for first, _, count in runs for edge in (first, first + count)
        }
        ordered = sorted(edges)
        position = dict.fromkeys(known, 0)
        for first, stop in pairwise(ordered):
            held = {}
            for model, runs in known.items():
                while position[model] < len(runs) and sum(runs[position[model]][::2]) <= first:
                    position[model] += 1
                if position[model] < len(runs) and runs[position[model]][0] <= first:
                    start, row, _ = runs[position[model]]
                    held[model] = row + first - start
            yield first, stop, held, choices.get(first)

    def _run(
        self, place: Mapping[str, int], of: str, base: str | None, held: Mapping[str, int], token: str | None
    ) -> Run:
        choice = self.section.tokens[token] if token is not None else None
        if of in held and not (choice and choice.force):
            return [ROW, place[of], held[of]]
        if token is not None:
            return self._chosen(place, held, token)
        if not held:
            return [ZERO]
        if len(held) > 1 and base not in held:
            return [MEAN, [[place[model], row] for model, row in held.items()]]
        donor = base if base is not None and base in held else next(iter(held))
        return [ROW, place[donor], held[donor]]

    def _chosen(self, place: Mapping[str, int], held: Mapping[str, int], token: str) -> Run:
        """Return the run of a token for which the recipe chooses a row."""
        source = self.section.tokens[token].source
        match source:
            case Zero():
                return [ZERO]
            case ModelToken(model=model):
                return [ROW, place[model], self.vocabulary.choices[token].row]
            case model:
                return [ROW, place[model], held[model]]


def alignment_of(name: str, model: Section, lock: Lock, nodes: Mapping[str, Node]) -> Alignment | None:
    """Return how the rows of a merge or a mixture are lined up; None if its tokenizer is that of one model.

    Raises:
        RecipeError: If the lock's vocabulary was made of other tokenizers than the models have.
    """
    section = recipes.tokenizer_of(model)
    if section is None:
        return None
    vocabulary = lock.vocabularies[name]
    stale = vocabulary.origin != origin_of(nodes, str(recipes.keeper_of(model)))
    for joined, sha256 in vocabulary.models.items():
        tokens = tokens_of(lock, nodes, joined) if joined in nodes else None
        stale = stale or tokens is None or tokens.sha256 != sha256
    if stale:
        raise RecipeError(
            f"models.{name}: its vocabulary was locked with other tokenizers than its models now have. Run `herdbook lock`"
        )
    return Alignment(section, vocabulary) if section.source else None


def origin_of(nodes: Mapping[str, Node], name: str) -> str:
    """Return the name of the source that a model has its tokenizer's files from, or the files that these start from."""
    while nodes[name].files_from != name:
        name = nodes[name].files_from
    return name


def own_vocabulary(lock: Lock, nodes: Mapping[str, Node], name: str) -> LockedVocabulary | None:
    """Return the vocabulary that a model has, or the nearest one that it has its tokenizer from; None if that is a source."""
    while nodes[name].files_from != name:
        if name in lock.vocabularies:
            return lock.vocabularies[name]
        name = nodes[name].files_from
    return None


def tokens_of(lock: Lock, nodes: Mapping[str, Node], name: str) -> LockedTokens | None:
    """Return the tokens of a model, as locked."""
    own = own_vocabulary(lock, nodes, name)
    return own.tokens if own else lock.sources[origin_of(nodes, name)].tokens


def row_tensor(tensor: Tensor, runs: list[Run], rows: int, origins: Sequence[Origin]) -> Tensor:
    """Return a tensor that is put together of rows.

    Args:
        tensor: The tensor, but for its rows.
        runs: The runs of rows.
        rows: The number of rows.
        origins: The tensor of each model that the runs name by its place.
    """
    cited = tuple(origins[place] for run in runs for place, _ in parts_of(run))
    return replace(tensor, shape=(rows, *tensor.shape[1:]), action="rows", origins=cited)


def parts_of(run: Run) -> list[tuple[int, int]]:
    """Return the models that a run has rows of, by place, each with its first row."""
    _, _, kind, *what = run
    if kind == ROW:
        return [(what[0], what[1])]
    return [(place, row) for place, row in what[0]] if kind == MEAN else []


def name_of(tensor: str, run: Run) -> str:
    """Return the name of a run of a tensor's rows, as records have it."""
    return f"{tensor}[{run[0]}:{run[0] + run[1]}]"


def form_of_rows(form: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of tensors, of those with a row for each token without the number of rows."""
    return {name: shape[1:] if is_per_token(name) else shape for name, shape in form.items()}


def _continues(last: Run, run: Run) -> bool:
    """Return whether a run goes on where the last one ends."""
    _, count, kind, *what = last
    if kind != run[0]:
        return False
    if kind == ROW:
        return bool([what[0], what[1] + count] == run[1:])
    if kind == MEAN:
        return bool([[model, row + count] for model, row in what[0]] == run[1])
    return True
