"""The card: its numbers are those of the files, other people's text is harmless, sections come and go."""

import csv
import io
import json
import re
from decimal import Decimal
from xml.etree import ElementTree as ET

import jinja2
import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from herdbook.comparison.verdict import from_json
from herdbook.errors import LockError, StepError
from herdbook.escape import code, fenced, link, md, only_escaped, quoted
from herdbook.files import write_json
from herdbook.plan.card import card_files
from herdbook.steps.card import rendering, step
from herdbook.steps.card.counts import count_parameters
from herdbook.steps.card.front_matter import check
from herdbook.steps.card.gathering import gather
from herdbook.steps.card.rank import find_place
from herdbook.tools.installed import card_templates
from support import measured, tiny
from support.boards import BOARD

EVIL = "| x | <script>alert(1)</script> [a](javascript:b) `` ` `` {{ 7*7 }} # h\n# heading\n\u202etxet"
MODELS = {
    "base": {"folder": "base", "license": EVIL},
    "other": {"folder": "other"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.up_proj"], "layers": "1-1"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [
                {"model": "cut", "prompts": ["w1", EVIL]},
                {"model": "other", "prompts": ["w2"]},
                {"model": "other", "prompts": ["w3"], "negative_prompts": ["w4"]},
            ],
        }
    },
}
SCORES = {"base": "0.912345", "cut": "0.934567", "mix": "0.898765"}
SECTIONS = {
    "evaluate": {"tasks": ["task.yaml"], "models": list(SCORES)},
    "leaderboards": {"board": BOARD},
    "claims": [{"text": EVIL, "by": "Somebody", "on": "2026-01-03", "source": "https://example.org/claim"}],
}


def prepare(folder, models=None, **sections):
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(folder / name, seed=seed)
    data = {
        "task": "held_out",
        "output_type": "loglikelihood_rolling",
        "dataset_kwargs": {"data_files": {"test": "text.jsonl"}},
        "metadata": {"title": "Text"},
    }
    (folder / "text.jsonl").write_text('{"text": "w1"}\n')
    (folder / "task.yaml").write_text(yaml.safe_dump(data))
    text = io.StringIO()
    rows = [("name", "bpb"), ("first", "0.7"), (EVIL, "0.898765"), ("third", "0.95"), ("none", "n/a")]
    csv.writer(text).writerows(rows)
    (folder / "board.csv").write_text(text.getvalue())
    plan = tiny.build(tiny.write_recipe(folder / "r.yaml", models or MODELS, **sections), folder / "results")
    for item in plan.evaluations:
        measured.write(plan, item, [float(SCORES[item.name])] * 12)
    return plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    release = {
        "quote": {"text": EVIL, "author": EVIL},
        "summary": EVIL,
        "uses": {"intended": [EVIL], "unsuitable": [EVIL]},
        "signer": {"identity": EVIL, "issuer": EVIL},
    }
    return prepare(tmp_path_factory.mktemp("card"), release=release, **SECTIONS)


@pytest.fixture(scope="module")
def card(plan):
    return step.card_texts(plan)["README.md"]


def body(card):
    return card.split("\n---\n", 1)[1]


