"""The sample of the level `equality`: what is drawn, and how likely it is that something is missed."""

from itertools import combinations

import pytest

from herdbook.verify.equality import BLOCK_BYTES, chance_of_catching, draw


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_chance_is_that_of_counting_all_samples(count):
    for touched in range(count + 1):
        samples = list(combinations(range(count), touched))
        for altered in range(1, count + 1):
            caught = sum(any(one < altered for one in sample) for sample in samples) / len(samples)
            assert chance_of_catching(altered, touched, count) == pytest.approx(caught, abs=1e-12)


def test_the_share_of_samples_that_catch_is_the_chance():
    """40 slices of one block, 3 altered, 6 drawn, 4000 seeds: within four standard errors."""
    sizes, altered = [BLOCK_BYTES] * 40, {0, 17, 39}
    caught = sum(
        any(block.slice in altered for block in draw(sizes, 6 * BLOCK_BYTES, seed)) for seed in range(4000)
    )
    chance = chance_of_catching(3, 6, 40)
    assert abs(caught / 4000 - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5


SIZES = [10, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES, 1, 2 * BLOCK_BYTES]


@pytest.mark.parametrize("sample", [1, BLOCK_BYTES, 4 * BLOCK_BYTES, 7 * BLOCK_BYTES, 10**9])
def test_blocks_lie_in_their_slices_apart_and_within_the_budget(sample):
    blocks = draw(SIZES, sample, seed=3)
    assert blocks
    assert len({(block.slice, block.start) for block in blocks}) == len(blocks)
    for block in blocks:
        assert block.start % BLOCK_BYTES == 0
        assert block.start < block.stop <= min(SIZES[block.slice], block.start + BLOCK_BYTES)
    if len(blocks) > 1:
        assert sum(block.stop - block.start for block in blocks) <= sample


def test_every_slice_has_a_block_before_one_has_two():
    for seed in range(50):
        found = draw([4 * BLOCK_BYTES] * 8, 8 * BLOCK_BYTES, seed)
        assert [block.slice for block in found] == list(range(8))


def test_a_large_sample_is_everything():
    blocks = draw(SIZES, 10**9, seed=0)
    assert sum(block.stop - block.start for block in blocks) == sum(SIZES)


def test_the_same_seed_draws_the_same_and_another_does_not():
    sizes = [40 * BLOCK_BYTES] * 20
    assert draw(sizes, 10**7, 5) == draw(sizes, 10**7, 5)
    assert draw(sizes, 10**7, 5) != draw(sizes, 10**7, 6)
