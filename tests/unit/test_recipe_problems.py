"""What is wrong with a recipe is told all at once: by the place of each problem, in words of our own, and without what only follows."""

import re

import pytest
from pydantic import TypeAdapter
from pydantic_core import ErrorDetails

from herdbook import recipe as recipes
from herdbook import yamlio
from herdbook.cli.main import main
from herdbook.errors import RecipeError, SourceError
from herdbook.faults import _FORMS, in_words
from herdbook.recipe.evaluate import Suite
from herdbook.recipe.references import named_in
from herdbook.recipe.whole import Model, Recipe, parents
from support import tiny

GOOD = """\
models:
  base: {folder: base}
  other: {folder: other}
  mix:
    merge:
      method: ties
      base: base
      models:
        - {model: other, weight: 1.0, density: 0.5}
  two:
    moe:
      base: base
      experts:
        - {model: base, prompts: [one]}
        - {model: mix, prompts: [two]}
  cut: {laser: base, rank: {fraction: 0.5}, matrices: [mlp.down_proj], layers: 1-3}
evaluate: {tasks: [t], models: [base, two]}
quantize: {methods: [Q8_0]}
calibration:
  text: {data: [text.jsonl], split: train, tokens: 100}
routing: {texts: [text]}
release:
  model: two
  name: Two
  license: apache-2.0
shard_size: 5GB
"""
# Of pydantic's and JSON Schema's validators: none of it may reach a person.
THEIRS = re.compile(
    r"[Ii]nput should|[Vv]alue error|should (be|have|match)|valid (string|list|dictionary|integer|number|boolean)"
    r"|is too (short|long)|permitted|[Ff]ield required|after validation|union_tag|discriminator|function-"
)


def lines(text):
    with pytest.raises(RecipeError) as caught:
        recipes.parse(text, "r.yaml")
    return caught.value.lines


def changed(*changes):
    text = GOOD
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def place(text, part):
    """Return the number of the line that has a part of the text, counted by hand."""
    (found,) = [number for number, line in enumerate(text.split("\n"), 1) if part in line]
    return found


def test_the_recipe_of_these_tests_is_good():
    recipes.parse(GOOD)


# --- each kind of fault ---------------------------------------------------------------------------------------------

