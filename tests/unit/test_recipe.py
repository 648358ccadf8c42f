"""Recipes: all problems at once, each with its key; nothing unsafe is read."""

import locale
from pathlib import Path

import pytest

from herdbook import recipe as recipes
from herdbook.errors import RecipeError
from herdbook.faults import in_words
from herdbook.recipe.hub_values import LANGUAGES
from herdbook.recipe.laser import MATRIX_PATTERN

GOOD = """
models:
  base: {folder: somewhere}
  tuned: {adapter: there, on: base}
  cut: {laser: tuned, rank: {fraction: 0.5}, matrices: [mlp.down_proj], layers: 1-3}
  mix:
    moe:
      base: base
      experts:
        - {model: cut, prompts: [one]}
        - {model: base, prompts: [two]}
release: {model: mix, name: Mix, license: apache-2.0}
"""


def problems(text):
    with pytest.raises(RecipeError) as caught:
        recipes.parse(text, "r.yaml")
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()


def test_good_recipe():
    recipe = recipes.parse(GOOD)
    assert list(recipe.models) == ["base", "tuned", "cut", "mix"]
    assert recipes.parents(recipe.models["mix"]) == ("base", "cut", "base")
    assert recipes.parents(recipe.models["tuned"]) == ("base",)  # `on` is a key, not YAML 1.1's true
    assert recipe.shard_bytes == 2_000_000_000


def test_one_fault_of_a_mixture_is_told_in_one_line():
    (line,) = problems(GOOD.replace("prompts: [one]", "prompts: one"))
    assert line == "r.yaml: models.mix.moe.experts.0.prompts: expected a list (found 'one')"


def test_an_adapter_in_the_form_of_a_model_is_told_in_one_line():
    (line,) = problems(
        "models:\n  base: {folder: b}\n  x: {adapter: {folder: a, license: mit}, on: base}\n"
        "release: {model: x, name: X, license: mit}\n"
    )
    assert "models.x.adapter: a folder is written `adapter: path`" in line


def patterns(schema):
    """Return the regular expressions in a schema that texts must match."""
    if isinstance(schema, dict):
        own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
        return own.union(*map(patterns, schema.values()))
    return set().union(*map(patterns, schema)) if isinstance(schema, list) else set()


def test_no_regular_expression_is_shown_to_a_person():
    matrix = {MATRIX_PATTERN}  # which has a message of its own
    for pattern in patterns(recipes.json_schema()) - matrix:
        assert in_words({"type": "string_pattern_mismatch", "input": "!", "ctx": {"pattern": pattern}}), (
            pattern
        )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "publish: {tag: v 1}",
            "publish.tag: 'v 1' is not a name of letters, digits, '.', '_' and '-', of which",
        ),
        ("publish: {gguf_repo: tiny}", "publish.gguf_repo: 'tiny' is not owner/name of a repository"),
        ("shard_size: 5 GB", "shard_size: '5 GB' is not a size such as 5GB"),
        ("quantize: {methods: [Q8_0], split: 0MB}", "quantize.split: '0MB' is not a size such as 5GB"),
    ],
)
def test_a_text_of_another_form_is_told_in_words(section, message):
    assert any(message in line for line in problems(f"{GOOD}{section}\n"))


def test_licenses_and_languages_are_kept_as_they_are_written():
    own = "license: other, license_name: herd-1.0, license_link: 'https://example.org/l', language: [no, nds, code]"
    release = recipes.parse(GOOD.replace("license: apache-2.0", own)).release
    assert (release.license, release.license_name, release.license_link) == (
        "other",
        "herd-1.0",
        "https://example.org/l",
    )
    assert release.language == ["no", "nds", "code"]


def test_the_languages_include_those_of_python_s_locales():
    names = {name.partition("_")[0].partition(".")[0] for name in locale.locale_alias.values()}
    no_codes = {
        "iw",
        "pd",
        "ph",
        "pp",
    }  # one that was withdrawn for he, and three that ISO 639-1 does not have
    assert {name for name in names if len(name) == 2} - no_codes <= LANGUAGES
    assert len(LANGUAGES) == 184


