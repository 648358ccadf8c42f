"""LASER's decompositions and approximations, against closed forms, numpy's full SVD, and hard spectra."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from herdbook.inference.threads import one_thread_a_matrix
from herdbook.recipe import rank_rule
from herdbook.steps.laser.decompose import approximate, decompose, round_once, singular_values, tolerance
from herdbook.steps.laser.reduce import reduce
from herdbook.steps.laser.store import DecompositionStore


def noise(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(values, rows, columns, seed=0):
    """Return a matrix with these singular values."""
    left = torch.linalg.qr(noise(rows, len(values), seed)).Q
    right = torch.linalg.qr(noise(columns, len(values), seed + 1)).Q
    return (left * torch.tensor(values, dtype=torch.float64)) @ right.T


def truncated(matrix, rank):
    """Return the best approximation of a rank by numpy's full SVD, and the singular values."""
    u, s, v = np.linalg.svd(matrix.to(torch.float64).numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank]), s


def reduced(matrix, rule):
    return reduce(matrix, decompose(matrix), rank_rule(rule))


@pytest.mark.parametrize(("rows", "columns"), [(40, 24), (24, 40), (32, 32)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_reduction_is_the_truncated_svd(rows, columns, dtype, share):
    matrix = noise(rows, columns).to(dtype)
    found = reduced(matrix, {"fraction": share})
    rank = int(min(rows, columns) * share)
    expected, values = truncated(matrix, rank)
    assert found.matrix.dtype == dtype
    assert found.matrix.is_contiguous()
    assert (found.evidence["rank"], found.evidence["of"]) == (rank, min(rows, columns))
    if dtype == torch.bfloat16:
        assert found.matrix.equal(round_once(expected, dtype))
    else:
        torch.testing.assert_close(found.matrix, expected, rtol=0, atol=1e-12)
    energy = (values[:rank] ** 2).sum() / (values**2).sum()
    assert found.evidence["energy"] == pytest.approx(energy, rel=1e-5)
    original = matrix.to(torch.float64)
    change = torch.linalg.norm(found.matrix.to(torch.float64) - original) / torch.linalg.norm(original)
    assert found.evidence["change"] == pytest.approx(change.item(), rel=1e-5)


HARD = {
    "flat": [1.0] * 24,
    "repeated": [3.0] * 8 + [2.0] * 8 + [1.0] * 8,
    "decaying": [10.0**-i for i in range(24)],
    "deficient": [5.0, 4.0, 3.0] + [0.0] * 21,
    "one large": [1e6] + [1.0] * 23,
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize(("rows", "columns"), [(24, 24), (70, 24), (24, 70)])
@pytest.mark.parametrize("rank", [1, 3, 8, 20])
def test_error_is_the_least_that_the_rank_allows(name, rows, columns, rank):
    # Eckart and Young: no matrix of the rank is nearer than the root of the dropped values' squares. Where values are
    # equal the best one is not unique, but its distance is.
    matrix = with_spectrum(HARD[name], rows, columns)
    found = approximate(matrix, decompose(matrix), rank)
    least = math.sqrt(sum(value**2 for value in HARD[name][rank:]))
    scale = max(HARD[name])
    assert torch.linalg.norm(matrix - found).item() == pytest.approx(least, abs=1e-7 * scale)
    assert torch.linalg.matrix_rank(found, atol=1e-7 * scale).item() <= rank


@pytest.mark.parametrize(
    "rule", [1, {"fraction": 0.5}, {"energy": 0.9}, "mp-edge", "gavish-donoho", "laser-rmt"]
)
@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1), (6, 4)])
def test_degenerate_matrices_are_left_alone(rule, shape):
    zero = torch.zeros(shape, dtype=torch.bfloat16)
    assert reduced(zero, rule).matrix.equal(zero)
    if min(shape) == 1:
        row = noise(*shape).to(torch.bfloat16)
        assert reduced(row, rule).matrix.equal(row)


def test_change_in_closed_form():
    # diag(3, 2, 1): dropping 1 of them changes sqrt(1 / 14), and 13 / 14 of the energy stay
    found = reduced(torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)), {"fraction": 0.7})
    assert found.evidence["energy"] == pytest.approx(13 / 14, rel=1e-5)
    assert found.evidence["change"] == pytest.approx(math.sqrt(1 / 14), rel=1e-5)