KINDS = [
    # kind, what is written in place of what, the line with it, the message
    ("too_short", "        - {model: mix, prompts: [two]}\n", "", "experts:",
     "models.two.moe.experts: needs at least 2 entries (found 1)"),
    ("too_short of one", "texts: [text]", "texts: []", "routing", "routing.texts: is empty"),
    ("string_too_short", "{folder: base}", "{folder: ''}", "folder: ''", "models.base.folder: is empty"),
    ("list_type", "prompts: [one]", "prompts: one", "prompts: one",
     "models.two.moe.experts.0.prompts: expected a list (found 'one')"),
    ("string_type", "name: Two", "name: 7", "name: 7", "release.name: expected text (found 7)"),
    ("string_type of nothing", "name: Two", "name:", "name:", "release.name: expected text (found nothing)"),
    ("int_parsing", "tokens: 100", "tokens: many", "tokens: many",
     "calibration.text.tokens: expected a whole number (found 'many')"),
    ("int_from_float", "tokens: 100", "tokens: 1.5", "tokens: 1.5",
     "calibration.text.tokens: expected a whole number (found 1.5)"),
    ("bool_parsing", "method: ties", "method: ties\n      normalize: perhaps", "normalize",
     "models.mix.merge.normalize: expected true or false (found 'perhaps')"),
    ("dict_type", "routing: {texts: [text]}", "routing: {texts: [text]}\nleaderboards: [a]", "leaderboards",
     "leaderboards: expected a mapping of names to values (found a list of 1 entry)"),
    ("model_type", "quantize: {methods: [Q8_0]}", "quantize: Q8_0", "quantize",
     "quantize: expected a mapping of keys to values (found 'Q8_0')"),
    ("literal_error", "method: ties", "method: ties\n      dtype: bfloat61", "dtype",
     "models.mix.merge.dtype: 'bfloat61' is not one of bfloat16, float16 or float32; did you mean 'bfloat16'?"),
    ("union_tag_invalid", "method: ties", "method: teis", "teis", "; did you mean 'ties'?"),
    ("union_tag_not_found", "      method: ties\n", "", "merge:", "models.mix.merge.method: missing"),
    ("model_operation", "cut: {laser", "cut: {lazer", "lazer", "; did you mean 'laser' by 'lazer'?"),
    ("model_operation by its method", "cut: {laser: base, rank: {fraction: 0.5}, matrices: [mlp.down_proj], layers: 1-3}",
     "cut: {teis: {}}", "teis", "; did you mean `merge: {method: ties, ...}`?"),
    ("model_operation of two", "cut: {laser: base", "cut: {laser: base, folder: base", "laser",
     "give one of hub, folder, pypi, laser, adapter, merge, moe (found folder and laser)"),
    ("string_pattern_mismatch", "shard_size: 5GB", "shard_size: 5 GB", "shard_size",
     "shard_size: '5 GB' is not a size such as 5GB: a whole number, and KB, MB or GB"),
    ("greater_than_equal", "tokens: 100", "tokens: 0", "tokens: 0",
     "calibration.text.tokens: must be at least 8 (found 0)"),
    ("greater_than", "{fraction: 0.5}", "{fraction: 0}", "fraction", "must be greater than 0 (found 0)"),
    ("less_than_equal", "{fraction: 0.5}", "{fraction: 2}", "fraction",
     "models.cut.rank.fraction: must be at most 1 (found 2)"),
    ("less_than", "layers: 1-3}", "layers: 1-3, calibration: text, guard: {confidence: 1}}", "guard",
     "models.cut.guard.confidence: must be less than 1 (found 1)"),
    ("missing", "  license: apache-2.0\n", "", "release:", "release.license: missing"),
    ("extra_forbidden", "name: Two", "name: Two\n  langauge: [en]", "langauge",
     "release.langauge: unknown key; did you mean 'language'?"),
    ("several forms", "layers: 1-3}", "layers: abc}", "abc",
     "models.cut.layers: expected all, a range of layers such as 0-7 or a list (found 'abc')"),
    ("a suggestion is the end", "[mlp.down_proj]", "[mlp.dwn_proj]", "dwn_proj",
     "a single matrix is written as in layers.31.mlp.up_proj; did you mean 'mlp.down_proj'?"),
    ("value_error", "license: apache-2.0", "license: apache2", "apache2", "did you mean 'apache-2.0'?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "at", "message"), [pytest.param(*kind[1:], id=kind[0]) for kind in KINDS]
)
def test_each_kind_of_fault_has_a_sentence_of_ours_with_its_place(old, new, at, message):
    text = changed((old, new))
    (line,) = lines(text)
    assert line.startswith(f"r.yaml: line {place(text, at)}: "), line
    assert message in line
    assert not THEIRS.search(line)


def kinds_of(schema):
    """Return the kinds of faults that pydantic can find with a schema, from its parts."""
    found = set()
    if isinstance(schema, dict):
        kind = schema.get("type") if isinstance(schema.get("type"), str) else ""
        found |= {
            "str": {"string_type"},
            "int": {"int_type", "int_parsing", "int_from_float"},
            "float": {"float_type", "float_parsing"},
            "bool": {"bool_type", "bool_parsing"},
            "list": {"list_type"},
            "dict": {"dict_type"},
            "model": {"model_type"},
            "literal": {"literal_error"},
            "tagged-union": {"union_tag_invalid"},
        }.get(kind, set())
        text = kind == "str"
        for key, fault in {
            "min_length": "string_too_short" if text else "too_short",
            "max_length": "string_too_long" if text else "too_long",
            "pattern": "string_pattern_mismatch",
            "ge": "greater_than_equal",
            "gt": "greater_than",
            "le": "less_than_equal",
            "lt": "less_than",
        }.items():
            found |= {fault} if key in schema and kind else set()
        found |= {"finite_number"} if schema.get("allow_inf_nan") is False else set()
        return found.union(*map(kinds_of, schema.values()))
    return found.union(*map(kinds_of, schema)) if isinstance(schema, list | tuple) else found


def test_no_kind_of_fault_that_a_schema_has_is_told_in_pydantic_s_words():
    about = {
        "literal_error": {"expected": "'a', 'b' or 3"},
        "union_tag_invalid": {"tag": "x", "expected_tags": "'a', 'b'", "discriminator": "'kind'"},
        "string_pattern_mismatch": {"pattern": next(iter(_FORMS))},
    }
    bounds = {"min_length": 2, "max_length": 1, "ge": 1, "gt": 1, "le": 1, "lt": 1}
    kinds = set()
    for whole in (Recipe, Suite):
        whole.model_rebuild(force=True)
        kinds |= kinds_of(whole.__pydantic_core_schema__)
    assert len(kinds) > 15
    for kind in sorted(kinds):
        item = ErrorDetails(
            type=kind, loc=(), msg="Input should be", input="abc", ctx=about.get(kind, bounds)
        )
        words = in_words(item)
        assert words, kind
        assert not THEIRS.search(words)


# --- all at once ----------------------------------------------------------------------------------------------------


def test_what_is_wrong_in_any_section_hides_nothing_in_the_others():
    """Of each stage one, or more: the form of entries, names, what entries mean together."""
    text = changed(
        ("method: ties", "method: teis"),
        ("model: other, weight", "model: ohter, weigth"),
        ("density: 0.5", "density: 3"),
        ("prompts: [one]", "prompts: one"),
        ("laser: base", "laser: bas"),
        ("models: [base, two]", "models: [base, base, tow]"),
        ("methods: [Q8_0]", "methods: [Q9, Q8_0]"),
        ("texts: [text]", "texts: [txet]"),
        ("name: Two", "name: T wo"),
        ("license: apache-2.0", "license: apache2"),
    )
    expected = [
        ("teis", "models.mix.merge.method: 'teis'"),
        ("ohter", "no model is named 'ohter'; did you mean 'other'?"),
        ("ohter", "models.mix.merge.models.0.weigth: unknown key; did you mean 'weight'?"),
        ("ohter", "models.mix.merge.models.0.density: 3 is not above 0 and at most 1"),
        ("prompts: one", "models.two.moe.experts.0.prompts: expected a list"),
        ("laser: bas", "no model is named 'bas'; did you mean 'base'?"),
        ("evaluate", "evaluate.models.2: no model is named 'tow'; did you mean 'two'?"),
        ("evaluate", "evaluate.models: a model is named twice"),
        ("Q9", "quantize.methods.0: 'Q9'"),
        ("txet", "routing.texts.0: no calibration is named 'txet'; did you mean 'text'?"),
        ("T wo", "release.name: 'T wo' is not a name"),
        ("apache2", "release.license: 'apache2'"),
    ]
    found = lines(text)
    for part, message in expected:
        (line,) = [line for line in found if message in line]
        assert line.startswith(f"r.yaml: line {place(text, part)}: ")
    assert len(found) == len(expected), found
    numbers = [int(re.match(r"r\.yaml: line (\d+): ", line)[1]) for line in found]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        # A section under a wrong name is the one that was meant: nothing says that it is missing.
        ([("evaluate: {", "evalute: {")], 1),
        ([("release:\n", "relaese:\n")], 1),
        ([("calibration:\n", "calibratoin:\n")], 1),
        # A model that cannot be read is still a model that others name, and may be a mixture.
        ([("        - {model: mix, prompts: [two]}\n", "")], 1),
        ([("folder: other", "fodler: other")], 1),
        ([("folder: other", "other: other")], 1),
        # Without its texts, the routing cannot name one that does not exist.
        ([("tokens: 100", "tokens: many")], 1),
        ([("model: two\n", "model: 2\n")], 1),
        ([("models: [base, two]", "models: base")], 1),
        # Prompts under another name are prompts.
        ([("prompts: [one]", "promtps: [one]")], 1),
        ([("models:\n  base", "modles:\n  base")], 1),
    ],
)
def test_nothing_is_told_that_only_follows(changes, count):
    found = lines(changed(*changes))
    assert len(found) == count, found


