"""A release with a searched merge: its card states both gains, and what seed and scores do not propose is found."""

import shutil
from pathlib import Path

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.plan.jobs import model_jobs
from herdbook.release.finding import Outcome
from herdbook.steps.card.step import render_card
from herdbook.steps.registry import run
from herdbook.tuning.tune import Tuning
from support import tiny, tuned
from support.verification import findings


def loss(x, y, split, number):
    return tuned.bowl(x, y) + tuned.noise(split, number) * (1 + x / 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    recipe = tuned.write(folder)
    lock = tiny.lock(recipe)
    made = Tuning(
        "sum", recipes.load(recipe), lock, recipe, folder / "trials", tuned.ClosedForm(loss), lambda _: None
    )
    write(recipe, lock, made.run())
    return folder


def write(recipe, lock, result):
    search = lock.tuned["sum"].model_copy(update={"result": result})
    locks.write(lock.model_copy(update={"tuned": {"sum": search}}), locks.path_for(recipe))


def release(folder, **changes):
    """Release the folder's recipe, with other results of its search; return the release's folder and its card."""
    recipe = folder / "recipe.yaml"
    lock = locks.load(locks.path_for(recipe))
    write(recipe, lock, lock.tuned["sum"].result.model_copy(update=changes))
    plan = plans.load(recipe, folder / "results")
    for job in model_jobs(plan):
        if not all(map(Path.exists, job.outputs)):
            run(plan, job)
    render_card(plan, plan.layout.card_folder)
    return tiny.release(plan), (plan.layout.card_folder / "README.md").read_text(encoding="utf-8")


def searched(folder):
    return [one for one in findings(folder, "recomputed", sample_bytes=None) if one.check == "search"]


def test_the_card_states_both_gains_and_the_trials_are_recomputed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    released, card = release(tmp_path / "copy")
    result = locks.load(released / "recipe.lock.json").tuned["sum"].result
    assert result.kept == "winner"
    for gain in (result.validation, result.test):
        assert f"| {gain.documents} | {gain.difference:+.4f} |" in card
    assert "The model has the numbers of the best trial." in card
    (found,) = searched(released)
    assert (found.outcome, found.subject) == (Outcome.PASSED, "search of sum")


def test_trials_that_seed_and_scores_do_not_propose_are_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    result = locks.load(locks.path_for(folder / "recipe.yaml")).tuned["sum"].result
    better = result.trials[20].model_copy(update={"point": (0.9, 0.9), "score": 0.5})
    released, _ = release(tmp_path / "copy", trials=(*result.trials[:20], better, *result.trials[21:]))
    (found,) = searched(released)
    assert found.outcome is Outcome.FAILED
    assert "not those that its seed and scores propose" in found.detail


def test_a_winner_that_its_test_does_not_support_is_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    result = locks.load(locks.path_for(folder / "recipe.yaml")).tuned["sum"].result
    released, _ = release(tmp_path / "copy", test=result.test.model_copy(update={"p": 0.2}))
    (found,) = searched(released)
    assert found.outcome is Outcome.FAILED
    assert "the winner is kept, and by the recorded test it must be the start" in found.detail
