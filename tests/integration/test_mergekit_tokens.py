"""Merges of models with other tokens beside the real mergekit: vocabularies, and rows of embeddings and heads."""

import json

import pytest
import torch
import yaml
from tokenizers import Tokenizer

from herdbook.architectures.rows import is_per_token
from herdbook.inference.forward import CheckpointFolder
from support import tiny
from support.inputs.tokens import add
from support.mergekit import MERGEKIT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mergekit")]
# The others are computed in another order, lined up or not.
SAME_ARITHMETIC = ("linear", "passthrough")
ROWS = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture(scope="module")
def herd(tmp_path_factory):
    """Three models of one family: ``b`` and ``c`` have tokens that ``a`` does not have, one of them both, with other ids."""
    root = tmp_path_factory.mktemp("herd")
    for seed, (name, tokens) in enumerate(
        {"a": [], "b": ["<|im_start|>", "<|im_end|>"], "c": ["<pad>", "<|im_end|>", "<tool>"]}.items()
    ):
        tiny.write_model(root / name, seed=seed, vocab=64 + len(tokens))
        (root / name / "tokenizer.json").unlink()
        tiny.write_tokenizer(root / name, 64)
        for number, token in enumerate(tokens, start=64):
            add(root / name, token, number)
    return root


def ours(root, results, merge):
    models = {name: {"folder": name} for name in "abc"}
    recipe = tiny.write_recipe(root / "r.yaml", {**models, "merged": {"merge": merge}})
    plan = tiny.build(recipe, results / "results")
    return plan.layout.folder(plan.released)


def theirs(root, results, config):
    path = results / "config.yml"
    path.write_text(yaml.safe_dump(config).replace("ROOT", str(root)), encoding="utf-8")
    MERGEKIT.run([str(path), str(results / "theirs")], results)
    return results / "theirs"


def of(name, **parameters):
    return {"model": f"ROOT/{name}", "parameters": parameters}


LINEAR = {"method": "linear", "models": [{"model": "a", "weight": 0.25}, {"model": "b", "weight": 0.75}]}
THREE = {
    "method": "linear",
    "models": [
        {"model": "a", "weight": 0.25},
        {"model": "b", "weight": 0.25},
        {"model": "c", "weight": 0.5},
    ],
}
THREE_OF_THEIRS = {
    "merge_method": "linear",
    "models": [of("a", weight=0.25), of("b", weight=0.25), of("c", weight=0.5)],
}
CHOSEN = {
    "<|im_start|>": {
        "source": {"kind": "model_token", "model": "a", "token": "</s>"},
        "force": True,
    },
    "<|im_end|>": {"source": "c"},
    "<tool>": {"source": {"kind": "zero"}, "force": True},
    "<new>": {"source": {"kind": "model_token", "model": "b", "token_id": 5}},
}


def named(tokens):
    """Return a choice of rows with the folders that mergekit reads."""

    def path(source):
        if isinstance(source, str):
            return f"ROOT/{source}"
        return {**source, "model": f"ROOT/{source['model']}"} if "model" in source else source

    return {token: {**entry, "source": path(entry["source"])} for token, entry in tokens.items()}


