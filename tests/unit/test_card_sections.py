"""The recipe's part of a card: which sections it has, templates of its own, a picture, the Hub's keys, and what it may not do."""

import pytest
from huggingface_hub import ModelCard

from herdbook import plan as plans
from herdbook.errors import LockError, RecipeError, StepError
from herdbook.escape import FILTERS
from herdbook.recipe.card import SECTIONS
from herdbook.sources.card_template import problem
from herdbook.steps.card import rendering, step
from herdbook.tools.installed import card_templates
from support import tiny

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
MINE = "## Thanks\n\n{{ facts.released.name|code }} by **us**\n\n"


def recipe_of(folder, own=None, models=None, **sections):
    tiny.write_model(folder / "base")
    for name, text in (own or {}).items():
        (folder / "own").mkdir(exist_ok=True)
        (folder / "own" / f"{name}.md.j2").write_text(text, encoding="utf-8")
    return tiny.write_recipe(folder / "r.yaml", models or {"base": {"folder": "base"}}, **sections)


def card_of(folder, *args, **kwargs):
    return step.card_texts(tiny.build(recipe_of(folder, *args, **kwargs), folder / "results"))["README.md"]


def headings(card):
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def test_the_sections_are_the_templates():
    names = {path.name.removesuffix(".md.j2") for path in (card_templates() / "sections").glob("*.md.j2")}
    assert names == set(SECTIONS)


def test_sections_are_ordered_left_out_overridden_and_added(tmp_path):
    own = {"thanks": MINE, "run": "## Run it\n\nBy hand.\n\n"}
    chosen = {"sections": ["opening", "run", "thanks", "lineage", "files"], "templates": "own"}
    card = card_of(tmp_path, own, card=chosen)
    assert headings(card) == ["Run it", "Thanks", "Lineage", "Which file?"]
    assert "`base` by **us**" in card
    assert "By hand." in card
    assert "transformers import" not in card


def test_a_template_that_changed_since_it_was_locked_is_refused(tmp_path):
    path = recipe_of(tmp_path, {"thanks": MINE}, card={"sections": ["opening", "thanks"], "templates": "own"})
    plan = tiny.build(path, tmp_path / "results")
    (tmp_path / "own/thanks.md.j2").write_text("other")
    with pytest.raises(LockError, match=r"card\.sections thanks: .* has changed since it was locked"):
        step.card_texts(plan)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{ facts.nothing|md }}", "has no attribute 'nothing'"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ release.name }}", "without a filter that escapes it"),
        ("{{ facts.__class__.__mro__|md }}", "unsafe"),
        ("{{ facts.counts|md }}", "expected text"),
    ],
)
def test_a_missing_fact_fails_and_names_the_section_that_wanted_it(tmp_path, text, wanted):
    with pytest.raises(StepError) as refused:
        card_of(tmp_path, {"thanks": text}, card={"sections": ["opening", "thanks"], "templates": "own"})
    assert str(refused.value).startswith("card: section 'thanks': ")
    assert wanted in str(refused.value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{{ x()|md }}", "line 1: calls something"),
        ("\n{{ 'x' * 1000000000 }}", "line 2: multiplies"),
        ("{{ 9 ** 9 }}", "multiplies"),
        ("{{ 'x'|center(1000000000) }}", "has the filter 'center'"),
        ("{% include 'card.md.j2' %}", "includes another template"),
        ("{% macro m() %}{% endmacro %}", "defines a macro"),
        (
            "{% for a in b %}{% for c in b %}{% for d in b %}{% for e in b %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
            "loops inside",
        ),
        ("{% for a in b recursive %}{% endfor %}", "loops inside"),
        ("{{ ", "line 1: "),
        ("x" * 200_000, "more than 100,000 bytes"),
    ],
)
def test_what_a_template_of_a_stranger_may_not_do(text, wrong):
    assert wrong in problem(text, FILTERS)


def test_our_own_templates_could_be_a_recipe_s():
    for path in (card_templates() / "sections").glob("*.md.j2"):
        assert problem(path.read_text(encoding="utf-8"), FILTERS) is None, path


def test_the_filters_are_those_of_the_card():
    from jinja2.defaults import DEFAULT_FILTERS

    assert set(rendering.environment(card_templates()).filters) - set(DEFAULT_FILTERS) <= FILTERS


def test_the_hub_s_keys_reach_the_front_matter(tmp_path):
    hub = {
        "tags": ["roleplay"],
        "datasets": ["herd/text"],
        "thumbnail": "https://example.org/a.png",
        "extra_gated_prompt": "Be *kind*: always.",
        "extra_gated_fields": {"Country": "country", "Use": {"type": "select", "options": ["a", "b"]}},
    }
    models = {"base": {"folder": "base", "hub_id": "herd/base"}}
    models["cut"] = {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.up_proj"]}
    card = card_of(tmp_path, models=models, card={"hub": hub})
    data = ModelCard(card).data.to_dict()
    assert {key: data[key] for key in hub if key != "tags"} == {k: v for k, v in hub.items() if k != "tags"}
    assert data["tags"] == ["laser", "herdbook", "roleplay"]
    assert data["base_model"] == "herd/base"
    assert "`base` is `herd/base` of the Hub, as the author *asserts*." in card


def test_a_picture_is_shown_with_its_license(tmp_path):
    (tmp_path / "herd.png").write_bytes(PNG)
    image = {"file": "herd.png", "alt": "a [herd]", "license": "cc0-1.0", "source": "A. Painter"}
    path = recipe_of(tmp_path, release={"image": image})
    plan = tiny.build(path, tmp_path / "results")
    card = step.card_texts(plan)["README.md"]
    assert r"![a \[herd\]](figures/image.png)" in card
    assert "| picture | A. Painter, cc0-1.0 |" in card
    from herdbook.steps.card.step import render_card

    render_card(plan, plan.layout.card_folder)
    assert (tiny.release(plan) / "figures/image.png").read_bytes() == PNG


def test_words_that_a_license_demands_cannot_be_left_out(tmp_path):
    models = {"base": {"folder": "base", "license": "llama3.1"}}
    release = {"license": "llama3.1", "name": "Llama-herd"}
    path = recipe_of(tmp_path, models=models, release=release, card={"sections": ["files"]})
    tiny.lock(path)
    with pytest.raises(RecipeError, match="card.sections: 'opening' is missing"):
        plans.load(path)
    with pytest.raises(StepError, match="does not display 'Built with Llama'"):
        card_of(
            tmp_path / "2",
            {"opening": "Hello.\n"},
            models,
            release=release,
            card={"sections": ["opening"], "templates": "own"},
        )
