"""Searches over a merge: the optimizer's wiring against closed forms, resumption, and what is refused."""

import random

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import RecipeError
from herdbook.lock import best_of
from herdbook.tuning.proposals import follow, proposed
from herdbook.tuning.tune import Tuning
from support import tiny, tuned

pytest.importorskip("cmaes")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tuned.write(tmp_path_factory.mktemp("tune"))
    tiny.lock(path)
    return path


def tune(recipe, results, build):
    return Tuning(
        "sum",
        recipes.load(recipe),
        locks.load(locks.path_for(recipe)),
        recipe,
        results,
        build,
        lambda _: None,
    ).run()


def bowl(x, y, split, number):
    return tuned.bowl(x, y) + tuned.noise(split, number)


def test_the_minimum_of_a_bowl_is_found(recipe, tmp_path):
    build = tuned.ClosedForm(bowl)
    result = tune(recipe, tmp_path, build)
    space = recipes.Space(
        recipes.load(recipe).models["sum"], recipes.search_of(recipes.load(recipe).models["sum"])
    )
    values = [list(space.values(trial.point).values()) for trial in result.trials]
    offset = sum(tuned.noise("validation", n) for n in range(24)) / 24
    assert [trial.score for trial in result.trials] == pytest.approx(
        [tuned.bowl(*pair) + offset for pair in values], abs=1e-5
    )
    assert values[0] == [0.5, 0.5]
    assert result.winner == min(range(37), key=lambda number: tuned.bowl(*values[number]))
    assert tuned.bowl(*values[result.winner]) - 1 < 0.05 < tuned.bowl(0.5, 0.5) - 1
    assert result.kept == "winner"
    gain = tuned.bowl(*values[result.winner]) - tuned.bowl(0.5, 0.5)
    for split in (result.validation, result.test):
        assert split.difference == split.low == split.high == pytest.approx(gain, abs=1e-5)
    assert [name for name, split in build.made if split == "test"] == [
        "sum-trial-0",
        f"sum-trial-{result.winner}",
    ]


def test_a_search_that_was_interrupted_goes_on_with_what_was_measured(recipe, tmp_path):
    whole = tuned.ClosedForm(bowl)
    expected = tune(recipe, tmp_path / "whole", whole)
    results, made = tmp_path / "parts", []
    for _ in range(100):
        build = tuned.ClosedForm(bowl, ends_after=7)
        try:
            result = tune(recipe, results, build)
            break
        except KeyboardInterrupt:
            assert len(build.made) == 7
        finally:
            made += build.made
    assert result == expected
    assert made == whole.made  # nothing twice


def test_the_order_in_which_trials_end_decides_nothing(recipe, tmp_path):
    class Backwards(tuned.ClosedForm):
        """The last trial of a generation ends first, and another process may read at any time."""

        def __call__(self, plan, wanted):
            for path in reversed(wanted):
                super().__call__(plan, [path])

    assert tune(recipe, tmp_path / "one", tuned.ClosedForm(bowl)) == tune(
        recipe, tmp_path / "other", Backwards(bowl)
    )


def test_a_gain_by_luck_alone_is_nothing(recipe, tmp_path):
    def luck(x, y, split, number):
        return 1 + random.Random(f"{x} {y} {split} {number}").gauss(0, 0.1)

    result = tune(recipe, tmp_path, tuned.ClosedForm(luck))
    assert result.validation.difference < 0  # it was chosen by that
    assert result.test.p > 0.05
    assert result.kept == "start"
    assert result.point == result.trials[0].point


def test_a_start_that_no_trial_beats_is_kept_untested(recipe, tmp_path):
    build = tuned.ClosedForm(lambda x, y, *_: 1 + abs(x - 0.5) + abs(y - 0.5))
    result = tune(recipe, tmp_path, build)
    assert (result.winner, result.kept, result.test) == (0, "start", None)
    assert [name for name, split in build.made if split == "test"] == ["sum-trial-0"]


