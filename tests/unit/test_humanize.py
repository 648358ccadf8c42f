"""Numbers as people read and write them."""

from decimal import Decimal

import pytest

from herdbook import humanize


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"), (70_210, "70.21 kB"),
        (4_368_439_584, "4.37 GB"), (2 * 10**12, "2.00 TB"), (999_994, "999.99 kB"), (999_999, "1.00 MB"),
        (999_999_999, "1.00 GB"), (999_999 * 10**9, "1000.00 TB"),
    ],
)  # fmt: skip
def test_sizes(size_bytes, text):
    assert humanize.size(size_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7"), (999_999, "999,999"), (1_000_000, "1.00 million"), (7_241_732_096, "7.24 billion"),
        (999_999_999, "1.00 billion"), (2 * 10**12, "2000.00 billion"),
    ],
)  # fmt: skip
def test_amounts(number, text):
    assert humanize.amount(number) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("500MB", 500_000_000), ("1.5 GB", 1_500_000_000), ("20KB", 20_000), ("20kB", 20_000), ("7", 7), ("7B", 7),
        ("2TB", 2 * 10**12), ("1.23456789GB", 1_234_567_890), ("0.1GB", 10**8),
    ],
)  # fmt: skip
def test_sizes_that_are_read(text, size_bytes):
    assert humanize.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "MB", "-1MB", "1GiB", "1e3", "1.0001kB", "0.5", "1 000", "٣MB", "1MB\n"]
)
def test_what_is_not_a_size(text):
    with pytest.raises(ValueError, match="is not a"):
        humanize.parse_size(text)


def test_what_was_written_is_read_within_its_decimals():
    for size_bytes in (1, 12, 999, 1000, 123_456, 98_765_432, 4_368_439_584):
        written = humanize.size(size_bytes).replace(" bytes", "").replace(" byte", "")
        assert humanize.parse_size(written) == pytest.approx(size_bytes, rel=0.005)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([7], "7"), ([3, 0, 1, 2, 7, 3], "0-3, 7"), (range(4, 6), "4-5"), ([1, 3, 5], "1, 3, 5")]
)  # fmt: skip
def test_ranges(numbers, text):
    assert humanize.ranges(numbers) == text


def test_plurals_ordinals_and_lists():
    assert [humanize.plural(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert humanize.plural(2, "entry", "entries") == "2 entries"
    assert [humanize.ordinal(number) for number in (1, 2, 3, 4, 11, 112, 1023)] == [
        "1st", "2nd", "3rd", "4th", "11th", "112th", "1,023rd",
    ]  # fmt: skip
    assert [humanize.joined("abc"[:count]) for count in range(4)] == ["", "a", "a and b", "a, b and c"]


def test_a_number_that_rounds_to_zero_has_no_minus():
    assert humanize.fixed(Decimal("-0.00001")) == "0.0000"
    assert humanize.signed(-0.00001) == "+0.0000"
    assert humanize.percent(Decimal("0.125")) == "12.5 %"


def test_the_name_that_was_meant():
    assert humanize.did_you_mean("licence", ["license", "repo"]) == "; did you mean 'license'?"
    assert humanize.did_you_mean("x", ["license", "repo"]) == ""
