"""What DARE and DELLA can give: masks are drawn here, and what is found is compared with them."""

import pytest
import torch

from herdbook.audit.drawn import drawn
from herdbook.plan.operation import MergeTensors

SHAPE = (96, 64)
DENSITIES = (0.6, 0.35)


def merge(method, kept, weights=(0.5, 0.8), *, rescale=True):
    """Return models' tensors, and what a method makes of them with some elements of their task vectors, number by number."""
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(SHAPE, generator=generator)
    models = [base + 0.3 * torch.randn(SHAPE, generator=generator) for _ in weights]
    vectors = []
    for model, mask, weight in zip(models, kept, weights, strict=True):
        vector = (model - base) * mask
        if rescale:
            vector *= (model - base).abs().sum() / vector.abs().sum()
        vectors.append(weight * vector)
    total = sum(vectors)
    if method == "dare_ties":
        sign = torch.where(total >= 0, 1.0, -1.0)
        total = sum(torch.where(vector.sign() == sign, vector, 0.0) for vector in vectors)
    return [base, *models], base + total


def masks(densities=DENSITIES):
    generator = torch.Generator().manual_seed(4)
    return [(torch.rand(SHAPE, generator=generator) < density).float() for density in densities]


def outcome(method, inputs, found, densities=DENSITIES, *, rescale=True):
    settings = {"normalize": False, "rescale": rescale, "semantics": "mergekit-0.1.5"}
    values = {"weights": [0.5, 0.8], "densities": list(densities), "scale": 1.0}
    return drawn(found, inputs, MergeTensors(method, settings, {}), values)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_what_a_draw_gives_is_possible(method, rescale):
    kept = masks()
    inputs, found = merge(method, kept, rescale=rescale)
    seen = outcome(method, inputs, found.bfloat16(), rescale=rescale)
    assert (seen.impossible, seen.is_possible) == (0, True)
    assert seen.kept == pytest.approx([float(mask.mean()) for mask in kept], abs=0.02)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_another_density_shows(method):
    inputs, found = merge(method, masks((0.6, 0.5)))
    seen = outcome(method, inputs, found.bfloat16())
    assert not seen.is_possible
    assert seen.impossible or max(seen.deviations) > 6


def test_a_number_that_no_draw_gives_shows():
    inputs, found = merge("dare_linear", masks())
    found[3, 3] += 2
    seen = outcome("dare_linear", inputs, found.bfloat16())
    assert (seen.impossible, seen.is_possible) == (1, False)


def test_another_model_shows():
    inputs, found = merge("dare_linear", masks())
    other = [inputs[0], inputs[1], inputs[2] + 0.1]
    assert outcome("dare_linear", other, found.bfloat16()).impossible > 1000
