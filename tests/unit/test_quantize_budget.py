"""A budget of bits per weight: spread as an exhaustive search spreads it, on losses that are measured as they are defined."""

import itertools

import gguf
import libgguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from herdbook.quantization.budget import allocate, candidates, smallest
from herdbook.quantization.tensor import Typed
from herdbook.steps.quantize.losses import types_within
from herdbook.weights.imatrix import ImportanceMatrix, Inputs
from support import tiny

KINDS = ("Q2_K", "Q4_K", "Q6_K", "Q8_0")


def exhaustive(tensors, losses, budget):
    """Try all combinations; return the least loss within the budget."""
    fixed = sum(8 * each.size_bytes for each in tensors if each.name not in losses)
    most = budget * sum(each.parameters for each in tensors) + 1e-6
    named = [each for each in tensors if each.name in losses]
    best = None
    for kinds in itertools.product(KINDS, repeat=len(named)):
        pairs = list(zip(named, kinds, strict=True))
        if fixed + sum(8 * Typed(each.name, each.shape, kind).size_bytes for each, kind in pairs) <= most:
            loss = sum(losses[each.name][kind] for each, kind in pairs)
            best = loss if best is None else min(best, loss)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_types_lose_as_little_as_an_exhaustive_search_finds(seed):
    stream = np.random.default_rng(seed)
    tensors = [Typed("norm", (256,), "F32")]
    tensors += [Typed(f"t{n}", (4 * int(stream.integers(1, 4)), 256), "Q4_K") for n in range(4)]
    losses = {
        one.name: dict(zip(KINDS, sorted(2.0 ** -stream.uniform(0, 12, 4))[::-1], strict=True))
        for one in tensors[1:]
    }

    def bits(types):
        return sum(8 * Typed(each.name, each.shape, types[each.name]).size_bytes for each in tensors)

    def loss(types):
        return sum(losses[name][kind] for name, kind in types.items() if name in losses)

    parameters = sum(each.parameters for each in tensors)
    for price in 2.0 ** -np.linspace(
        8, 24, 9
    ):  # of a bit, at which each tensor by itself chooses what is best
        best = {"norm": "F32"} | {
            one.name: min(
                KINDS,
                key=lambda kind, one=one: (
                    losses[one.name][kind] + price * 8 * Typed(one.name, one.shape, kind).size_bytes
                ),
            )
            for one in tensors[1:]
        }
        types = allocate(tensors, losses, bits(best) / parameters)
        assert types == best
        assert loss(types) == pytest.approx(exhaustive(tensors, losses, bits(best) / parameters))
    for budget in np.linspace(4, 10, 9):
        assert bits(allocate(tensors, losses, budget)) <= budget * parameters + 1e-6
    widest = allocate(tensors, losses, 40)
    assert {widest[name] for name in losses} == {"Q8_0"}


def test_a_type_that_loses_more_than_a_line_between_its_neighbours_is_passed_over():
    tensors = [Typed("a", (4, 256), "Q4_K"), Typed("b", (4, 256), "Q4_K")]
    losses = {
        "a": {"Q2_K": 1.0, "Q4_K": 0.99, "Q8_0": 0.0},
        "b": {"Q2_K": 1.0, "Q4_K": 0.5, "Q8_0": 0.4},
    }
    assert allocate(tensors, losses, 6.6) == {"a": "Q8_0", "b": "Q4_K"}


def test_candidates_fit_the_rows_and_need_no_matrix_that_is_not_there():
    assert candidates("blk.0.ffn_up.weight", 256, matrix=False)[0] == "Q2_K"
    assert candidates("blk.0.ffn_up.weight", 256, matrix=True)[0] == "IQ2_XXS"
    assert candidates("output.weight", 256, matrix=True)[0] == "Q2_K"
    assert candidates("blk.0.ffn_up.weight", 96, matrix=True)[0] == "IQ4_NL"
    assert candidates("blk.0.ffn_up.weight", 48, matrix=True) == ("F16",)
    tensors = [Typed("blk.0.ffn_up.weight", (2, 256), "Q8_0"), Typed("blk.0.attn_norm.weight", (256,), "F32")]
    assert smallest(tensors, matrix=False) == (2 * 84 * 8 + 256 * 32) / (3 * 256)


@pytest.mark.parametrize("weighs", [False, True])
def test_losses_are_those_of_the_definition(tmp_path, monkeypatch, weighs):
    folder = tiny.write_model(tmp_path / "m", hidden=64, intermediate=96, layers=1)
    weights = torch.cat([load_file(folder / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]])
    rows = weights.float().numpy()
    chosen = rows[np.unique(np.linspace(0, 95, 64).astype(int))]
    columns = np.linspace(1, 9, 64, dtype=np.float32)
    name = "blk.0.ffn_up.weight"
    matrix = (
        ImportanceMatrix({name: Inputs(columns[None], np.ones(1, np.float32))}, (), 1, 1) if weighs else None
    )
    factors = columns.astype(float) if weighs else np.ones(64)
    expected = {}
    for kind in candidates(name, 64, matrix=weighs):
        number = gguf.GGMLQuantizationType[kind]
        data = np.asarray(libgguf.quantize_rows(chosen, int(number), columns if weighs else None)).view(
            np.uint8
        )
        error = gguf.quants.dequantize(data, number).astype(float) - chosen
        expected[kind] = (error**2 * factors).sum() / (chosen.astype(float) ** 2 * factors).sum()
    seen = {}
    monkeypatch.setattr(
        "herdbook.steps.quantize.losses.allocate", lambda _, losses, __: seen.update(losses) or {}
    )
    types_within(folder, [Typed(name, (96, 64), "Q8_0")], 5, matrix)
    assert list(seen) == [name]
    assert seen[name] == pytest.approx(expected, rel=1e-9)