CASES = {
    "linear, union": (
        {**LINEAR, "dtype": "float32", "tokenizer": {"source": "union"}},
        {
            "merge_method": "linear",
            "models": [of("a", weight=0.25), of("b", weight=0.75)],
            "base_model": "ROOT/a",
            "dtype": "float32",
            "tokenizer": {"source": "union"},
        },
    ),
    "slerp, union, padded": (
        {
            "method": "slerp",
            "base": "b",
            "other": "c",
            "t": 0.25,
            "dtype": "float32",
            "tokenizer": {"source": "union", "pad_to_multiple_of": 16},
        },
        {
            "merge_method": "slerp",
            "base_model": "ROOT/b",
            "models": [of("b"), of("c")],
            "parameters": {"t": 0.25},
            "dtype": "float32",
            "tokenizer": {"source": "union", "pad_to_multiple_of": 16},
        },
    ),
    "ties, base": (
        {
            "method": "ties",
            "base": "b",
            "models": [{"model": "a", "density": 1.0}, {"model": "c", "density": 1.0}],
            "dtype": "float32",
            "tokenizer": {"source": "base"},
        },
        {
            "merge_method": "ties",
            "base_model": "ROOT/b",
            "models": [of("a", density=1.0, weight=1.0), of("c", density=1.0, weight=1.0)],
            "dtype": "float32",
            "tokenizer": {"source": "base"},
        },
    ),
    "linear, base": (
        {**THREE, "dtype": "float32", "tokenizer": {"source": "base", "pad_to_multiple_of": 7}},
        {
            **THREE_OF_THEIRS,
            "base_model": "ROOT/a",
            "dtype": "float32",
            "tokenizer": {"source": "base", "pad_to_multiple_of": 7},
        },
    ),
    "linear, of a model": (
        {**THREE, "dtype": "float32", "tokenizer": {"source": "c"}},
        {
            **THREE_OF_THEIRS,
            "base_model": "ROOT/a",
            "dtype": "float32",
            "tokenizer": {"source": "ROOT/c"},
        },
    ),
    "linear, chosen rows": (
        {**THREE, "dtype": "float32", "tokenizer": {"source": "union", "tokens": CHOSEN}},
        {
            **THREE_OF_THEIRS,
            "base_model": "ROOT/a",
            "dtype": "float32",
            "tokenizer": {"source": "union", "tokens": named(CHOSEN)},
        },
    ),
    "passthrough, union": (
        {
            "method": "passthrough",
            "slices": [{"model": "a", "layers": "0-1"}, {"model": "c", "layers": "1-1"}],
            "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
        },
        {
            "merge_method": "passthrough",
            "slices": [
                {"sources": [{"model": "ROOT/a", "layer_range": [0, 2]}]},
                {"sources": [{"model": "ROOT/c", "layer_range": [1, 2]}]},
            ],
            "base_model": "ROOT/a",
            "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
        },
    ),
}


def order_of(found, expected):
    """Return mergekit's row of each token of ours: it takes models in the order of a set, which changes from run to run."""
    mine, their = (Tokenizer.from_file(str(one / "tokenizer.json")).get_vocab() for one in (found, expected))
    assert mine.keys() == their.keys()
    return [their[token] for token in sorted(mine, key=mine.get)]


@pytest.mark.parametrize("kind", ["gpt2", "phi"])
def test_rows_of_other_names_are_those_of_mergekit(tmp_path, kind):
    sizes = {"gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}}.get(
        kind, {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    )
    tokens = {"a": [], "b": ["<|im_start|>", "<|im_end|>"], "c": ["<pad>", "<|im_end|>", "<tool>"]}
    for seed, (name, more) in enumerate(tokens.items()):
        tiny.write_other_model(tmp_path / name, kind, seed=seed, **sizes, vocab_size=64 + len(more))
        for number, token in enumerate(more, start=64):
            add(tmp_path / name, token, number)
    settings = {"dtype": "float32", "tokenizer": {"source": "union", "pad_to_multiple_of": 8}}
    found = ours(tmp_path, tmp_path, {**THREE, **settings, "semantics": "mergekit-0.1.5"})
    expected = theirs(tmp_path, tmp_path, {**THREE_OF_THEIRS, "base_model": "ROOT/a", **settings})
    order = order_of(found, expected)
    left, right = CheckpointFolder(found), CheckpointFolder(expected)
    assert left.spans.keys() == right.spans.keys()
    for name in left.spans:
        mine, their = left[name], right[name]
        if is_per_token(name):
            assert len(mine) == len(their) == 72
            # means of all rows, which mergekit has in another order
            assert torch.allclose(mine[len(order) :], their[len(order) :]), name
            mine, their = mine[: len(order)], their[order]
        assert torch.equal(mine, their), name


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_mergekit(herd, tmp_path, case):
    mine, config = CASES[case]
    found, expected = ours(herd, tmp_path, mine), theirs(herd, tmp_path, config)
    order = order_of(found, expected)
    sizes = [json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (found, expected)]
    assert sizes[0] == sizes[1]
    left, right = CheckpointFolder(found), CheckpointFolder(expected)
    assert left.spans.keys() == right.spans.keys()
    for name in left.spans:
        if name in ROWS:
            assert left[name].shape == right[name].shape == (sizes[0], 32)
        theirs_in_order = right[name]
        if name in ROWS:
            theirs_in_order = torch.cat([theirs_in_order[order], theirs_in_order[len(order) :]])
        if case.startswith(SAME_ARITHMETIC):
            assert torch.equal(left[name], theirs_in_order), name
        near = torch.isclose(left[name], theirs_in_order, rtol=1e-5, atol=1e-6)
        # mergekit's TIES keeps one number of a tensor less, in tests/integration/test_mergekit_dense.py, too
        assert int((~near).sum()) <= (2 if case.startswith("ties") else 0), name
