"""LASER's rank rules and rankings, against published constants, plain integrals, and noise that was drawn."""

import math

import numpy as np
import pytest
import torch

from herdbook.recipe import rank_rule
from herdbook.steps.laser.law import NoiseLaw
from herdbook.steps.laser.rank import (
    gavish_donoho,
    keep,
    keep_energy,
    keep_fraction,
    laser_rmt,
    laser_rmt_snr,
    mp_edge,
    signal_to_noise,
)

MISTRAL = [(4096, 4096), (1024, 4096), (14336, 4096)]


def draw(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def values_of(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize(
    ("shape", "low", "high", "median", "factor"),
    # Smallest, largest and median singular value of noise in units of sigma sqrt(n), and the edge in medians, worked
    # out by another program for the shapes of Mistral-7B.
    [
        ((4096, 4096), 0.0, 2.000, 0.808, 2.475),
        ((1024, 4096), 0.500, 1.500, 0.957, 1.567),
        ((14336, 4096), 0.4655, 1.5345, 0.951, 1.614),
    ],
)
def test_law_of_noise_for_mistral_s_shapes(shape, low, high, median, factor):
    law = NoiseLaw(*shape)
    assert law.quantile(0) == pytest.approx(low, abs=5.1e-4)
    assert law.edge == pytest.approx(high, abs=5.1e-4)
    assert law.quantile(0.5) == pytest.approx(median, abs=5.1e-4)
    assert mp_edge(np.array([1.0]), *shape) == pytest.approx(factor, abs=5.1e-4)


@pytest.mark.parametrize(
    ("shape", "threshold", "kept"),
    [((4096, 4096), 1.296, 0.237), ((1024, 4096), 0.455, 1.000), ((14336, 4096), 0.499, 0.987)],
)
def test_laser_rmt_keeps_noise(shape, threshold, kept):
    law = NoiseLaw(*shape)
    noise = np.array([law.quantile(share) for share in (np.arange(8001) + 0.5) / 8001])
    found = laser_rmt(noise, *shape)
    assert found == pytest.approx(threshold, abs=5.1e-4)
    assert (noise > found).mean() == pytest.approx(kept, abs=1e-3)


@pytest.mark.parametrize(
    ("beta", "omega", "known"),
    # Gavish and Donoho 2014, arXiv:1305.5870, tables IV and I: the factors for noise that is not known, and known.
    [
        (0.05, 1.5194, 1.5066),
        (0.10, 1.6089, 1.5816),
        (0.25, 1.8371, None),
        (0.5, 2.1711, 1.9786),
        (1.0, 2.8582, 2.3094),
    ],
)
def test_thresholds_of_gavish_and_donoho(beta, omega, known):
    rows, columns = 2000, round(2000 * beta)
    assert gavish_donoho(np.array([1.0]), rows, columns) == pytest.approx(omega, abs=5e-4)
    if known:
        found = gavish_donoho(np.array([1.0]), rows, columns, sigma=0.02) / (0.02 * math.sqrt(rows))
        assert found == pytest.approx(known, abs=5e-4)
    approximation = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43  # the paper's, good to 0.02
    assert gavish_donoho(np.array([1.0]), rows, columns) == pytest.approx(approximation, abs=0.02)


@pytest.mark.parametrize(
    ("shape", "factor"), [((4096, 4096), 2.858), ((1024, 4096), 1.837), ((14336, 4096), 1.887)]
)
def test_gavish_and_donoho_for_mistral_s_shapes(shape, factor):
    assert gavish_donoho(np.array([1.0]), *shape) == pytest.approx(factor, abs=5.1e-4)


def test_known_noise_of_a_square_is_four_over_root_three():
    assert gavish_donoho(np.array([1.0]), 100, 100, sigma=1.0) == pytest.approx(4 / math.sqrt(3) * 10)


@pytest.mark.parametrize("beta", [0.07, 0.3, 1.0])
def test_law_against_a_plain_integral(beta):
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2
    x = np.linspace(low, high, 4_000_001)[1:-1]
    mass = np.cumsum(np.sqrt((high - x) * (x - low)) / (2 * math.pi * beta * x)) * (x[1] - x[0])
    law = NoiseLaw(10_000, round(10_000 * beta))
    for share in (0.25, 0.5, 0.75, 0.99):
        expected = math.sqrt(x[np.searchsorted(mass, mass[-1] * share)])
        assert law.quantile(share) == pytest.approx(expected, abs=1e-3)
        assert law.below(expected) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "columns"), [(200, 200), pytest.param(600, 200, marks=pytest.mark.slow), (200, 800)]
)
def test_of_pure_noise_nothing_is_signal(rows, columns):
    values = values_of(0.02 * draw(rows, columns))
    law = NoiseLaw(rows, columns)
    assert law.noise_level(values) == pytest.approx(0.02, rel=0.02)
    assert mp_edge(values, rows, columns) == pytest.approx(0.02 * (rows**0.5 + columns**0.5), rel=0.02)
    assert keep(rank_rule("mp-edge"), values, rows, columns).rank <= 3
    assert keep(rank_rule("gavish-donoho"), values, rows, columns).rank == 1
    assert keep(rank_rule({"gavish-donoho": 0.02}), values, rows, columns).rank == 1
    assert law.misfit(values) < 0.03


