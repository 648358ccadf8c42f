"""The table of files and the sentence on the release: computed from measurements, against naive loops and closed forms."""

from decimal import Decimal

import pytest

from herdbook.escape import file_link, titled
from herdbook.steps.card.choices import MEMORIES_GB, Choice, _in_short, _loss, fits, to_run
from herdbook.steps.card.results import Measurement, Score, TaskResult

CONFIG = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}
TOKEN_BYTES = 2 * 32 * 8 * 128 * 2


def measurement(**tasks):
    results = {
        name: TaskResult(
            name,
            name,
            10,
            "float32",
            {"acc": Score("acc", None if value is None else Decimal(value), None, higher)},
        )
        for name, (value, higher) in tasks.items()
    }
    return Measurement("m", "m", None, results, {}, {}, {})


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({"a": ("0.49", True), "b": ("1.01", False)}, "0.02"),
        ({"a": ("0.50", True), "b": ("1.05", False)}, "0.05"),
        ({"a": ("0.55", True), "b": ("0.99", False)}, "-0.01"),  # better everywhere: least so in the second
    ],
)
def test_loss_is_the_share_that_the_worst_task_loses(file, expected):
    full = measurement(a=("0.50", True), b=("1.00", False))
    assert _loss(full, measurement(**file)) == Decimal(expected)


def test_no_loss_is_stated_where_nothing_was_measured_or_a_share_does_not_exist():
    full = measurement(a=("0", True))
    assert _loss(full, full) is None
    assert _loss(None, full) is None
    assert _loss(full, None) is None


def choice(name, size_gb, **changes):
    size = int(size_gb * 10**9)
    return Choice(name, None if name == "full" else name, 4.0, size, size, "", **changes)


def test_the_largest_file_that_fits_and_its_context_are_those_of_a_naive_search():
    rows = [choice("full", 14.5), choice("Q8", 7.7), choice("Q4", 4.4)]
    expected = []
    for memory in MEMORIES_GB:
        fitting = [row for row in rows if row.size_bytes + 4096 * TOKEN_BYTES <= memory * 9 * 10**8]
        row = max(fitting, key=lambda row: row.size_bytes)
        tokens = 4096
        while tokens < 32768 and row.size_bytes + (tokens + 1) * TOKEN_BYTES <= memory * 9 * 10**8:
            tokens += 1
        if row.name not in [name for _, name, _ in expected]:
            expected.append((memory, row.name, tokens))
    assert [(fit.memory_gb, fit.choice.name, fit.tokens) for fit in fits(rows, CONFIG)] == expected
    assert [(memory, name) for memory, name, _ in expected] == [(8, "Q4"), (12, "Q8"), (24, "full")]


def test_a_very_large_model_is_given_the_memories_that_it_needs():
    """With 141 GB, 75 GB and 42 GB, as a model of 70 billion parameters has, nothing fits below 48 GB."""
    found = fits([choice("full", 141), choice("Q8", 75), choice("Q4", 42)], CONFIG)
    assert [(fit.memory_gb, fit.choice.name) for fit in found] == [(48, "Q4"), (96, "Q8"), (192, "full")]


def test_memory_is_not_spoken_of_where_it_leaves_no_choice():
    assert fits([choice("full", 0.75), choice("Q8", 0.4), choice("Q4", 0.27)], CONFIG) == ()
    assert fits([choice("full", 14.5)], CONFIG) == ()
    assert (
        fits([choice("full", 14.5), choice("Q8", 7.7)], {"d_model": 64}) == ()
    )  # of a context of unknown size
    tiny = [choice("full", 0.75), choice("Q8", 0.4), choice("Q4", 0.27)]
    assert [_in_short(row, None, tiny) for row in tiny[1:]] == ["llama.cpp"] * 2
    assert [_in_short(row, tiny[1], tiny) for row in tiny[1:]] == ["try this first", "smaller"]
    large = [choice("full", 14.5), choice("Q8", 7.7), choice("Q6", 6), choice("Q4", 4.4)]
    words = [_in_short(row, None, large) for row in large[1:]]
    assert words == ["most memory", "in between", "least memory"]
    words = [_in_short(row, large[2], large) for row in large[1:]]
    assert words == ["more memory", "try this first", "less memory"]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"full": 0.75, "Q8": 0.4, "Q4": 0.27}, "Q8"),
        ({"full": 14.5, "Q8": 7.7, "Q4": 4.4, "Q2": 2.7}, "Q4"),
        ({"full": 141, "Q8": 75, "Q4": 42}, "Q4"),
        ({"full": 0.75}, "full"),
    ],
)
def test_commands_name_the_largest_file_that_a_small_memory_has_room_for_unless_one_is_recommended(
    sizes, expected
):
    rows = [choice(name, size) for name, size in sizes.items()]
    assert to_run(rows).name == expected
    assert to_run([*rows, choice("best", 90, recommended=True)]).name == "best"


def test_only_names_and_web_addresses_become_links():
    assert file_link("a-1.Q4_K_M.gguf") == "[`a-1.Q4_K_M.gguf`](a-1.Q4_K_M.gguf)"
    assert file_link("a-1.Q4_K_M.gguf", "Q4_K_M") == "[`Q4_K_M`](a-1.Q4_K_M.gguf)"
    assert file_link("model-*-of-00002.safetensors") == "`model-*-of-00002.safetensors`"
    assert file_link("../a") == "`../a`"
    assert titled("https://example.org/a", "a|b") == "[a&#124;b](<https://example.org/a>)"
    assert titled("javascript:alert(1)", "a") == "a"
