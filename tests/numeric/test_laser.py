"""LASER against closed forms, a full SVD, and planted signals."""

import math

import numpy as np
import pytest
import torch

from herdbook.laser.rank import (
    keep_above_noise,
    keep_fraction,
    marchenko_pastur_edge,
    marchenko_pastur_median,
)
from herdbook.laser.reduce import reduce


def noise(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def truncated(matrix, rank):
    """Return the best approximation of a rank by numpy's full SVD."""
    u, s, v = np.linalg.svd(matrix.to(torch.float64).numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank]), s


@pytest.mark.parametrize(
    ("beta", "omega"),
    # Gavish and Donoho 2014, arXiv:1305.5870, table IV: the threshold's factor when the noise is not known.
    [(0.05, 1.5194), (0.10, 1.6089), (0.25, 1.8371), (0.5, 2.1711), (1.0, 2.8582)],
)
def test_median_of_the_marchenko_pastur_law(beta, omega):
    known = math.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + math.sqrt(beta**2 + 14 * beta + 1)))
    assert known / math.sqrt(marchenko_pastur_median(beta)) == pytest.approx(omega, abs=5e-4)


def test_median_against_a_plain_integral():
    beta = 0.3
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    x = np.linspace(low, high, 2_000_001)[1:-1]
    mass = np.cumsum(np.sqrt((high - x) * (x - low)) / (2 * math.pi * beta * x)) * (x[1] - x[0])
    assert marchenko_pastur_median(beta) == pytest.approx(x[np.searchsorted(mass, mass[-1] / 2)], abs=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(200, 200), (600, 200), (200, 800)])
def test_edge_of_pure_noise_is_where_noise_ends(rows, columns):
    values = torch.linalg.svdvals(0.02 * noise(rows, columns)).tolist()
    expected = 0.02 * (math.sqrt(rows) + math.sqrt(columns))
    assert marchenko_pastur_edge(values, rows, columns) == pytest.approx(expected, rel=0.02)
    assert keep_above_noise(values, rows, columns) <= 3


def test_planted_signals_are_kept():
    rows, columns, rank = 400, 300, 7
    signal = noise(rows, rank, 1) @ noise(rank, columns, 2)
    found = reduce(signal + noise(rows, columns, 3), "marchenko-pastur")
    assert found.rank == rank
    assert found.of == columns


def test_fraction_is_rounded_down_and_never_nothing():
    assert [keep_fraction(10, share) for share in (0.01, 0.19, 0.2, 0.999, 1.0)] == [1, 1, 2, 9, 10]


@pytest.mark.parametrize(("rows", "columns"), [(40, 24), (24, 40), (32, 32)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_reduction_is_the_truncated_svd(rows, columns, dtype):
    matrix = noise(rows, columns).to(dtype)
    found = reduce(matrix, {"fraction": 0.5})
    rank = min(rows, columns) // 2
    expected, values = truncated(matrix, rank)
    assert found.matrix.dtype == dtype
    assert found.matrix.is_contiguous()
    assert (found.rank, found.of) == (rank, min(rows, columns))
    if dtype == torch.bfloat16:
        assert found.matrix.equal(expected.to(dtype))
    else:
        torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-12)
    assert found.energy == pytest.approx((values[:rank] ** 2).sum() / (values**2).sum())
    original = matrix.to(torch.float64)
    change = torch.linalg.norm(found.matrix.to(torch.float64) - original) / torch.linalg.norm(original)
    assert found.change == pytest.approx(change.item())


def test_change_in_closed_form():
    # diag(3, 2, 1): dropping 1 of them changes sqrt(1 / 14), and 13 / 14 of the energy stay
    found = reduce(torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)), {"fraction": 0.7})
    assert found.energy == pytest.approx(13 / 14)
    assert found.change == pytest.approx(math.sqrt(1 / 14))


def test_nothing_to_cut_changes_no_bit():
    matrix = noise(9, 5).to(torch.bfloat16)
    assert reduce(matrix, {"fraction": 1.0}).matrix.equal(matrix)
    zero = torch.zeros(6, 4, dtype=torch.bfloat16)
    assert reduce(zero, "marchenko-pastur").matrix.equal(zero)


def test_threads_change_no_bit_of_16_bit_weights():
    matrix = (0.05 * noise(192, 128)).to(torch.bfloat16)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(reduce(matrix, {"fraction": 0.3}).matrix)
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1])
