"""Searches over a merge: the optimizer's wiring against closed forms, resumption, and what is refused."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.cli.main import main
from herdbook.errors import RecipeError, StepError
from herdbook.lock import best_of
from herdbook.lock.searches import with_results
from herdbook.plan.searched import at_least_start
from herdbook.tuning.build import Snakemake, are_of, path_of_trials, write_recipe
from herdbook.tuning.proposals import follow, proposed
from herdbook.tuning.trials import trial_recipe
from herdbook.tuning.tune import Tuning
from support import tiny, tuned


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


def test_two_workers_find_what_one_finds(recipe, tmp_path):
    class TwoWorkers(tuned.ClosedForm):
        """The last trial of a generation begins first, two at a time."""

        def __call__(self, plan, wanted):
            with ThreadPoolExecutor(2) as workers:
                list(
                    workers.map(lambda path: super(TwoWorkers, self).__call__(plan, [path]), reversed(wanted))
                )

    assert tune(recipe, tmp_path / "one", tuned.ClosedForm(bowl)) == tune(
        recipe, tmp_path / "two", TwoWorkers(bowl)
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
    with pytest.raises(
        RecipeError, match="models.sum.search: nothing was tried yet. Run `herdbook tune .*recipe.yaml`"
    ):
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
    plan, (warning,) = at_least_start(recipes.load(recipe), lock, recipe)  # as after `herdbook refresh`
    assert "was found by another search" in warning
    assert [model.weight for model in plan.released.recipe.merge.models] == [0.5, 0.5]


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


def test_what_is_measured_on_the_validation_split_is_a_warning(tmp_path):
    evaluate = {"tasks": ["validation.yaml"], "models": ["sum"]}
    path = tuned.write(tmp_path, evaluate=evaluate)
    tiny.lock(path)
    plain = recipes.without_searches(recipes.load(path))
    lock = locks.load(locks.path_for(path))
    assert plans.make(plain, lock, path).warnings == ()
    result = tune(path, tmp_path / "results", tuned.ClosedForm(bowl))
    (warning,) = plans.make(recipes.load(path), found(path, result), path).warnings
    assert (
        "evaluate.tasks: validation.yaml reads validation.jsonl, by which models.sum.search chose" in warning
    )


def test_documents_in_both_splits_are_found_before_the_first_generation(recipe, tmp_path):
    class Shared(tuned.ClosedForm):
        """Digests of documents that begin at one number in both tasks."""

        first = 0

    build = Shared(bowl)
    with pytest.raises(RecipeError, match="24 of 40 documents are also those of `validation`"):
        tune(recipe, tmp_path, build)
    assert {name for name, _ in build.made} == {"sum-trial-0"}


@pytest.mark.parametrize("count", [1, 5, 6])
def test_a_test_split_that_can_show_no_gain_is_refused_before_the_first_generation(
    recipe, tmp_path, monkeypatch, count
):
    monkeypatch.setitem(tuned.DOCUMENTS, "test", count)
    build = tuned.ClosedForm(lambda x, y, *_: tuned.bowl(x, y))
    if 2 / 2**count > 0.05:  # all signs alike, of all signs that there are
        with pytest.raises(RecipeError, match=rf"search\.test: a paired test of {count} document"):
            tune(recipe, tmp_path, build)
        assert {name for name, _ in build.made} == {"sum-trial-0"}
    else:
        assert tune(recipe, tmp_path, build).kept == "winner"


@pytest.mark.parametrize(
    ("item", "start", "names"),
    [
        ({"order": "moe.experts"}, (0.25, 0.75), ["moe.experts[0]", "moe.experts[1]"]),
        ({"path": "moe.experts.0.prompts", "choices": [["w3"], ["w1"]]}, (0.75,), ["moe.experts.0.prompts"]),
    ],
)
def test_orders_and_prompts_of_a_mixture_are_searched(item, start, names):
    search = {**tuned.SEARCH, "over": [item]}
    experts = [{"model": "a", "prompts": ["w1"]}, {"model": "b", "prompts": ["w2"]}]
    models = {
        "a": {"folder": "a"},
        "b": {"folder": "b"},
        "m": {"moe": {"base": "a", "experts": experts}, "search": search},
    }
    release = {"model": "m", "name": "M", "license": "apache-2.0"}
    model = recipes.parse(json.dumps({"models": models, "release": release})).models["m"]
    space = recipes.Space(model, model.search)
    assert (space.start, list(space.names)) == (start, names)
    assert space.model(start).moe == model.moe
    other = space.model(tuple(reversed(start)) if len(start) > 1 else (0.2,)).moe.experts
    if "order" in item:
        assert [expert.model for expert in other] == ["b", "a"]
    else:
        assert other[0].prompts == ["w3"]


def test_a_budget_of_laser_is_searched():
    search = {**tuned.SEARCH, "over": [{"path": "rank.budget", "low": 0.5, "high": 1}]}
    cut = {"laser": "a", "rank": {"budget": 0.9}, "matrices": ["mlp.up_proj"], "search": search}
    release = {"model": "cut", "name": "Cut", "license": "apache-2.0"}
    text = json.dumps({"models": {"a": {"folder": "a"}, "cut": cut}, "release": release})
    model = recipes.parse(text).models["cut"]
    (rule,) = recipes.Space(model, model.search).model((0.5,)).ranks
    assert rule.canonical == {"budget": 0.75}


def test_numbers_of_a_former_lock_are_kept_by_a_new_one(recipe, tmp_path):
    result = tune(recipe, tmp_path, tuned.ClosedForm(bowl))
    before = tmp_path / "before.lock.json"
    locks.write(found(recipe, result), before)
    fresh = locks.load(locks.path_for(recipe))
    assert fresh.tuned["sum"].result is None
    assert with_results(fresh, before) == found(recipe, result)
    assert with_results(fresh, tmp_path / "nothing.lock.json") == fresh


def test_a_recipe_without_a_search_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tuned.write(tmp_path, None)
    tiny.lock(path)
    assert main(["tune", str(path)]) == 2
    assert "no model has a `search`, so there is nothing to find" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["r.yaml", "--recipe", "other.yaml"], "two recipes were given: r.yaml and --recipe other.yaml"),
        (["r.yaml", "other.yaml"], "unexpected extra argument (other.yaml)"),
        (["r.yaml", "--", "all", "--cores", "2"], "unexpected extra argument (all)"),
    ],
)
def test_one_recipe_is_searched_at_a_time(words, said, capsys):
    assert main(["tune", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_lock_that_was_changed_while_its_search_ran_stays_as_it_is(tmp_path, monkeypatch, capsys):
    recipe, build = tuned.write(tmp_path), tuned.ClosedForm(bowl)
    tiny.lock(recipe)
    path = locks.path_for(recipe)

    def relocked(self, plan, wanted):
        build(plan, wanted)
        lock = locks.load(path)
        pins = {**lock.sources, "b": lock.sources["a"]}
        locks.write(lock.model_copy(update={"sources": pins}), path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Snakemake, "__call__", relocked)
    assert main(["tune", str(recipe)]) == 3
    assert "was changed while models.sum.search was made" in capsys.readouterr().err
    lock = locks.load(path)
    assert lock.sources["b"] == lock.sources["a"]
    assert lock.tuned["sum"].result is None


def test_no_recipe_of_trials_is_left_when_a_search_is_refused(recipe, tmp_path, monkeypatch, capsys):
    def refuse(self, plan, wanted):
        write_recipe(plan)
        raise RecipeError("models.sum.search.test: no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Snakemake, "__call__", refuse)
    assert main(["tune", str(recipe)]) == 2
    assert "models.sum.search.test: no" in capsys.readouterr().err
    assert not list(recipe.parent.glob("*.trials.*"))


def test_a_search_has_not_more_trials_than_can_be_verified():
    with pytest.raises(ValueError, match="1,000,000 trials, over the limit of 10,000"):
        recipes.Search.model_validate({**tuned.SEARCH, "generations": 1000, "population": 1000})


def test_snakemake_is_run_with_the_options_as_they_are_given(recipe, tmp_path, monkeypatch):
    made = tmp_path / "made"
    program = tmp_path / "bin/snakemake"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$HERDBOOK_TRIALS $@" >{tmp_path}/asked\ntouch {made}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    content = recipes.load(recipe)
    validation, _ = content.models["sum"].search.tasks
    trials = trial_recipe(content, "sum", {0: (0.5, 0.5)}, validation)
    path = path_of_trials(tmp_path / "tiny.yaml")
    plan = SimpleNamespace(recipe=trials, lock=locks.load(locks.path_for(recipe)), recipe_path=path)
    build = Snakemake(["--config", "cache=s3://herd/cache"])
    build(plan, [made])
    assert (tmp_path / "asked").read_text().split() == [
        str(path),
        "--config",
        "cache=s3://herd/cache",
        "--",
        str(made),
    ]
    assert are_of(str(path), str(tmp_path / "tiny.yaml"))
    assert not are_of(str(path), str(tmp_path / "other.yaml"))
    with pytest.raises(StepError, match="nothing: Snakemake did not make it. Leave out options"):
        build(plan, [made, tmp_path / "nothing"])
