"""Weights by least squares, and ranks of reduced matrices, on numbers that are made here."""

import pytest
import torch

from herdbook.audit.composition import fit
from herdbook.audit.reduced import reduced


def fine_tunes(count, spread=2e-3, size=1 << 15):
    generator = torch.Generator().manual_seed(1)
    base = 0.02 * torch.randn(size, generator=generator)
    return {
        f"m{number}": (base + spread * torch.randn(size, generator=generator)).bfloat16().float()
        for number in range(count)
    }


def test_the_weights_of_a_sum_are_found_and_nothing_is_left():
    models = fine_tunes(3)
    found = (0.2 * models["m0"] + 0.5 * models["m1"] + 0.3 * models["m2"]).bfloat16()
    total = fit(found, models, "BF16")
    assert list(total.weights.values()) == pytest.approx([0.2, 0.5, 0.3], abs=3e-3)
    assert total.is_exact


def test_a_candidate_that_takes_no_part_has_weight_zero():
    models = fine_tunes(3)
    total = fit((0.4 * models["m0"] + 0.6 * models["m2"]).bfloat16(), models, "BF16")
    assert total.weights["m1"] == pytest.approx(0, abs=3e-3)
    assert "m1" not in total.text


def test_a_model_that_is_not_among_the_candidates_leaves_more_than_roundings():
    models = fine_tunes(3)
    found = (0.5 * models["m0"] + 0.5 * models["m2"]).bfloat16()
    total = fit(found, {name: models[name] for name in ("m0", "m1")}, "BF16")
    assert not total.is_exact
    assert 0.9 < total.explained < 1


def test_the_rank_of_a_reduced_matrix_is_found():
    source = torch.randn(64, 48, generator=torch.Generator().manual_seed(2))
    u, values, v = torch.linalg.svd(source.double(), full_matrices=False)
    cut = ((u[:, :31] * values[:31]) @ v[:31]).bfloat16().float()
    outcome = reduced(cut, source, "BF16")
    assert (outcome.rank, outcome.full) == (31, 48)
    assert outcome.lost == pytest.approx(float(values[31:].square().sum() / values.square().sum()))
    assert reduced(source + 0.1 * torch.randn(64, 48), source, "BF16") is None
