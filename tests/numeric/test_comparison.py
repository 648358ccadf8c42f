"""Paired comparisons against closed forms, naive loops and scipy, on made-up samples with known answers."""

import itertools
import math
import random
from decimal import Decimal

import numpy as np
import pytest

from herdbook.comparison import paired as module
from herdbook.comparison.compare import Measured, Wanted, as_json, compare
from herdbook.comparison.paired import DRAWN, EXACT, FLIPS, paired
from herdbook.comparison.samples import Sample, SamplesError, pack, unpack
from herdbook.comparison.verdict import ALPHA, BETTER, SAME, UNTESTED, WORSE, from_json, holm, judge, too_few


def decimals(values):
    return [Decimal(str(value)) for value in values]


def ones(values):
    return paired(decimals(values), [1] * len(values))


@pytest.mark.parametrize(
    ("wins", "losses", "ties"), [(8, 1, 5), (3, 3, 0), (1, 0, 9), (40, 12, 100), (0, 6, 1)]
)
def test_right_and_wrong_answers_give_mcnemars_exact_test(wins, losses, ties):
    from scipy.stats import binomtest

    found = ones([1] * wins + [-1] * losses + [0] * ties)
    assert found.p == pytest.approx(binomtest(wins, wins + losses).pvalue, rel=1e-12)
    assert found.test == EXACT
    assert found.difference == pytest.approx((wins - losses) / (wins + losses + ties))


