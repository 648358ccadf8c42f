"""`herdbook compare`: what differs between two releases, and whether a model is measurably better."""

import json
import shutil

import pytest

from herdbook.cli.main import main
from herdbook.layout import EVALUATIONS, RECIPE
from herdbook.steps.card.step import render_card
from herdbook.weights.record import read_record
from support import measured, tiny


def build(root, fraction, better=0.0, *, samples=True):
    for seed, name in enumerate(("base",)):
        tiny.write_model(root / name, seed)
    tiny.write_task(root / "task.yaml")
    models = {
        "base": {"folder": "base"},
        "cut": {"laser": "base", "rank": {"fraction": fraction}, "matrices": ["mlp.up_proj"]},
    }
    evaluate = {"tasks": ["task.yaml"], "models": ["cut"], "release_samples": samples}
    plan = tiny.build(tiny.write_recipe(root / "r.yaml", models, evaluate=evaluate), root / "results")
    (item,) = plan.evaluations
    digests = [read_record(plan.layout.record(part))["file"]["sha256"] for part in plan.released.parts]
    weights = dict(zip(plan.released.shard_names, digests, strict=True))
    measured.write(plan, item, [0.9 + number / 100 - better for number in range(12)], weights=weights)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return build(tmp_path_factory.mktemp("first"), 0.5, better=0.01)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return build(tmp_path_factory.mktemp("second"), 0.75)


def told(capsys, *places, **options):
    assert (
        main(
            [
                "compare",
                *map(str, places),
                *(x for pair in options.items() for x in (f"--{pair[0]}", str(pair[1]))),
            ]
        )
        == 0
    )
    return capsys.readouterr().out


def test_a_release_equals_itself(first, capsys):
    text = told(capsys, first, first)
    for part in ("recipe", "lock", "code", "results"):
        assert f"{part:8} equal" in text
    assert "12 documents: A - B is +0 (+0 to +0), p 1.0000: no measurable difference" in text


def test_what_differs_is_named_and_the_better_one(first, second, tmp_path, capsys):
    text = told(capsys, first, second, json=tmp_path / "report.json")
    assert "parameter `models.cut.rank.fraction` was 0.75, is 0.5" in text
    assert "code     equal" in text
    assert "weights: 1 different" in text
    assert (
        "measured held_out (bits_per_byte), 12 documents: A - B is -0.01 (-0.01 to -0.01), p 0.0005: A is better"
        in text
    )
    (found,) = json.loads((tmp_path / "report.json").read_text())["comparisons"]
    assert (found["verdict"], found["model"], found["other"]) == ("better", "A", "B")
    assert "A is worse" in told(capsys, second, first)


def test_samples_come_from_the_build_around_a_release_or_are_missed(second, tmp_path, capsys):
    own = build(tmp_path / "own", 0.75, samples=False)
    assert not list((own / EVALUATIONS).glob("*.bz2"))
    assert "no measurable difference" in told(capsys, own, second)
    shutil.copytree(own, tmp_path / "elsewhere/copy/release")
    text = told(capsys, tmp_path / "elsewhere/copy/release", second)
    assert "note     A: its samples are not in the release (`release_samples`)" in text


def test_samples_that_are_not_those_of_the_measurement_are_refused(first, second, tmp_path, capsys):
    copy = tmp_path / "r"
    shutil.copytree(first, copy)
    (path,) = (copy / EVALUATIONS).glob("*.bz2")
    (other,) = (second / EVALUATIONS).glob("*.bz2")
    path.write_bytes(other.read_bytes())
    assert main(["compare", str(copy), str(second)]) == 8
    assert "other samples than were measured" in capsys.readouterr().err


def test_a_recipe_that_differs_in_comments_alone(first, tmp_path, capsys):
    copy = tmp_path / "r"
    shutil.copytree(first, copy)
    (copy / RECIPE).write_text("# why\n" + (copy / RECIPE).read_text())
    sums = copy / "SHA256SUMS"
    lines = [
        line if not line.endswith(RECIPE) else "0" * 64 + line[64:] for line in sums.read_text().splitlines()
    ]
    sums.write_text("\n".join(lines) + "\n")
    assert "only in layout or comments" in told(capsys, copy, first)


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_what_is_no_release_is_refused(place, first, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", place, str(first)]) in {2, 8, 9}
    assert "Traceback" not in capsys.readouterr().err