def test_all_problems_at_once_each_with_file_and_key():
    text = (
        GOOD.replace("license", "licence")
        .replace("on: base", "onto: base")
        .replace("fraction: 0.5", "fraction: 2")
    )
    lines = problems(text)
    assert all(line.startswith("r.yaml: ") for line in lines)
    assert "r.yaml: release.licence: unknown key; did you mean 'license'?" in lines
    assert not any("release.license: missing" in line for line in lines)  # it follows
    assert any("models.tuned.onto: unknown key" in line for line in lines)
    assert not any("models.tuned.on: missing" in line for line in lines)
    assert any("models.cut.rank" in line and "at most 1" in line for line in lines)
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "prompts: [one]",
            "prompt: [one]",
            "models.mix.moe.experts.0.prompt: unknown key; did you mean 'prompts'?",
        ),
        (
            "model: cut",
            "model: cutt",
            "models.mix.moe.experts.0.model: no model is named 'cutt'; did you mean 'cut'?",
        ),
        (
            "release: {model: mix",
            "release: {model: max",
            "release.model: no model is named 'max'; did you mean 'mix'?",
        ),
        ("laser: tuned", "laser: mix", "models: a model cannot be made from itself: cut -> mix -> cut"),
        ("layers: 1-3", "layers: one", "models.cut.layers"),
        (
            "matrices: [mlp.down_proj]",
            "matrices: []",
            "models.cut.matrices: list at least one item, and each only once",
        ),
        (
            "prompts: [two]",
            "prompts: []",
            "models.mix.moe.experts.1.prompts: gate 'ridge' needs at least one prompt",
        ),
        (
            "base: base\n",
            "base: base\n      experts_per_token: 3\n",
            "models.mix.moe.experts_per_token: cannot choose 3 of 2",
        ),
        (
            "folder: somewhere",
            "folder: somewhere, hub: a/b",
            "models.base: a model is made in exactly one way",
        ),
        ("{folder: somewhere}", "{}", "models.base: a model is made in exactly one way"),
        ("folder: somewhere", "hub: only-a-name", "models.base.hub"),
        ("folder: somewhere", "pypi: a>=1", "models.base.pypi"),
        ("  base: {", "  Base: {", "models.Base"),
        ("name: Mix", "name: ../Mix", "release.name"),
        (
            "license: apache-2.0",
            "license: Apache 2.0",
            "release.license: 'Apache 2.0' is not a license identifier of the Hub; did you mean 'apache-2.0'?",
        ),
        ("license: apache-2.0", "license: CC-BY-4.0", "release.license: 'CC-BY-4.0' is not a license"),
        ("license: apache-2.0", "license: CC-BY-4.0", "did you mean 'cc-by-4.0'?"),
        (
            "license: apache-2.0",
            "license: ours",
            "'ours' is not a license identifier of the Hub; for one that it does not list, write 'other', license_name",
        ),
        (
            "license: apache-2.0",
            "license: other",
            "release: license 'other' needs license_name and license_link; license_name is missing",
        ),
        (
            "license: apache-2.0",
            "license: other, license_name: ours",
            "release: license 'other' needs license_name and license_link; license_link is missing",
        ),
        (
            "license: apache-2.0",
            "license: other, license_name: ours, license_link: terms.html",
            "release.license_link",  # a release contains no such file
        ),
        ("apache-2.0", "other, license_name: Our Own, license_link: https://a.org", "release.license_name"),
        (
            "license: apache-2.0",
            "license: mit, license_name: ours",
            "release: license_name belongs to license 'other'; 'mit' has its name on the Hub",
        ),
        (
            "name: Mix",
            "name: Mix, language: [English]",
            "release.language.0: 'English' is not a language code of ISO 639; did you mean 'en'?",
        ),
        ("name: Mix", "name: Mix, language: [pt-BR]", "did you mean 'pt'?"),
        ("name: Mix", "name: Mix, language: [multilingua]", "did you mean 'multilingual'?"),
        (
            "name: Mix",
            "name: Mix, language: [jp]",
            "release.language.0: 'jp' is not a language code of ISO 639",
        ),
        ("name: Mix", "name: Mix, language: [en, de, en]", "release.language: 'en' is listed twice"),
        ("name: Mix", "name: Mix, language: []", "release.language: "),
        ("\nrelease", "\nshard_size: 0GB\nrelease", "shard_size"),
        (
            "\nrelease",
            "\nquantize: {methods: [Q8_0, Q8_0]}\nrelease",
            "quantize.methods: a method is named twice",
        ),
        ("\nrelease", "\nquantize: {methods: [Q9]}\nrelease", "quantize.methods.0"),
        (
            "\nrelease",
            "\npublish: {gguf_repo: herd/a-GGUF}\nrelease",
            "publish.gguf_repo: the recipe has no `quantize.methods`",
        ),
        ("\nrelease", "\nevaluate: {tasks: [t], models: [base, base]}\nrelease", "a model is named twice"),
        *(
            ("\nrelease", f"\nevaluate: {{tasks: [t], models: [base], compare: {wrong}}}\nrelease", message)
            for wrong, message in (
                (
                    "{base: [bas]}",
                    "evaluate.compare.base.0: 'bas' is not in evaluate.models; did you mean 'base'?",
                ),
                ("{base: [base]}", "evaluate.compare.base: a model is compared with itself"),
                ("{base: []}", "evaluate.compare.base: no model to compare with"),
            )
        ),
        *(
            ("\nrelease", f"\nclaims: [{{text: x, by: y, {claim}}}]\nrelease", message)
            for claim, message in (
                (
                    "rank: {leaderboard: b, place: 1}",
                    "claims.0.rank.leaderboard: no leaderboard is named 'b'",
                ),
                ("rank: {leaderboard: b, place: 0}", "claims.0.rank.place"),
                (
                    "better: {than: base, task: t}",
                    "claims.0.better: evaluate.compare does not compare 'mix' with 'base'",
                ),
                ("waived: no", "waived: nothing is checked without `rank` or `better`"),
            )
        ),
        *(
            (
                "\nrelease",
                f"\nevaluate: {{tasks: [t], models: [{measured}]}}\nmarks: [{{task: t, metric: acc{wrong}}}]\nrelease",
                message,
            )
            for measured, wrong, message in (
                ("base", ", at_least: 0.5", "marks: 'mix', which must reach them, is not in evaluate.models"),
                ("base, mix", "", "give one of at_least, at_most, no_worse_than"),
                (
                    "base, mix",
                    ", at_least: 0.5, at_most: 0.6",
                    "give one of at_least, at_most, no_worse_than",
                ),
                ("base, mix", ", at_least: .nan", "marks.0.at_least"),
                ("base, mix", ", no_worse_than: mix", "the released model is compared with itself"),
                (
                    "base, mix",
                    ", no_worse_than: bas",
                    "'bas' is not in evaluate.models; did you mean 'base'?",
                ),
            )
        ),
    ],
)
def test_each_problem_names_its_key(old, new, expected):
    assert old in GOOD
    lines = problems(GOOD.replace(old, new, 1))
    assert any(expected in line for line in lines), lines