def test_few_differences_are_tried_with_all_signs():
    values = [0.31, -0.12, 0.4, 0.05, -0.02, 0.22, 0.08]
    observed = abs(sum(map(Decimal, map(str, values))))
    flipped = [
        abs(sum(sign * Decimal(str(value)) for sign, value in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    found = ones(values)
    assert found.p == sum(total >= observed for total in flipped) / 2**7
    assert found.least_p == 2 / 2**7


def test_sums_that_are_equal_count_as_equal():
    # 0.1 + 0.2 - 0.3 is 0 in decimals and 5.6e-17 in binary
    assert ones([0.1, 0.2, -0.3]).p == 1


def test_many_differences_are_near_the_normal_limit_and_near_scipys():
    from scipy.stats import permutation_test

    draw = random.Random(5)
    values = [round(draw.gauss(0.11, 1), 6) for _ in range(300)]
    found = ones(values)
    z = abs(sum(values)) / math.sqrt(sum(value * value for value in values))
    assert found.test == DRAWN
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    peer = permutation_test(
        (np.array(values),),
        np.sum,
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    )
    assert found.p == pytest.approx(peer.pvalue, abs=0.02)
    assert found.p >= 1 / (FLIPS + 1)


def test_interval_is_that_of_a_bootstrap_and_near_the_normal_one():
    draw = random.Random(9)
    values = [round(draw.gauss(0.2, 1), 6) for _ in range(400)]
    found = ones(values)
    error = np.std(values, ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(np.mean(values) - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(np.mean(values) + 1.96 * error, abs=0.2 * error)


def test_sizes_weigh_documents_and_their_draw():
    values, sizes = [3.0, -1.0, 2.0], [10, 20, 5]
    found = paired(decimals(values), sizes)
    assert found.difference == pytest.approx(4 / 35)
    ratios = [
        sum(values[i] for i in chosen) / sum(sizes[i] for i in chosen)
        for chosen in itertools.product(range(3), repeat=3)
    ]
    assert min(ratios) <= found.low <= found.difference <= found.high <= max(ratios)
    assert found.low == pytest.approx(min(ratios))  # 3 of 81 draws are all of one document: over 2.5 %
    assert found.high == pytest.approx(max(ratios))


def test_numbers_too_large_for_64_bits_lose_only_last_digits():
    values = [Decimal(10**14) + Decimal(number).scaleb(-8) for number in range(-20, 20)]
    found = paired(values, [1] * 40)
    assert (found.p, found.test) == (1 / (FLIPS + 1), DRAWN)
    assert found.difference == pytest.approx(10**14)


def test_chunks_do_not_change_the_result(monkeypatch):
    draw = random.Random(2)
    values = [round(draw.gauss(0.1, 1), 4) for _ in range(64)]
    whole = ones(values)
    monkeypatch.setattr(module, "CHUNK_BYTES", 64 * 8 * 7)
    assert ones(values) == whole


def test_equal_models_do_not_differ():
    found = ones([0] * 20)
    assert (found.p, found.difference, found.low, found.high) == (1, 0, 0, 0)


def test_no_document_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        paired([], [])


def test_holm_by_hand_and_by_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    draw = random.Random(3)
    for _ in range(50):
        own = [draw.random() ** 3 for _ in range(6)]
        corrected = holm(own)
        rejected, left = set(), sorted(range(6), key=own.__getitem__)
        while left and own[left[0]] <= ALPHA / len(left):  # step down, as Holm has it
            rejected.add(left.pop(0))
        assert {index for index, p in enumerate(corrected) if p <= ALPHA} == rejected


@pytest.mark.slow
def test_level_is_kept_when_nothing_differs():
    """Of 200 pairs of equal models, about one in twenty is called different."""
    draw = random.Random(11)
    low = sum(ones([draw.choice((-1, 0, 1)) for _ in range(60)]).p <= ALPHA for _ in range(200))
    assert low <= 20


def measured(rights, metric="acc", *, aggregation="mean", higher=True, value=None):
    samples = [Sample("t", number, f"{number:x}", {metric: right}) for number, right in enumerate(rights)]
    mean = sum(rights) / len(rights) if value is None else value
    entry = {"value": mean, "higher_is_better": higher, "aggregation": aggregation}
    content, sha256 = pack(samples)
    return Measured({"t": {"metrics": {metric: entry}}}, unpack(content, sha256))


GOOD, BAD, EVEN = [1] * 18 + [0] * 6, [0] * 12 + [1] * 6 + [0] * 6, [1] * 17 + [0] * 6 + [1]


def test_verdicts_in_words():
    models = {"good": measured(GOOD), "bad": measured(BAD), "even": measured(EVEN)}
    wanted = [Wanted(*pair, "t", "acc") for pair in (("good", "bad"), ("bad", "good"), ("good", "even"))]
    found = compare(wanted, models)
    assert [item.verdict for item in found] == [BETTER, WORSE, SAME]
    assert found[0].p == pytest.approx(2 / 2**12, rel=1e-5)  # twelve documents, all in one direction
    assert found[0].corrected == pytest.approx(3 * 2 / 2**12, rel=1e-5)
    assert found[0].documents == 24
    assert from_json(as_json(found)) == found
    assert judge(found, [True] * 3) == found


def test_lower_is_better_turns_the_verdict():
    models = {name: measured(own, "loss", higher=False) for name, own in (("a", GOOD), ("b", BAD))}
    assert compare([Wanted("a", "b", "t", "loss")], models)[0].verdict == WORSE


def test_as_many_comparisons_make_a_difference_no_longer_measurable():
    models = {"a": measured([1] * 7), "b": measured([0] * 7)}
    wanted = [Wanted("a", "b", "t", "acc")]
    assert compare(wanted, models)[0].verdict == BETTER  # p is 2 / 128
    assert {item.verdict for item in compare(wanted * 4, models)} == {SAME}
    assert too_few(compare(wanted * 4, models))
    assert not too_few(compare(wanted, models))


def test_bits_per_byte_are_compared_by_the_length_of_documents():
    ours, theirs, lengths = [-70.5, -30.25, -11.0], [-71.5, -33.25, -10.0], [100, 40, 20]
    models = {}
    for name, nats in (("a", ours), ("b", theirs)):
        samples = [
            Sample("t", number, "x", {"bits_per_byte": pair})
            for number, pair in enumerate(zip(nats, lengths, strict=True))
        ]
        value = -sum(nats) / sum(lengths) / math.log(2)
        entry = {"value": float(f"{value:.6g}"), "higher_is_better": False, "aggregation": "bits_per_byte"}
        models[name] = Measured({"t": {"metrics": {"bits_per_byte": entry}}}, unpack(*pack(samples)))
    (found,) = compare([Wanted("a", "b", "t", "bits_per_byte")], models)
    assert found.difference == pytest.approx((-1 - 3 + 1) / 160 / math.log(2), rel=1e-5)
    assert found.verdict == SAME
    assert found.p == pytest.approx(6 / 8)  # of 1, 3 and 1, only 3 - 1 - 1 is nearer to 0 than 3


def test_a_metric_that_is_no_mean_is_not_tested():
    models = {name: measured(own, aggregation="f1") for name, own in (("a", GOOD), ("b", BAD))}
    (found,) = compare([Wanted("a", "b", "t", "acc")], models)
    assert (found.verdict, found.p) == (UNTESTED, None)


def test_other_documents_and_other_values_are_refused():
    wanted = [Wanted("a", "b", "t", "acc")]
    with pytest.raises(SamplesError, match="a and b were not measured on the same documents of t"):
        compare(wanted, {"a": measured(GOOD), "b": measured(GOOD[:-1])})
    with pytest.raises(SamplesError, match=r"gives 0\.75 as acc of a in t, and the measurement states 0\.9"):
        compare(wanted, {"a": measured(GOOD, value=0.9), "b": measured(GOOD)})


def test_samples_are_kept_whole_and_their_damage_is_named():
    samples = [Sample("t", 1, "ab", {"acc": 1, "f1": ["x", None], "bits_per_byte": [-1.25, 7]})]
    content, sha256 = pack(samples)
    (back,) = unpack(content, sha256)["t"]
    assert (back.document, back.sha256, dict(back.values)) == (1, "ab", dict(samples[0].values))
    assert pack(samples) == (content, sha256)
    for wrong, message in (
        (content[:-4], "cut off"),
        (content + b"x", "continued"),
        (b"no", "not a file of bzip2|cut off"),
        (pack([])[0], "other samples than were measured"),
    ):
        with pytest.raises(SamplesError, match=message):
            unpack(wrong, sha256)