def test_numbers_are_counted_from_the_tensors(plan, card):
    hidden, width, layers, vocabulary = 32, 64, 2, 64
    expert = 3 * hidden * width * layers
    attention = layers * (2 * hidden * hidden + 2 * hidden * hidden // 2)
    shared = attention + 2 * vocabulary * hidden + (2 * layers + 1) * hidden
    routers = layers * 3 * hidden
    counts = gather(plan).counts
    assert (counts.expert, counts.attention, counts.routers) == (expert, attention, routers)
    assert counts.total == shared + routers + 3 * expert == plan.released.parameters
    assert counts.active == shared + routers + 2 * expert
    for number in (counts.total, counts.active, expert, attention):
        assert f"{number:,}" in card


def test_counting_against_a_naive_loop():
    shapes = {
        "model.embed_tokens.weight": (10, 4),
        "lm_head.weight": (10, 4),
        "model.layers.0.self_attn.q_proj.weight": (4, 4),
        "model.layers.0.mlp.up_proj.weight": (8, 4),
        "model.layers.0.input_layernorm.weight": (4,),
    }
    counts = count_parameters(shapes.items())
    total = 0
    for shape in shapes.values():
        elements = 1
        for extent in shape:
            elements *= extent
        total += elements
    assert counts.total == counts.active == total
    assert (counts.embeddings, counts.attention, counts.mlp, counts.norms) == (80, 16, 32, 4)


def test_table_holds_the_measured_numbers(card):
    rows = {
        row.split("|")[1].strip(): row.split("|")[2].strip()
        for row in card.splitlines()
        if row.startswith("|") and " ± " in row
    }
    assert rows["`base`"] == "0.9123 ± 0.0123"
    assert rows["► `mix`"] == "**0.8988** ± 0.0123"  # the lowest, and lower is better
    assert "| `cut` | Text (bits per byte) | 0.9123 | 0.9346 | +0.0222 | worse |" in card


def compared(folder, name="mix", **changes):
    """Return a plan whose mixture is compared with its base, measured with these results of documents."""
    plan = prepare(
        folder, **SECTIONS | {"evaluate": SECTIONS["evaluate"] | {"compare": {"mix": ["base"]}}} | changes
    )
    for item in plan.evaluations:
        shift = (-1) ** (item.name == "mix")
        measured.write(plan, item, [0.9 + 0.001 * shift + 0.01 * number for number in range(20)])
    return plan


def test_comparisons_have_verdicts(tmp_path):
    plan = compared(tmp_path)
    texts = step.card_texts(plan)
    assert sorted(texts) == sorted(card_files(plan))
    assert (
        "| `mix` | `base` | Text (bits per byte) | -0.0020 | -0.0020 to -0.0020 | 0.0002 | 20 | better |"
        in texts["README.md"]
    )
    assert "corrected by Holm's method for 2 comparisons" in " ".join(texts["README.md"].split())
    assert "fewer documents" not in texts["README.md"]
    assert "| against `base` | [better on 1 of 1 task](#is-it-good) |" in texts["README.md"]
    sentence = "Compared with `base` on the same documents, this release is **better** on Text."
    assert sentence in texts["README.md"]
    first, second = json.loads(texts["provenance/comparisons.json"])["comparisons"]
    assert (first["verdict"], first["p"], first["corrected"]) == (
        "better",
        1 / 10_000,  # all differences have one sign, which none of 9,999 draws has
        2 / 10_000,
    )
    assert (second["model"], second["other"], second["verdict"]) == (
        "cut",
        "base",
        "no measurable difference",
    )


def test_a_release_that_was_not_compared_is_not_called_better(card):
    answer = card.partition("## Is it good?")[2].partition("\n## ")[0]
    assert "did not compare the release with another model" in answer
    assert "**better**" not in answer
    row = "| Text | 0.8988 ± 0.0123 | 0.9123 | 0.9346 (`cut`) |"
    assert row in answer  # the base, and the other parent that was measured


def test_comparisons_that_are_taken_over_must_be_those_of_the_recipe_and_their_verdicts_follow(tmp_path):
    plan = compared(tmp_path)
    texts = step.card_texts(plan)
    recorded = json.loads(texts["provenance/comparisons.json"])
    assert step.card_texts(plan, from_json(recorded)) == texts
    recorded["comparisons"][1]["verdict"] = "better"
    assert step.card_texts(plan, from_json(recorded)) == texts
    with pytest.raises(StepError, match="other comparisons than those of the recipe"):
        step.card_texts(plan, from_json({"comparisons": recorded["comparisons"][1:]}))


def test_samples_of_another_measurement_are_refused(tmp_path):
    plan = compared(tmp_path)
    first, *_, last = plan.evaluations
    content = plan.layout.samples(last).read_bytes()
    plan.layout.samples(first).write_bytes(content)
    with pytest.raises(
        StepError, match=r"base-\w+\.samples\.jsonl\.bz2 has other samples than were measured"
    ):
        step.card_texts(plan)
    plan.layout.samples(first).unlink()
    with pytest.raises(StepError, match="the samples of base are missing"):
        step.card_texts(plan)


def test_a_value_that_does_not_follow_from_its_samples_is_refused(tmp_path):
    plan = compared(tmp_path)
    path = plan.layout.evaluation(plan.evaluations[0])
    path.write_text(path.read_text().replace('"value": 0.996', '"value": 0.896'))
    with pytest.raises(
        StepError, match=r"gives 0\.996000 as bits_per_byte of base in held_out, .* states 0\.896"
    ):
        step.card_texts(plan)


def test_twins_are_named(card):
    assert "Experts 2 and 3 have the same weights, bit for bit" in card


def test_rank_and_claims_say_how_they_are_known(card):
    assert "**2nd= of 4 (tied with" in card
    assert "on Board by bits\\_per\\_byte, snapshot of 2026-01-02" in card
    assert "*Recomputed*" in card
    assert "1 row without a score is not counted" in card
    assert "*Asserted* by Somebody on 2026-01-03" in card


@pytest.mark.parametrize(
    ("score", "direction", "expected"),
    [
        ("5", "higher", (3, 5, ("c",))),
        ("5", "lower", (2, 5, ("c",))),
        ("5.0001", "higher", (3, 5, ())),
        ("100", "higher", (1, 5, ())),
        ("100", "lower", (5, 5, ())),
        ("7.50", "higher", (1, 5, ("a", "b"))),
    ],
)
def test_places_of_a_competition(score, direction, expected):
    rows = [("a", "7.5"), ("c", "5"), ("b", "7.50"), ("d", "-1"), ("e", "n/a"), ("f", "")]
    place = find_place(Decimal(score), rows, direction)
    assert (place.rank, place.of, place.tied) == expected
    assert place.dropped == 2
    # the same the long way
    better = sum(
        (float(s) > float(score)) == (direction == "higher") and float(s) != float(score) for _, s in rows[:4]
    )
    assert place.rank == better + 1


def test_text_of_others_stays_text(card):
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    tokens = parser.parse(body(card))
    inline = [child for token in tokens for child in (token.children or [])]
    blocks = {token.content for token in tokens if token.type == "html_block"}
    assert {re.sub(r"<summary>[A-Z][\w:,? ]+</summary>", "", block) for block in blocks} == {
        "<details>\n\n",
        "</details>\n",
    }
    assert {token.content for token in inline if token.type == "html_inline"} <= {"<br>"}
    targets = {token.attrs["href"] for token in inline if token.type == "link_open"}
    assert targets <= {
        "#can-i-trust-it",
        "#comparisons",
        "#is-it-good",
        "#lineage",
        "NOTICE",
        "SHA256SUMS",
        "model.safetensors",
        "https://arxiv.org/abs/2312.13558",
        "https://example.org/board",
        "https://example.org/claim",
    }
    headings = [
        tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"
    ]
    assert "heading" not in headings
    assert headings[:3] == ["Tiny", "Which file?", "Run it"]
    assert "\u202e" not in card
    assert "{{ 7" in card or "{{ 7\\*7 }}" in card  # printed, not computed
    columns = [len(row.split(" | ")) for row in card.splitlines() if row.startswith("| `base` | `folder")]
    assert columns == [4]


@pytest.mark.parametrize("function", [md, code, quoted, fenced])
def test_escaped_text_shows_what_it_says(function):
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        function("a <b> & *c* [d](e) `f`")
    )
    text = re.sub(r"<[^>]+>", "", rendered).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert text.strip() == "a <b> & *c* [d](e) `f`"


