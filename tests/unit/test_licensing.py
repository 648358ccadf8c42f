"""Licences over the lineage: a release keeps what its sources' licences demand, or the recipe waives it in so many words."""

import json

import pytest

from herdbook import licensing
from herdbook import plan as plans
from herdbook.errors import RecipeError, SourceError
from herdbook.licensing.terms import OBLIGATIONS, PATH
from herdbook.plan.licensing import check_licenses, licensed_sources
from herdbook.recipe.hub_values import LICENSES
from herdbook.sources.license_files import MOST_BYTES, license_files
from herdbook.steps.card import step
from support import dummy_release, tiny

WAIVER = {"source": "base", "obligation": "name-prefix", "by": "A. Lawyer", "because": "Meta | has *agreed*"}


def test_every_licence_that_the_hub_knows_is_in_the_table_once_or_is_no_statement():
    listed = [name for entry in json.loads(PATH.read_text(encoding="utf-8")) for name in entry["ids"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(LICENSES) - licensing.NO_STATEMENT


def test_every_rule_names_its_clause_and_every_obligation_has_words():
    for terms in licensing.TERMS.values():
        for rule in terms.rules:
            assert rule.obligation in OBLIGATIONS
            assert rule.clause
            assert licensing.Duty("x", rule).demand


@pytest.mark.parametrize(
    ("source", "release", "dropped"),
    [
        ("apache-2.0", "mit", []),
        ("apache-2.0", "cc-by-nc-4.0", []),
        ("apache-2.0", "gpl-2.0", ["conflict"]),
        ("mit, apache-2.0", "apache-2.0", []),
        ("MIT", "apache-2.0", []),
        ("cc-by-nc-4.0", "apache-2.0", ["noncommercial"]),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", []),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", ["same-license"]),
        ("cc-by-nc-sa-4.0", "apache-2.0", ["same-license", "noncommercial"]),
        ("cc-by-sa-4.0", "cc-by-4.0", ["same-license"]),
        ("cc-by-sa-4.0", "gpl-3.0", []),
        ("llama3", "apache-2.0", ["same-license", "name-prefix"]),
        ("llama3", "llama3", ["name-prefix"]),
        ("llama2", "llama2", []),
        ("gemma", "llama3", ["same-license"]),
        ("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0", ["no-derivatives"]),
        ("mit, cc-by-nd-4.0", "mit", ["no-derivatives"]),
        (None, "apache-2.0", ["unknown"]),
        ("other", "apache-2.0", ["unknown"]),
        ("my own terms", "apache-2.0", ["unknown"]),
    ],
)
def test_what_a_source_s_licence_leaves_the_release(source, release, dropped):
    found = licensing.duties(source, licensing.Release(release, ("Tiny",)))
    assert [duty.rule.obligation for duty in found if duty.dropped] == dropped


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (("Llama-3-Herd",), True),
        (("llama3-herd", "Llama_3-herd"), True),
        (("Herd-Llama-3",), False),
        (("Llama-3-Herd", "herd"), False),
        (("Llama-2-Herd",), False),
    ],
)
def test_a_name_begins_with_the_vendor_s_word_however_it_is_joined(names, kept):
    found = licensing.duties("llama3", licensing.Release("llama3", names))
    assert any(duty.dropped for duty in found) != kept


def test_only_what_the_released_model_descends_from_is_asked(tmp_path):
    sources = {"base": "mit", "bystander": "cc-by-nd-4.0"}
    release = dummy_release.write(tmp_path, sources=sources, made_from="base")
    check_licenses(release.recipe, release.lock)
    release = dummy_release.write(tmp_path / "2", sources=sources, made_from="bystander")
    with pytest.raises(RecipeError, match=r"models\.bystander: .* allows no derived works \(section"):
        check_licenses(release.recipe, release.lock)


def recipe_of(folder, text="Some terms, (c) Somebody\n", **release):
    tiny.write_model(folder / "base")
    (folder / "base/LICENSE.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    release = {"license": "llama3.1", **release}
    return tiny.write_recipe(
        folder / "r.yaml", {"base": {"folder": "base", "license": "llama3.1"}}, release=release
    )


def test_a_dropped_obligation_is_refused_by_the_plan_unless_it_is_waived_by_name(tmp_path):
    path = recipe_of(tmp_path)
    tiny.lock(path)
    with pytest.raises(RecipeError) as refused:
        plans.load(path)
    (line,) = refused.value.problems
    assert line.startswith("models.base: its license, llama3.1, demands a name that begins with 'Llama'")
    assert "release.waivers {source: base, obligation: name-prefix, by, because}" in line
    waived = recipe_of(tmp_path / "2", waivers=[WAIVER])
    tiny.lock(waived)
    plans.load(waived)
    idle = recipe_of(tmp_path / "3", name="Llama-herd", waivers=[WAIVER])
    tiny.lock(idle)
    with pytest.raises(RecipeError, match=r"waivers\.0: 'base' has no dropped obligation 'name-prefix'"):
        plans.load(idle)


def test_the_card_states_the_waiver_and_the_texts_are_handed_on(tmp_path):
    plan = tiny.build(recipe_of(tmp_path, waivers=[WAIVER]), tmp_path / "results")
    texts = step.card_texts(plan)
    card = " ".join(texts["README.md"].split())
    assert (
        "**Not kept:** the license of `base` demands: a name that begins with “Llama” (section 1.b.i)" in card
    )
    assert r"Waived by A. Lawyer: Meta &#124; has \*agreed\*" in card
    assert "**Built with Llama**" in card
    assert texts["licenses/base/LICENSE.txt"] == "Some terms, (c) Somebody\n"
    assert "Llama 3.1 is licensed under the Llama 3.1 Community License, Copyright ©" in texts["NOTICE"]
    assert "https://www.llama.com/llama3_1/use-policy/" in texts["NOTICE"]


def test_a_text_that_is_not_utf_8_keeps_its_digest_and_one_that_is_too_long_is_refused(tmp_path):
    import hashlib

    content = "© Somebody".encode("latin-1")
    path = recipe_of(tmp_path, content, name="Llama-herd")
    lock = tiny.lock(path)
    ((text,),) = [source.texts for source in licensed_sources(plans.load(path).recipe, lock)]
    assert text.sha256 == hashlib.sha256(content).hexdigest()
    assert text.text == "© Somebody"
    with pytest.raises(SourceError, match=r"LICENSE\.txt: has 262,145 bytes, over the limit"):
        tiny.lock(recipe_of(tmp_path / "2", b"x" * (MOST_BYTES + 1)))


def test_files_of_licenses_by_their_names():
    names = ["LICENSE", "Licence.md", "NOTICE", "COPYING", "USE_POLICY.md", "LICENSE-MODEL", "license_2.txt"]
    others = ["LICENSE.safetensors", "sub/LICENSE", "licenses.py", "README.md", "LICENSE/x", "NOTICE\n"]
    assert license_files([*names, *others]) == sorted(names)
