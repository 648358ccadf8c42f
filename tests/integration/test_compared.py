"""Comparisons in a release: derived again from released samples, taken as recorded without, and lies about them."""

import json
import shutil

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.layout import COMPARISONS, EVALUATIONS
from herdbook.release.finding import Outcome
from herdbook.release.reader import Release
from herdbook.release.subject import FolderSubject
from herdbook.steps.card.step import render_card
from support import measured, tiny
from support.lies import KEY, sign, told, write_bills
from support.verification import findings

MODELS = {"base": {"hub": "herd/base"}, "tuned": {"hub": "herd/tuned"}}
RESULTS = {
    "base": [0.9 + number / 100 for number in range(12)],
    "tuned": [0.9 + number / 110 for number in range(12)],
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        for seed, name in enumerate(MODELS):
            tiny.write_model(root / name, seed=seed)
            files = {path.name: path.read_bytes() for path in (root / name).iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        yield hub


def plan_of(root, **sections):
    tiny.write_task(root / "task.yaml")
    section = {"tasks": ["task.yaml"], "models": list(MODELS), "compare": {"tuned": ["base"]}}
    section |= sections.pop("evaluate", {})
    plan = tiny.build(
        tiny.write_recipe(root / "r.yaml", MODELS, evaluate=section, **sections), root / "results"
    )
    for item in plan.evaluations:
        measured.write(plan, item, RESULTS[item.name])
    return plan


def build(root, **section):
    plan = plan_of(root, evaluate=section)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan, KEY)


@pytest.fixture(scope="module")
def open_(hub, tmp_path_factory):
    return build(tmp_path_factory.mktemp("open"), release_samples=True)


@pytest.fixture(scope="module")
def closed(hub, tmp_path_factory):
    return build(tmp_path_factory.mktemp("closed"))


def lied(release, folder, change):
    """Return a copy of a release in which a builder changed files, with claims and signatures that fit."""
    shutil.copytree(release, folder)
    with told(folder):
        change(folder)
    return folder


def edited(name, **changes):
    def change(folder):
        content = json.loads((folder / name).read_text())
        content["comparisons"][0] |= changes
        (folder / name).write_text(json.dumps(content))

    return change


def wrong(release, level="recomputed"):
    return {(one.check, one.file) for one in findings(release, level) if one.outcome is not Outcome.PASSED}


def test_released_samples_give_the_comparisons_again(open_):
    found = findings(open_, "recomputed")
    assert {one.outcome for one in found} == {Outcome.PASSED}
    (compared,) = [one for one in found if one.check == "compared"]
    assert compared.subject == "1 comparisons"
    assert len(list((open_ / EVALUATIONS).glob("*.samples.jsonl.bz2"))) == 2


def test_without_samples_comparisons_are_taken_as_recorded(closed):
    found = findings(closed, "recomputed")
    assert {one.outcome for one in found} == {Outcome.PASSED}
    assert not [one for one in found if one.check == "compared"]
    assert not list((closed / EVALUATIONS).glob("*.bz2"))
    assert (closed / COMPARISONS).is_file()


def test_a_rebuild_takes_comparisons_over(closed, open_):
    for release in (closed, open_):
        found = findings(release, "rebuild")
        assert {one.check for one in found if one.outcome is not Outcome.PASSED} == {"taken over"}


def test_another_probability_does_not_follow_from_the_samples(open_, tmp_path):
    release = shutil.copytree(open_, tmp_path / "r")
    edited(COMPARISONS, p=0.5)(release)
    plan = Release(FolderSubject(release)).make_plan()
    write_bills(release, plan)
    sign(release, plan)
    assert ("card", COMPARISONS) in wrong(release)


def test_a_verdict_must_follow_from_the_probability_in_any_case(closed, tmp_path):
    release = lied(closed, tmp_path / "r", edited(COMPARISONS, verdict="worse"))
    assert ("card", COMPARISONS) in wrong(release)


def test_a_comparison_cannot_be_left_out(closed, tmp_path):
    def emptied(folder):
        content = json.loads((folder / COMPARISONS).read_text()) | {"comparisons": []}
        (folder / COMPARISONS).write_text(json.dumps(content))

    release = lied(closed, tmp_path / "r", emptied)
    details = [one.detail for one in findings(release, "recomputed") if one.outcome is not Outcome.PASSED]
    assert any("other comparisons than those of the recipe" in detail for detail in details)


def test_a_measured_value_must_follow_from_released_samples(open_, tmp_path):
    def better(folder):
        (path,) = (folder / EVALUATIONS).glob("tuned-*.json")
        path.write_text(path.read_text().replace('"value": 0.95', '"value": 0.85'))

    release = lied(open_, tmp_path / "r", better)
    details = [one.detail for one in findings(release, "recomputed") if one.outcome is not Outcome.PASSED]
    assert any(
        "as bits_per_byte of tuned in held_out, and the measurement states 0.85" in one for one in details
    )