def test_nothing_to_cut_changes_no_bit():
    matrix = noise(9, 5).to(torch.bfloat16)
    assert reduced(matrix, {"fraction": 1.0}).matrix.equal(matrix)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_threads_change_no_bit(dtype):
    matrix = (0.05 * noise(300, 200)).to(dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with one_thread_a_matrix():
                found.append(reduced(matrix, {"fraction": 0.3}).matrix)
    finally:
        torch.set_num_threads(before)
    assert all(other.equal(found[0]) for other in found)


def nearest(value, candidates):
    """Return the candidate nearest to a value, exactly; of two the one whose last bit is zero."""
    exact = Fraction(value)
    return min(candidates, key=lambda c: (abs(Fraction(c.item()) - exact), c.view(torch.int16).item() & 1))


def test_rounding_happens_once():
    # A hair above the middle of two bfloat16: through float32 it lands on the middle and then on the even neighbour.
    low, high = torch.tensor([1.0]).bfloat16(), torch.tensor([1.0 + 2.0**-7]).bfloat16()
    above = torch.tensor([1 + 2.0**-8 + 2.0**-30], dtype=torch.float64)
    assert above.to(torch.bfloat16).equal(low), "torch rounds twice: if no more, round_once can go"
    assert round_once(above, torch.bfloat16).equal(high)
    assert round_once(-above, torch.bfloat16).equal(-high)
    values = noise(1, 4000)[0] * torch.logspace(-6, 3, 4000, dtype=torch.float64)
    assert round_once(values, torch.float16).numpy().tolist() == values.numpy().astype(np.float16).tolist()
    for value, found in zip(values[:200], round_once(values[:200], torch.bfloat16), strict=True):
        around = found.view(torch.int16) + torch.tensor([-1, 0, 1], dtype=torch.int16)
        assert nearest(value.item(), list(around.view(torch.bfloat16))) == found


@pytest.mark.parametrize(("rows", "columns"), [(120, 60), (60, 120)])
def test_another_way_to_compute_stays_within_the_tolerance(rows, columns):
    matrix = noise(rows, columns)
    decomposition = decompose(matrix)
    for rank in (5, 20, 55):
        bound = tolerance(decomposition, rank, rows, columns)
        other, _ = truncated(matrix, rank)
        difference = torch.linalg.norm(approximate(matrix, decomposition, rank) - other) / torch.linalg.norm(
            matrix
        )
        assert difference.item() < bound < 1e-9
    assert tolerance(decompose(torch.eye(6, dtype=torch.float64)), 3, 6, 6) == math.inf


@pytest.mark.parametrize(("rows", "columns"), [(120, 60), (60, 120), (60, 60)])
def test_what_another_device_would_do_stays_within_the_tolerance(rows, columns):
    # "cpu:0" goes the way of a GPU: other libraries for every operation, on the same processor.
    matrix = noise(rows, columns)
    decomposition, other = decompose(matrix), decompose(matrix, "cpu:0")
    assert not np.array_equal(decomposition.basis, other.basis)
    for rank in (5, 20, 55):
        ours, theirs = approximate(matrix, decomposition, rank), approximate(matrix, other, rank, "cpu:0")
        difference = torch.linalg.norm(ours - theirs) / torch.linalg.norm(matrix)
        assert 0 < difference.item() < tolerance(decomposition, rank, rows, columns)
    np.testing.assert_allclose(singular_values(matrix, "cpu:0"), decomposition.values, atol=1e-10)
    np.testing.assert_allclose(singular_values(matrix), decomposition.values, atol=1e-10)


def test_the_tolerance_follows_the_gap():
    narrow = tolerance(decompose(with_spectrum([2.0, 1.0 + 1e-6, 1.0], 30, 3)), 2, 30, 3)
    wide = tolerance(decompose(with_spectrum([2.0, 1.5, 1.0], 30, 3)), 2, 30, 3)
    # Sums over kept and dropped pairs of (s_i^2 + s_j^2) / (s_i^2 - s_j^2)^2, over the norm of all values: by hand
    # 2 / (2e-6)^2 over 6, and 5 / 9 + 3.25 / 1.25^2 over 7.25.
    expected = math.sqrt(2) / 2e-6 / math.sqrt(6) / math.sqrt((5 / 9 + 3.25 / 1.25**2) / 7.25)
    assert narrow / wide == pytest.approx(expected, rel=1e-3)


def test_a_decomposition_is_made_once(tmp_path, monkeypatch):
    made = []

    def counted(matrix, device):
        made.append(matrix.shape)
        return decompose(matrix, device)

    monkeypatch.setattr("herdbook.steps.laser.store.decompose", counted)
    matrix, store = noise(12, 8), DecompositionStore(tmp_path)
    first = store.decomposition(matrix, "a" * 64)
    assert np.array_equal(store.decomposition(matrix, "a" * 64).basis, first.basis)
    assert np.array_equal(store.values(matrix, "a" * 64), first.values)
    assert len(made) == 1
    store.decomposition(matrix, "b" * 64)
    assert len(made) == 2


@pytest.mark.parametrize("what", ["values", "vectors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_decomposition_is_made_again(tmp_path, what, harm):
    matrix, store = noise(12, 8), DecompositionStore(tmp_path)
    first = store.decomposition(matrix, "a" * 64)
    (path,) = tmp_path.rglob(f"*.{what}.safetensors")
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[2 if what == "values" else -5] ^= 0xFF
        path.write_bytes(data)
    elif harm == "cut":
        path.write_bytes(data[:-9])
    else:
        path.unlink()
    again = store.decomposition(matrix, "a" * 64)
    assert np.array_equal(again.basis, first.basis)
    assert np.array_equal(again.values, first.values)
    assert np.array_equal(store.values(matrix, "a" * 64), first.values)