def test_leaderboard_needs_a_measured_release():
    board = (
        "\nleaderboards: {b: {snapshot: s.csv, title: t, as_of: 2026-01-01, source: s, model_column: m, score_column: s, "
        "direction: lower, task: t, metric: m}}"
    )
    assert "the recipe has no `evaluate`" in problems(GOOD + board)[0]
    measured = GOOD + "\nevaluate: {tasks: [t], models: [base]}" + board
    assert "does not measure 'mix'" in problems(measured)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: {a: {folder: x}, a: {folder: y}}", "duplicate key 'a'"),
        ("models: {1: {folder: x}}", "the key 1 is not text"),
        ("models: [", "line 1"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("models: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
)
def test_bad_yaml_is_one_message(text, expected):
    (line,) = problems(text)
    assert expected in line


def test_missing_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nothing\.yaml: cannot be read: No such file"):
        recipes.load(tmp_path / "nothing.yaml")


def test_random_gates_need_no_prompts():
    text = GOOD.replace("prompts: [one]", "prompts: []").replace("prompts: [two]", "prompts: []")
    assert problems(text)
    recipes.parse(text.replace("base: base\n", "base: base\n      gate: random\n", 1))


def test_the_repository_s_recipe_is_good():
    recipes.load(Path(__file__).parents[2] / "config" / "miniature.yaml")