REFERENCES = """\
models:
  base: {folder: base}
  other: {folder: other}
  ties:
    merge:
      method: ties
      base: bas1
      models:
        - {model: other}
        - model: othr2
          weight: 1.0
      tokenizer:
        source: union
        tokens:
          <new>:
            source: othr3
          <more>:
            source:
              kind: model_token
              model: othr4
              token: a
  slerp:
    merge:
      method: slerp
      base: base
      other: othr5
      tokenizer: othr6
  stock:
    merge:
      method: model_stock
      base: base
      models:
        - other
        - othr7
  stack:
    merge:
      method: passthrough
      slices:
        - {model: base, layers: 0-1}
        - {model: othr8, layers: 0-1}
  modules:
    merge:
      method: modules
      modules:
        default:
          method: linear
          models:
            - model: base
            - model: othr9
  two:
    moe:
      base: bas10
      experts:
        - {model: base, prompts: [one]}
        - model: othr11
          prompts: [two]
      tokenizer:
        source: othr12
  cut:
    rank: {fraction: 0.5}
    matrices: [mlp.down_proj]
    laser: bas13
  tuned:
    adapter: adapter
    on: bas14
evaluate:
  tasks: [t]
  models:
    - base
    - ohter15
  compare:
    base:
      - base16
release:
  name: Two
  license: apache-2.0
  model: tow17
"""


