"""Roundings and other weights told apart, on numbers that are made here."""

import pytest
import torch

from herdbook.audit.closeness import Closeness

COUNT = 1 << 18
DTYPE = torch.bfloat16


@pytest.fixture(scope="module")
def models():
    """Two models that differ little, as fine-tunes of one base do."""
    generator = torch.Generator().manual_seed(3)
    base = 0.02 * torch.randn(COUNT, generator=generator)
    return tuple((base + 6e-5 * torch.randn(COUNT, generator=generator)).to(DTYPE) for _ in range(2))


def compared(models, found):
    first, second = (one.float() for one in models)
    exact = 0.5 * first + 0.5 * second
    closeness = Closeness(2, DTYPE)
    closeness.add(found, exact.to(DTYPE), exact, models)
    return closeness


def test_equal_numbers(models):
    first, second = (one.float() for one in models)
    assert compared(models, (0.5 * first + 0.5 * second).to(DTYPE)).is_equal


def test_another_order_of_roundings_is_roundings(models):
    first, second = models
    closeness = compared(models, (first + second) / 2 + 0 * first)
    assert closeness.is_rounded
    by_halves = first + (second - first) * 0.5  # rounded three times
    closeness = compared(models, by_halves)
    assert not closeness.outliers
    assert closeness.is_rounded


@pytest.mark.parametrize("weight", [0.45, 0.52])
def test_another_weight_is_found_though_no_number_is_far_off(models, weight):
    first, second = (one.float() for one in models)
    closeness = compared(models, (weight * first + (1 - weight) * second).to(DTYPE))
    assert closeness.ratio < 1.2  # the errors alone look like roundings
    assert closeness.systematic() is not None
    assert not closeness.is_rounded


def test_the_weight_is_found_where_the_models_differ_more():
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(COUNT, generator=generator).to(DTYPE) for _ in range(2))
    found = (0.3 * first.float() + 0.7 * second.float()).to(DTYPE)
    whole, along = compared((first, second), found).systematic()
    assert 0.5 + along == pytest.approx(0.7, abs=1e-3)
    assert whole == pytest.approx(0, abs=1e-3)


def test_a_single_other_number_is_an_outlier(models):
    first, second = (one.float() for one in models)
    found = (0.5 * first + 0.5 * second).to(DTYPE)
    found[17] += 0.01
    closeness = compared(models, found)
    assert (closeness.differing, closeness.outliers) == (1, 1)
    assert closeness.distance > 8


def test_comparisons_add_up(models):
    first, second = (one.float() for one in models)
    found = (0.45 * first + 0.55 * second).to(DTYPE)
    whole = compared(models, found)
    half = COUNT // 2
    parts = [
        compared([one[piece] for one in models], found[piece]) for piece in (slice(half), slice(half, None))
    ]
    parts[0].merge(parts[1])
    assert parts[0].differing == whole.differing
    assert parts[0].ratio == pytest.approx(whole.ratio)
    assert parts[0].systematic() == pytest.approx(whole.systematic(), rel=1e-6)