def test_only_web_addresses_become_links():
    assert link("https://a.b/c?d=e") == "<https://a.b/c?d=e>"
    assert "javascript" in link("javascript:alert(1)")
    assert not link("javascript:alert(1)").startswith("<")


def test_front_matter_is_read_by_the_hub_s_own_client(plan, card):
    data = ModelCard(card).data.to_dict()
    check(yaml.safe_load(card.split("---\n")[1]))
    assert data["license"] == "apache-2.0"
    assert {"moe", "frankenmoe", "merge", "laser"} <= set(data["tags"])
    result = ModelCard(card).data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("bits_per_byte", 0.898765)
    assert plan.recipe.release.name == "Tiny"


FRONT_MATTER = {
    "language": ["en", "nds"],
    "license": "apache-2.0",
    "library_name": "transformers",
    "pipeline_tag": "text-generation",
    "base_model": ["herd/a", "herd/b"],
    "base_model_relation": "merge",
    "tags": ["merge", "herdbook"],
    "model-index": [
        {
            "name": "Tiny",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "Prose", "type": "prose"},
                    "metrics": [{"type": "chrf++", "value": 0.5}, {"type": "byte_perplexity", "value": 2}],
                }
            ],
        }
    ],
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"licence": "mit"}, "licence: "),
        ({"license": "my-own"}, "license: "),
        ({"license": "other"}, "license 'other' needs license_name and license_link"),
        ({"license": "other", "license_name": "My own"}, "license_name: "),
        ({"license_name": "my-own"}, "license_name belongs to license 'other'"),
        ({"language": []}, "language: "),
        ({"language": ["en", "en"]}, "language: "),
        ({"language": ["english"]}, "language.0: "),
        ({"library_name": "diffusers"}, "library_name: "),
        ({"base_model": ["herd/a"]}, "base_model: expected text or a list of at least 2 entries"),
        ({"base_model": ["herd/a", "herd/a"]}, "base_model: 'herd/a' is listed twice"),
        ({"base_model": "a"}, "base_model: expected owner/name of a repository or a list"),
        ({"base_model": None}, "base_model_relation needs base_model"),
        ({"base_model_relation": "cousin"}, "base_model_relation: "),
        ({"tags": []}, "tags: "),
        ({"tags": ["Merge!"]}, "tags.0: "),
        ({"model-index": [{"name": "Tiny", "results": []}]}, "model-index.0.results: "),
        ({"model-index": FRONT_MATTER["model-index"] * 2}, "model-index: "),
        ({"model-index": [{"name": "T", "results": [{}]}]}, "model-index.0.results.0.task: "),
    ],
)
def test_front_matter_that_the_hub_would_refuse_is_told_by_key(change, key):
    check(FRONT_MATTER)
    check(
        {
            **FRONT_MATTER,
            "license": "other",
            "license_name": "my-own",
            "license_link": "https://example.org/l",
        }
    )
    with pytest.raises(StepError) as refused:
        check({**FRONT_MATTER, **change})
    assert f"card: front matter: {key}" in str(refused.value) or key in str(refused.value)