def test_misfit_tells_weights_from_noise():
    rows, columns = 300, 200
    noise = draw(rows, columns)
    signal = draw(rows, 5, 1) @ draw(5, columns, 2)
    law = NoiseLaw(rows, columns)
    assert law.misfit(values_of(noise + signal)) < 0.03
    assert law.misfit(np.geomspace(1, 0.01, columns)) > 0.1
    assert law.misfit(np.zeros(columns)) == 1.0


def test_planted_signals_are_kept():
    rows, columns, rank = 400, 300, 7
    planted = draw(rows, rank, 1) @ draw(rank, columns, 2)
    values = values_of(planted + draw(rows, columns, 3))
    assert keep(rank_rule("mp-edge"), values, rows, columns).rank == rank
    assert keep(rank_rule("gavish-donoho"), values, rows, columns).rank == rank
    assert keep(rank_rule({"gavish-donoho": 1.0}), values, rows, columns).rank == rank


def test_fraction_is_rounded_down_and_never_nothing():
    assert [keep_fraction(10, share) for share in (0.01, 0.19, 0.2, 0.999, 1.0)] == [1, 1, 2, 9, 10]


def test_energy_in_closed_form():
    # squares 16, 4, 4, 1 of 25: 0.64, 0.80, 0.96, 1
    values = np.array([4.0, 2.0, 2.0, 1.0])
    assert [keep_energy(values, share) for share in (0.1, 0.64, 0.65, 0.8, 0.9, 0.97, 1.0)] == [
        1,
        1,
        2,
        2,
        3,
        4,
        4,
    ]
    assert keep_energy(np.zeros(3), 0.9) == 1


def test_a_rank_is_at_most_what_there_is():
    assert keep(rank_rule(3), np.ones(5), 5, 9).rank == 3
    assert keep(rank_rule(99), np.ones(5), 5, 9).rank == 5


@pytest.mark.parametrize(
    "written", ["marchenko", 0, True, 0.5, {"fraction": 2}, {"energy": 0.5, "fraction": 0.5}]
)
def test_what_is_no_rule_is_refused(written):
    with pytest.raises(ValueError, match="not a rank rule: "):
        rank_rule(written)


@pytest.mark.parametrize(
    ("written", "label", "noise", "text"),
    [
        (8, "rank 8", False, False),
        ("mp-edge", "mp-edge", True, False),
        ("gavish-donoho", "gavish-donoho", True, False),
        ("laser-rmt", "laser-rmt", False, False),
        ({"fraction": 0.5}, "fraction 0.5", False, False),
        ({"energy": 0.99}, "energy 0.99", False, False),
        ({"gavish-donoho": 0.02}, "gavish-donoho 0.02", True, False),
        ({"svd-llm": 8}, "svd-llm, rank 8", False, True),
        ({"svd-llm": {"fraction": 0.5}}, "svd-llm, fraction 0.5", False, True),
    ],
    ids=str,
)
def test_a_rule_is_written_as_people_write_it_and_knows_what_it_needs(written, label, noise, text):
    rule = rank_rule(written)
    assert rule.canonical == written
    assert rank_rule(rule.canonical) == rule
    assert (rule.label, rule.assumes_noise, rule.needs_text) == (label, noise, text)


@pytest.mark.slow
def test_signal_to_noise_does_not_see_the_shape_where_laser_rmt_s_does():
    ours, theirs = [], []
    for rows, columns in [(240, 240), (960, 120), (120, 480)]:
        left, right = np.linalg.qr(draw(rows, 3, 1))[0], np.linalg.qr(draw(columns, 3, 2))[0]
        energy = 0.5 * rows * columns  # half of the noise's
        values = values_of(draw(rows, columns, 3) + math.sqrt(energy / 3) * left @ right.T)
        ours.append(signal_to_noise(values, rows, columns))
        theirs.append(laser_rmt_snr(values, rows, columns))
        noise = values_of(draw(rows, columns, 4))
        assert signal_to_noise(noise, rows, columns) < 0.02
    assert max(ours) / min(ours) < 1.1
    assert ours[0] == pytest.approx(0.5, rel=0.1)
    assert max(theirs) / min(theirs) > 10


def test_laser_rmt_as_written_out():
    # n x m Gaussian, their steps one by one: torch quantiles, the threshold, a sum above over a sum below
    values = values_of(draw(50, 40, 7))
    S = torch.from_numpy(values)
    sigma = (torch.quantile(S, 0.75) - torch.quantile(S, 0.25)) / 1.349
    threshold = sigma * math.sqrt((1 + math.sqrt(40 / 50)) ** 2)
    assert laser_rmt(values, 50, 40) == pytest.approx(threshold.item(), rel=1e-9)
    assert keep(rank_rule("laser-rmt"), values, 50, 40).rank == int((threshold < S).sum())
    expected = S[threshold < S].sum() / S[threshold >= S].sum()
    assert laser_rmt_snr(values, 50, 40) == pytest.approx(expected.item(), rel=1e-9)
