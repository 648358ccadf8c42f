"""Lined-up rows: the runs of rows against a loop over the tokens, for vocabularies that are drawn at random."""

from itertools import pairwise
from random import Random

import pytest

from herdbook.lock import LockedChoice, LockedTokens, LockedVocabulary
from herdbook.lock.union import _runs, _Tokenizer
from herdbook.plan.alignment import Alignment
from herdbook.recipe import Tokenizer


def vocabularies(chance):
    """Return the tokens of a result and of three models: runs of a common order, with tokens left out, moved and added."""
    common = [f"t{number}" for number in range(40)]
    models = {}
    for name in "abc":
        tokens = [token for token in common if chance.random() < 0.9]
        if chance.random() < 0.5:
            at = chance.randrange(len(tokens))
            tokens = tokens[at:] + tokens[:at]
        tokens += [f"{name}{number}" for number in range(chance.randrange(4))]
        models[name] = {token: row for row, token in enumerate(tokens)}
    union = list(dict.fromkeys(token for tokens in models.values() for token in tokens))
    result = chance.choice([list(models["a"]), union, [*models["b"], "new"]])
    return {token: number for number, token in enumerate(result)}, models


def rows_of(runs):
    """Return where each row of a run comes from, one by one."""
    rows = []
    for first, count, kind, *what in runs:
        assert first == len(rows)
        for number in range(count):
            if kind == "row":
                rows.append((what[0], what[1] + number))
            elif kind == "mean":
                rows.append([(place, row + number) for place, row in what[0]])
            else:
                rows.append(kind)
    return rows


def naive(result, models, of, base, choices, rows):
    """Return the same by the rules of mergekit, token by token."""
    names = list(models)
    expected = ["padding"] * rows
    for token, number in result.items():
        have = [name for name in names if token in models[name]]
        source, force = choices.get(token, (None, False))
        if token in models[of] and not force:
            expected[number] = (names.index(of), models[of][token])
        elif source == "zero":
            expected[number] = "zero"
        elif source is not None:
            model, other = source
            expected[number] = (names.index(model), models[model][other])
        elif len(have) == 1 or base in have:
            donor = have[0] if len(have) == 1 else base
            expected[number] = (names.index(donor), models[donor][token])
        elif have:
            expected[number] = [(names.index(name), models[name][token]) for name in have]
        else:
            expected[number] = "zero"
    return expected


def section(choices, models):
    tokens = {}
    for token, (source, force) in choices.items():
        entry = {"kind": "zero"}
        if source != "zero":
            entry = {"kind": "model_token", "model": source[0], "token": source[1]}
        tokens[token] = {"source": entry, "force": force}
    return Tokenizer(source="union", tokens=tokens, pad_to_multiple_of=8)


@pytest.mark.parametrize("seed", range(40))
def test_rows_are_those_of_a_loop_over_the_tokens(seed):
    chance = Random(seed)
    result, models = vocabularies(chance)
    choices = {}
    for token in chance.sample(sorted(result), 3):
        donor = chance.choice("abc")
        source = "zero" if chance.random() < 0.3 else (donor, chance.choice(sorted(models[donor])))
        choices[token] = (source, chance.random() < 0.5)
    made = _Tokenizer("a", result, {}, None)
    vocabulary = LockedVocabulary(
        asked={},
        origin="a",
        models={},
        tokens=LockedTokens(count=len(result), highest=len(result) - 1, last="", sha256=""),
        rows={name: tuple(_runs(made, _Tokenizer("a", tokens, {}, None))) for name, tokens in models.items()},
        choices={
            token: LockedChoice(
                id=result[token], row=None if source == "zero" else models[source[0]][source[1]]
            )
            for token, (source, _) in choices.items()
        },
    )
    alignment = Alignment(section(choices, models), vocabulary)
    assert alignment.rows == -(-len(result) // 8) * 8
    for base in (None, "a", "b"):
        for of in models:
            runs = alignment.runs(list(models), of, base)
            assert rows_of(runs) == naive(result, models, of, base, choices, alignment.rows)
            for last, run in pairwise(runs):  # no run could be joined with the one before
                assert (last[2], last[3:]) != (run[2], run[3:]) or run[2] == "row"


def test_rows_of_a_model_that_occurs_twice_are_those_of_its_first_place():
    result, models = {"x": 0, "y": 1}, {"a": {"x": 0}, "b": {"y": 0, "x": 1}}
    made = _Tokenizer("a", result, {}, None)
    rows = {name: tuple(_runs(made, _Tokenizer("a", tokens, {}, None))) for name, tokens in models.items()}
    tokens = LockedTokens(count=2, highest=1, last="y", sha256="")
    vocabulary = LockedVocabulary(asked={}, origin="a", models={}, tokens=tokens, rows=rows)
    alignment = Alignment(Tokenizer(source="union"), vocabulary)
    assert alignment.runs(("a", "b", "a"), "a", None) == [[0, 1, "row", 0, 0], [1, 1, "row", 1, 0]]