def test_a_name_that_does_not_exist_is_told_where_it_is_written():
    """Everywhere that a recipe names a model: the wrong names are numbered, each on a line of its own."""
    found = lines(REFERENCES)
    assert len(found) == 17
    for number, line in enumerate(found, 1):
        ((at, name),) = [
            (at, written[0])
            for at, text in enumerate(REFERENCES.split("\n"), 1)
            if (written := re.search(rf"\b[a-z]+{number}\b", text))
        ]
        assert line.startswith(f"r.yaml: line {at}: "), line
        assert repr(name) in line
        keys = line.split(": ")[2]
        assert number == 16 or f"{keys}: no model is named {name!r}" in line
        value = yamlio.load(REFERENCES)
        for key in keys.split("."):
            value = value[int(key) if key.isdigit() else key]
        assert value == name


def test_a_token_that_is_called_like_a_key_hides_no_name():
    text = REFERENCES.replace("<new>:", "search:")
    assert any("models.ties: no model is named 'othr3'" in line for line in lines(text))
    assert len(lines(text)) == 17


def test_where_a_model_names_others_are_all_that_it_is_made_from():
    text = re.sub(r"\b[a-z]+\d+\b", "base", REFERENCES)
    recipe = Recipe.model_construct(
        models=TypeAdapter(dict[str, Model]).validate_python(yamlio.load(text)["models"])
    )
    for name, model in recipe.models.items():
        written = model.model_dump(by_alias=True, exclude_unset=True)
        assert {parent for _, parent in named_in(written)} == set(parents(model)), name


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        # What is wrong inside of one expert does not hide what is wrong in the others.
        (
            [("prompts: [one]", "prompts: one"), ("prompts: [two]", "prompts: []")],
            [
                "experts.0.prompts: expected a list",
                "experts.1.prompts: gate 'ridge' needs at least one prompt",
            ],
        ),
        (
            [("prompts: [one]", "prompts: [one], noise_scale: -1"), (", prompts: [two]", "")],
            ["experts.0.noise_scale: must be", "experts.1.prompts: gate 'ridge' needs"],
        ),
        (
            [
                ("{model: base, prompts: [one]}", "{model: base}"),
                ("base: base\n      experts", "base: base\n      seed: x\n      experts"),
            ],
            ["moe.seed: expected a whole number", "experts.0.prompts: gate 'ridge' needs"],
        ),
        # Whether prompts are needed is not known.
        (
            [
                ("{model: base, prompts: [one]}", "{model: base}"),
                ("base: base\n      experts", "base: base\n      gate: x\n      experts"),
            ],
            ["moe.gate: 'x' is not one of"],
        ),
        # Nor is anything told of an expert's prompts but that they have another form.
        ([("prompts: [one]", "prompts: one")], ["experts.0.prompts: expected a list"]),
        # The same goes for merges, and for names in what remains of a model.
        (
            [
                ("model: other, weight: 1.0, density: 0.5", "model: ohter, weight: [], density: 3"),
                ("method: ties", "method: ties\n      dtype: x"),
            ],
            [
                "merge.dtype: 'x'",
                "models.0.model: no model is named 'ohter'",
                "models.0.weight: ",
                "models.0.density: 3 is not",
            ],
        ),
        # A circle among models is found, too, if another model names one that does not exist.
        (
            [
                ("method: ties", "method: linear"),
                (
                    "      base: base\n      models:\n        - {model: other, weight: 1.0, density: 0.5}",
                    "      models: [{model: cut}]",
                ),
                ("laser: base", "laser: mix"),
                ("model: two\n", "model: tow\n"),
            ],
            [
                "models: a model cannot be made from itself: mix -> cut -> mix",
                "release.model: no model is named 'tow'",
            ],
        ),
    ],
)
def test_what_is_wrong_in_a_part_of_a_model_hides_nothing_in_the_others(changes, messages):
    found = lines(changed(*changes))
    assert len(found) == len(messages), found
    for message in messages:
        assert sum(message in line for line in found) == 1, (message, found)


