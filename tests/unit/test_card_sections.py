"""The recipe's part of a card: which sections it has, templates of its own, a picture, the Hub's keys, and what it may not do."""

import re

import pytest
from huggingface_hub import ModelCard

from herdbook import plan as plans
from herdbook.errors import LockError, RecipeError, StepError
from herdbook.escape import FILTERS
from herdbook.recipe.card import SECTIONS
from herdbook.sources.card_template import problem
from herdbook.steps.card import rendering, step
from herdbook.steps.card.anchors import anchor, resolved
from herdbook.tools.installed import card_templates
from support import quantized, tiny

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
MINE = "## Thanks\n\n{{ facts.released.name|code }} by **us**\n\n"


def recipe_of(folder, own=None, models=None, **sections):
    tiny.write_model(folder / "base", head_dim=8)
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


def test_the_hub_s_keys_reach_the_front_matter(tmp_path, local_hub_client):
    del local_hub_client  # the Hub that is asked for the model, which it does not have
    keys = {
        "tags": ["roleplay"],
        "datasets": ["herd/text"],
        "thumbnail": "https://example.org/a.png",
        "extra_gated_prompt": "Be *kind*: always.",
        "extra_gated_fields": {"Country": "country", "Use": {"type": "select", "options": ["a", "b"]}},
    }
    models = {"base": {"folder": "base", "hub_id": "herd/base"}}
    models["cut"] = {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.up_proj"]}
    card = card_of(tmp_path, models=models, card={"hub": keys})
    data = ModelCard(card).data.to_dict()
    assert {key: data[key] for key in keys if key != "tags"} == {k: v for k, v in keys.items() if k != "tags"}
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


# --- a card states nothing that its release does not have -------------------------------------------------------------

NAMED = re.compile(r"`((?:provenance|figures|licenses)(?:/[\w./-]*)?|recipe(?:\.lock)?\.\w+)`")
PAIR = {
    "base": {"folder": "base"},
    "cut": {"laser": "base", "rank": 8, "matrices": ["mlp.up_proj"]},
    "mix": {"moe": {"base": "base", "gate": "random", "experts": [{"model": "base"}, {"model": "cut"}]}},
}
MINIMAL = {
    "a model": ({}, {}),
    "a mixture": (PAIR, {}),
    "an asserted claim": (PAIR, {"claims": [{"text": "It is good.", "by": "Somebody"}]}),
    "a quantized file": (PAIR, {"quantize": {"methods": ["Q8_0"]}}),
    "few sections": (PAIR, {"card": {"sections": ["opening", "files", "moe", "uses"]}}),
}


def released_card(folder, models, sections):
    """Return a release's folder and its card, without what is in fences."""
    plan = tiny.build(recipe_of(folder, models=models or None, **sections), folder / "results")
    if plan.quantized:
        quantized.add_to(plan, quantized.size_label(experts=2))
    step.render_card(plan, plan.layout.card_folder)
    made = tiny.release(plan)
    text = (made / "README.md").read_text(encoding="utf-8")
    return made, re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("kind", MINIMAL)
def test_what_a_card_links_to_and_names_is_there(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("herdbook.steps.quantize.vocabulary.check_vocabulary", lambda _: None)
    made, card = released_card(tmp_path, *MINIMAL[kind])
    titles = re.findall(r"^#+ (.*)$", card, re.MULTILINE)
    slugs = {"-".join(re.findall(r"[a-z0-9]+", title.lower())) for title in titles}
    links = re.findall(r"(?<!\\)\]\(([^)]+)\)", card)
    assert "NOTICE" in links
    for target in links:
        if target.startswith("#"):
            assert target[1:] in slugs, target
        elif ":" not in target:
            assert (made / target).exists(), target
    for name in NAMED.findall(card):
        assert (made / name).exists(), name
    assert ("what is usual for the type" in card) == (kind == "a quantized file")
    assert "\0" not in card
    assert ", ;" not in card
    assert "; ." not in card


def test_a_card_states_nothing_of_what_was_not_measured_asked_or_signed(tmp_path):
    _, card = released_card(tmp_path, PAIR, {})
    assert "question, which this build did not measure." in card
    assert "*measured*" not in card
    assert "language" not in card.split("---")[1]
    assert "keys and values of 128 tokens" in card  # which is all that it was made for
    assert "licenses`" not in card
    assert "| signed | the recipe names no signer: [check it](#can-i-trust-it) |" in card
    assert "on their own pages" not in card  # folders have none
    assert "gives all of them their weights" in card  # two experts, two per token


def test_the_folder_of_license_texts_is_named_if_there_is_one(tmp_path):
    tiny.write_model(tmp_path / "base")
    (tmp_path / "base/LICENSE").write_text("Do what you want.\n", encoding="utf-8")
    made, card = released_card(tmp_path, {}, {})
    assert "and the folder `licenses`" in card
    assert (made / "licenses").is_dir()


def test_links_within_a_card():
    text = f"# One two?\n\n```\n## Not this\n```\n{anchor('a*', 'one-two')} {anchor('b', 'not-this')}\n"
    assert resolved(text).splitlines()[-1] == r"[a\*](#one-two) b"
    with pytest.raises(ValueError, match="no anchor"):
        anchor("a", "x)](javascript:")