def test_a_license_that_the_hub_does_not_list_is_named_on_the_card(tmp_path):
    own = {"license": "other", "license_name": "herd-1.0", "license_link": "https://example.org/herd-1.0"}
    plan = prepare(tmp_path, release=own)
    data = ModelCard(step.card_texts(plan)["README.md"]).data.to_dict()
    assert {key: data[key] for key in own} == own
    assert plan.gguf_metadata == {
        "general.name": "Tiny",
        "general.license": "other",
        "general.license.name": own["license_name"],
        "general.license.link": own["license_link"],
    }


def test_the_card_promises_no_standard_error_that_it_does_not_have(tmp_path, card):
    assert "value ± standard error. The best" in card
    plan = prepare(tmp_path, **SECTIONS)
    for item in plan.evaluations:
        path = plan.layout.evaluation(item)
        result = json.loads(path.read_text(encoding="utf-8"))
        result["tasks"]["held_out"]["metrics"]["bits_per_byte"]["stderr"] = None
        write_json(path, result)
    without = step.card_texts(plan)["README.md"]
    assert "in float32; value. The best" in without
    assert "±" not in without.partition("<summary>All measurements")[2].partition("</details>")[0]


def test_text_without_a_filter_is_refused():
    with pytest.raises(StepError, match="without a filter that escapes it"):
        only_escaped("text")
    environment = rendering.environment(card_templates())
    with pytest.raises(StepError, match="without a filter"):
        environment.from_string("{{ name }}").render(name="x")
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nothing }}").render()


def test_card_is_the_same_twice_and_tells_no_path(plan, card):
    assert step.card_texts(plan)["README.md"] == card
    assert all(str(plan.recipe_path.parent) not in text for text in step.card_texts(plan).values())


def test_a_card_names_pip_only_with_the_project_s_address(plan, card, monkeypatch):
    """A name alone may be anybody's on an index, or nobody's."""
    assert "pip install herdbook" not in card
    assert re.search(r"^Herdbook [^ ]+ checks this, without", card, re.MULTILINE)
    monkeypatch.setattr(rendering, "homepage", lambda: "https://herdbook.example")
    found = step.card_texts(plan)["README.md"]
    (line,) = re.findall(r"^\[Herdbook .*checks this, without.*$", found, re.MULTILINE)
    assert "(<https://herdbook.example>)" in line
    assert "(`pip install herdbook==" in line


def test_figures_are_xml_and_name_every_model(plan):
    texts = step.card_texts(plan)
    assert set(texts) == set(card_files(plan))
    lineage = "".join(ET.fromstring(texts["figures/lineage.svg"]).itertext())
    assert all(name in lineage for name in MODELS)
    measured = "".join(ET.fromstring(texts["figures/measurements.svg"]).itertext())
    assert all(name in measured for name in SCORES)


def test_another_quotation_changes_nothing_else(tmp_path):
    cards = []
    for text in ("One.", "Two."):
        plan = prepare(tmp_path / text, release={"quote": {"text": text}})
        cards.append(step.card_texts(plan)["README.md"].splitlines())
    differing = [(a, b) for a, b in zip(*cards, strict=True) if a != b]
    assert differing[0] == ("> One.", "> Two.")
    assert differing[1] == ("    text: One.", "    text: Two.")
    assert len(differing) == 3  # and the digest of the recipe