def test_many_problems_are_counted():
    entries = "".join(f"key{number}: 1\n" for number in range(150))
    found = lines(GOOD + entries)
    assert found[-1] == "r.yaml: and 50 more problems"
    assert len(found) == 101


def test_a_suite_is_told_in_the_same_way():
    with pytest.raises(RecipeError) as caught:
        recipes.parse_suite("suite: a\ntitel: A\ntasks: []\n", "s.yaml")
    assert caught.value.lines == [
        "s.yaml: line 2: titel: unknown key; did you mean 'title'?",
        "s.yaml: line 3: tasks: is empty",
    ]


# --- with what the recipe names -------------------------------------------------------------------------------------


def lock(tmp_path, monkeypatch, capsys, text):
    """Lock a recipe; lm-eval has one task, ``t``."""
    monkeypatch.setattr("herdbook.lock.task.resolve", resolved)
    monkeypatch.setattr("herdbook.lock.measured.pin_data_sets", lambda *_: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    status = main(["lock", "r.yaml"])
    return status, capsys.readouterr().err.splitlines()


def resolved(names, files):
    known = {
        name: {
            "name": name,
            "definitions": {name: {"task": name, "dataset_path": "a/b"}},
            "groups": {},
            "files": [],
        }
        for name in names
    }
    return (
        {name: task for name, task in known.items() if name == "t"},
        {name: f"lm-eval has no task named {name!r}" for name in names if name != "t"},
    )


def test_a_wrong_recipe_does_not_hide_that_models_are_missing(tmp_path, monkeypatch, capsys):
    (tmp_path / "base").mkdir()
    text = changed(("license: apache-2.0", "license: apache2"))
    status, said = lock(tmp_path, monkeypatch, capsys, text)
    assert status == 2
    said.remove("tasks: names are looked up in lm-eval")
    assert len(said) == 3
    assert said[0] == "herdbook lock: r.yaml: line 3: models.other: the folder other does not exist"
    assert said[1] == "r.yaml: line 20: calibration.text.data.0: the file text.jsonl does not exist"
    assert "release.license: 'apache2'" in said[2]


def test_all_missing_models_are_told(tmp_path, monkeypatch, capsys):
    """Texts of calibration are missing, too."""
    status, said = lock(tmp_path, monkeypatch, capsys, GOOD)
    text = "\n".join(said)
    assert status in {2, 4}
    assert "the folder base does not exist" in text
    assert "the folder other does not exist" in text
    assert "text.jsonl" in text


TASKS = """\
evaluate:
  tasks:
    - hellswag
    - missing.yaml
    - broken.yaml
    - t
    - acr
    - {suite: lost.yaml}
    - {suite: suite.yaml}
    - empty.yaml
  models: [base, two]
"""


@pytest.mark.parametrize("wrong", [False, True])
def test_all_that_is_wrong_with_tasks_is_told_at_once(tmp_path, monkeypatch, capsys, wrong):
    """Names, files, suites and data, beside missing models and texts, and whatever else is wrong with the recipe."""
    (tmp_path / "broken.yaml").write_text("task: [1", encoding="utf-8")
    tiny.write_task(tmp_path / "empty.yaml", data="empty.jsonl")
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    suite = "suite: s\ntitle: S\ntasks: [{task: also.yaml}, {task: winogrand}]\n"
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    changes = [("evaluate: {tasks: [t], models: [base, two]}\n", TASKS)]
    text = changed(*changes, *[("license: apache-2.0", "license: apache2")] * wrong)
    status, said = lock(tmp_path, monkeypatch, capsys, text)
    assert status == 2
    expected = [
        ("base: {folder", "models.base: "),
        ("other: {folder", "models.other: "),
        ("- hellswag", "evaluate.tasks.0: lm-eval has no task named 'hellswag'"),
        ("- missing.yaml", "evaluate.tasks.1: the file missing.yaml does not exist"),
        ("- broken.yaml", "evaluate.tasks.2: broken.yaml: expected a task of lm-eval: line 1, column 9: "),
        ("- acr", "evaluate.tasks.4: lm-eval has no task named 'acr'"),
        ("lost.yaml", "evaluate.tasks.5: the file lost.yaml does not exist"),
        ("{suite: suite.yaml}", "evaluate.tasks.6: suite.yaml: tasks.0: the file also.yaml does not exist"),
        (
            "{suite: suite.yaml}",
            "evaluate.tasks.6: suite.yaml: tasks.1: lm-eval has no task named 'winogrand'",
        ),
        ("- empty.yaml", "evaluate.tasks.7: empty.yaml: empty.jsonl is empty"),
        ("text: {data", "calibration.text"),
        *[("license: apache2", "release.license: 'apache2'")] * wrong,
    ]
    told = [
        line.removeprefix("herdbook lock: ")
        for line in said
        if line.removeprefix("herdbook lock: ").startswith("r.yaml")
    ]
    assert len(told) == len(expected), told
    for part, message in expected:
        (line,) = [line for line in told if f": {message}" in line]
        assert line.startswith(f"r.yaml: line {place(text, part)}: {message}")


def test_tasks_of_a_search_are_told_where_the_search_names_them(tmp_path, monkeypatch, capsys):
    search = "search: {validation: valid.yaml, test: tset, metric: acc, population: 4, generations: 2, over: [{path: rank.fraction, low: 0.4, high: 0.6}]}"
    text = changed(("layers: 1-3}", f"layers: 1-3, {search}}}"))
    _, said = lock(tmp_path, monkeypatch, capsys, text)
    assert any("models.cut.search.validation: the file valid.yaml does not exist" in line for line in said), (
        said
    )
    assert any("models.cut.search.test: lm-eval has no task named 'tset'" in line for line in said), said


def test_sources_that_do_not_answer_end_the_search(monkeypatch, tmp_path, capsys):
    from herdbook.errors import UnreachableError

    asked = []

    def resolve(repo, revision):
        asked.append(repo)
        if repo == "a/gone":
            raise SourceError("hub: a/gone: no such repository")
        raise UnreachableError("no network")

    monkeypatch.setattr("herdbook.hub.resolve", resolve)
    hub = "  {name}: {{hub: a/{name}}}\n"
    sources = "".join(hub.format(name=name) for name in ("gone", "down", "never"))
    text = changed(("license: apache-2.0", "license: apache2")).replace("models:\n", f"models:\n{sources}", 1)
    status, said = lock(tmp_path, monkeypatch, capsys, text)
    assert status == 2
    assert asked == ["a/gone", "a/down"]
    assert "herdbook lock: r.yaml: line 2: models.gone: hub: a/gone: no such repository" in said
    assert not any("no network" in line for line in said)
