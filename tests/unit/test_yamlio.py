"""The one YAML loader: what it refuses, and how its two dialects differ."""

import pytest
import yaml

from herdbook import limits, yamlio

DIALECTS = [yamlio.RecipeLoader, yamlio.PyYamlLoader]


@pytest.mark.parametrize("loader", DIALECTS)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: duplicate key 'c'"),
        ("a: [1", "line 1, column 6"),
        ("? [1]\n: 2\n", "key"),
        ("x: !!python/object/apply:os.system ['id']", "constructor"),
        ("&x [*x]", "expands to more than"),
        ("[" * 3000, "nested too deeply"),
        ("a: !!set {b, c}", "line 1, column 4: could not determine a constructor for the tag '!!set'"),
        ("a: 1" + ":59" * 101, "line 1, column 4: refused: a number of 304 characters"),
        ("a: " + "b " * 300_000, "refused: it has 600,003 characters, over the limit of 500,000"),
    ],
)
def test_what_no_dialect_accepts(loader, text, problem):
    with pytest.raises(yamlio.YamlError) as caught:
        yamlio.load(text, loader)
    assert problem in str(caught.value)


@pytest.mark.parametrize("loader", DIALECTS)
def test_entries_have_a_limit(loader, monkeypatch):
    monkeypatch.setattr(limits, "YAML_ENTRIES", 1_000)
    assert len(yamlio.load("[" + "a," * 999 + "]", loader)) == 999
    with pytest.raises(yamlio.YamlError, match="refused: it contains more than 1,000 entries"):
        yamlio.load("[" + "a," * 1_001 + "]", loader)


def test_a_few_lines_that_stand_for_millions_of_entries():
    text = "\n".join(
        [
            "a0: &a0 [x, x]",
            *(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, 25)),
        ]
    )
    with pytest.raises(yamlio.YamlError, match="expands to more than"):
        yamlio.load(text)


@pytest.mark.parametrize(
    "text", ["on: yes", "a: 2024-02-03", "a: 2024-99-99", "1: x", "b: &b {c: 1}\na: {<<: *b, c: 2}"]
)
def test_the_dialect_of_other_programs_is_pyyaml_s(text):
    try:
        expected = yaml.safe_load(text)
    except ValueError:
        with pytest.raises(yamlio.YamlError):
            yamlio.load(text, yamlio.PyYamlLoader)
    else:
        assert yamlio.load(text, yamlio.PyYamlLoader) == expected


def test_a_recipe_has_text_where_yaml_1_1_has_booleans_and_dates():
    assert yamlio.load("on: yes\nday: 2024-02-03\nyes: [true, False, 1, 1.5]") == {
        "on": "yes", "day": "2024-02-03", "yes": [True, False, 1, 1.5],
    }  # fmt: skip
    with pytest.raises(yamlio.YamlError, match="the key 1 is not text"):
        yamlio.load("1: x")


def test_nothing_is_nothing():
    assert yamlio.load("") is None


def test_merges_have_a_limit_together(monkeypatch):
    base = "b: &b {" + ", ".join(f"k{n}: 1" for n in range(50)) + "}\n"
    text = base + "".join(f"a{n}: {{<<: *b}}\n" for n in range(9))
    assert len(yamlio.load(text, yamlio.PyYamlLoader)["a8"]) == 50
    monkeypatch.setattr(
        limits, "YAML_ENTRIES", 1050
    )  # more than it contains, and fewer than all merges construct
    assert yamlio.load(text, yamlio.PyYamlLoader)
    nested = base + "".join(
        f"a{n}: &a{n} {{<<: [*{'a' + str(n - 1) if n else 'b'}, *b]}}\n" for n in range(9)
    )
    with pytest.raises(yamlio.YamlError, match="refused: it (merges|expands to) more than 1,050 entries"):
        yamlio.load(nested, yamlio.PyYamlLoader)