def test_sections_vanish_with_what_they_are_about(tmp_path):
    dense = {
        "base": {"folder": "base"},
        "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": "all"},
    }
    card = step.card_texts(prepare(tmp_path / "dense", dense))["README.md"]
    headings = [line[3:] for line in card.splitlines() if line.startswith("## ")]
    assert headings == ["Which file?", "Run it", "Can I trust it?", "Lineage", "Details"]
    assert "<summary>LASER" in card
    assert "Mixture" not in card
    plain = {"base": {"folder": "base"}}
    card = step.card_texts(prepare(tmp_path / "plain", plain))["README.md"]
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == headings
    assert "LASER" not in body(card)
    assert "\n\n\n" not in body(card).lstrip("\n")


def guarded(folder, **guard):
    words = [f"w{number % 50}" for number in range(3000)]
    folder.mkdir()
    lines = [json.dumps({"text": " ".join(words[at : at + 40])}) for at in range(0, 3000, 40)]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    entry = {"laser": "base", "rank": [3, {"fraction": 0.9}], "matrices": ["mlp.up_proj"], "calibration": "c"}
    models = {"base": {"folder": "base"}, "cut": {**entry, "guard": guard}}
    text = {"data": ["validation.jsonl"], "split": "validation", "windows": 30, "tokens": 16}
    return prepare(folder, models, calibration={"c": text})


def test_a_search_is_told_with_its_evidence(tmp_path):
    plan = guarded(tmp_path / "g", margin=0.5)
    found = json.loads(plan.layout.search(plan.nodes["cut"].search).read_text())
    texts = step.card_texts(plan)
    said = " ".join(texts["README.md"].split())
    kept = len(found["chosen"])
    assert kept
    assert f"{kept} of {len(found['trials'])} trials were" in said
    assert f"on as many that no trial had seen by {found['confirmation']['mean']:+.4f}" in said
    assert "rank 3 or 90 % of the rank, guarded" in said
    assert sorted(texts) == sorted(card_files(plan))


def test_a_search_that_keeps_nothing_is_told(tmp_path):
    plan = guarded(tmp_path / "g", confidence=0.999999)
    texts = step.card_texts(plan)
    assert "0 of 4 trials were" in " ".join(texts["README.md"].split())
    assert "not reduced" in texts["figures/laser-cut.svg"]


def test_figures_of_laser_show_what_the_records_say(plan):
    texts = step.card_texts(plan)
    assert texts["figures/laser-cut.svg"].count("50.0% of the rank kept") == 1
    assert "(used): 16 of 32" in texts["figures/spectrum.svg"]
    assert "model.layers.1.mlp.up_proj.weight of cut (64 x 32)" in texts["figures/spectrum.svg"]


def damaged(plan, tmp_path, edit):
    item = plan.evaluations[-1]
    path = plan.layout.evaluation(item)
    before = path.read_text()
    try:
        edit(path)
        with pytest.raises(StepError) as caught:
            step.card_texts(plan)
    finally:
        path.write_text(before)
    assert str(path) in str(caught.value) or item.name in str(caught.value)
    return str(caught.value)


def change(**changes):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda path: path.unlink(), "is missing. Build it first"),
        (lambda path: path.write_text("{"), "is damaged"),
        (change(key="other"), "belongs to another plan"),
        (change(tasks={}), "were not measured in the same way|damaged"),
        (
            change(weights={"model-00001-of-00005.safetensors": "0" * 64}),
            "the measured weights differ from the released ones",
        ),
    ],
)
def test_bad_measurements_are_named(plan, tmp_path, edit, expected):
    assert re.search(expected, damaged(plan, tmp_path, edit))


def test_changed_snapshot_is_told(plan):
    path = plan.beside_recipe("board.csv")
    before = path.read_bytes()
    path.write_bytes(before + b"new,0.1\n")
    try:
        with pytest.raises(
            LockError, match=r"leaderboards\.board: .*board\.csv has changed since it was locked"
        ):
            step.card_texts(plan)
    finally:
        path.write_bytes(before)  # its lines end as they did


def test_no_example_of_a_model_that_transformers_cannot_load(tmp_path):
    experts = [{"model": "base", "prompts": ["w1"]}, {"model": "other", "prompts": ["w2"]}]
    moe = {"base": "base", "family": "deepseek", "experts": experts}
    sources = {name: {"folder": name} for name in ("base", "other")}
    for seed, name in enumerate(sources):
        tiny.write_model(tmp_path / name, seed=seed)
    recipe = tiny.write_recipe(tmp_path / "r.yaml", {**sources, "mix": {"moe": moe}})
    text = step.card_texts(tiny.build(recipe, tmp_path / "results"))["README.md"]
    assert "transformers has no class for this architecture" in text
    assert "from_pretrained" not in text


def test_example_of_a_model_that_transformers_loads(card):
    assert "AutoModelForCausalLM.from_pretrained(model_id" in card
    assert "no class for this architecture" not in card