def found(recipe, result):
    """Return the lock with what a search found."""
    lock = locks.load(locks.path_for(recipe))
    search = lock.tuned["sum"].model_copy(update={"result": result})
    return lock.model_copy(update={"tuned": {"sum": search}})


def test_the_plan_is_that_of_a_recipe_with_the_found_numbers(recipe, tmp_path):
    result = tune(recipe, tmp_path, tuned.ClosedForm(bowl))
    content, lock = recipes.load(recipe), found(recipe, result)
    assert locks.parse(locks.render(lock).encode()) == lock
    plan = plans.make(content, lock, recipe, tmp_path)
    weights = [model.weight for model in plan.released.recipe.merge.models]
    written = recipes.parse(
        recipe.read_text()
        .replace("- model: a\n        weight: 0.5", f"- model: a\n        weight: {weights[0]}")
        .replace("- model: b\n        weight: 0.5", f"- model: b\n        weight: {weights[1]}")
    )
    assert weights != [0.5, 0.5]
    assert weights == [model.weight for model in written.models["sum"].merge.models]
    plain = plans.make(recipes.without_searches(written), lock, recipe, tmp_path)
    assert plan.released.key == plain.released.key
    assert (
        plans.make(recipes.without_searches(content), lock, recipe, tmp_path).released.key
        != plain.released.key
    )


def test_a_recipe_is_not_planned_before_its_search(recipe):
    with pytest.raises(RecipeError, match="models.sum.search: nothing was tried yet. Run `herdbook tune`"):
        plans.load(recipe)


@pytest.mark.parametrize(
    ("old", "new"),
    [("seed: 7", "seed: 8"), ("weight: 0.5", "weight: 0.6"), ("generations: 6", "generations: 5")],
)
def test_what_another_search_found_is_not_taken(recipe, tmp_path, old, new):
    result = tune(recipe, tmp_path, tuned.ClosedForm(bowl))
    text = recipe.read_text().replace("population: 6", "population: 6\n      seed: 7")
    changed = recipes.parse(text.replace(old, new, 1))
    with pytest.raises(RecipeError, match="was found by another search, or for other models or tasks"):
        plans.make(changed, found(recipe, result), recipe)


def test_what_was_found_for_other_sources_is_not_taken(recipe, tmp_path):
    result = tune(recipe, tmp_path, tuned.ClosedForm(bowl))
    lock = found(recipe, result)
    moved = lock.sources["a"].model_copy(update={"revision": "0" * 64})
    lock = lock.model_copy(update={"sources": {**lock.sources, "a": moved}})
    with pytest.raises(RecipeError, match="was found by another search, or for other models or tasks"):
        plans.make(recipes.load(recipe), lock, recipe)


def test_proposals_follow_from_seed_and_scores_and_show_another_score():
    search = recipes.Search.model_validate(tuned.SEARCH)
    start, scores = (0.5, 0.5), []
    for _ in range(search.generations):
        points = proposed(search, start, scores)
        assert points[: len(scores)] == proposed(search, start, scores[: len(scores)])[: len(scores)]
        scores += [tuned.bowl(2 * x, 2 * y) for x, y in points[len(scores) :]]
    points = [start, *points]
    scores = [tuned.bowl(1, 1), *scores]
    assert follow(search, points, scores, higher_is_better=False)
    assert not follow(search, points, scores, higher_is_better=True)
    other = [*points[:9], (points[9][0] + 0.001, points[9][1]), *points[10:]]
    assert not follow(search, other, scores, higher_is_better=False)
    assert not follow(search, points[:-1], scores[:-1], higher_is_better=False)
    worst = best_of(scores[1:7], higher_is_better=True) + 1
    scores[worst] = 0.0
    assert not follow(search, points, scores, higher_is_better=False)


def test_a_single_number_is_searched():
    search = recipes.Search.model_validate({**tuned.SEARCH, "generations": 8})
    scores = []
    for _ in range(search.generations):
        points = proposed(search, (0.5,), scores)
        scores += [(point[0] - 0.8) ** 2 for point in points[len(scores) :]]
    assert {len(point) for point in points} == {1}
    assert min(scores) < 1e-4
