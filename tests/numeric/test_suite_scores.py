"""Scores of suites against numbers computed by hand, and against rows of the board itself."""

from pathlib import Path

import pytest

from herdbook import recipe as recipes
from herdbook.comparison.scores import suite_scores
from herdbook.recipe import parse_suite

SUITES = Path(__file__).parents[2] / "config/suites"
GROUPS = {
    "leaderboard_gpqa": ("diamond", "extended", "main"),
    "leaderboard_math_hard": ("algebra", "geometry"),
    "mmlu": ("mmlu_anatomy", "mmlu_virology"),
}


def of(name):
    path = SUITES / f"{name}.yaml"
    return parse_suite(recipes.read_text(path), str(path))


def scored(name, **results):
    """Return the scores that need no more than these results: by task (``__`` for the metric's comma), pairs."""
    suite = of(name)
    given = {(task, metric): found for task, metrics in results.items() for metric, found in metrics.items()}
    have = {task for task, _ in given}
    kept = {
        score: parts
        for score, parts in suite.scores.items()
        if all(set(GROUPS.get(part.task, (part.task,))) <= have for part in parts)
    }
    chosen = suite.model_copy(update={"scores": kept})
    return suite_scores(chosen, lambda task: GROUPS.get(task, (task,)), given)


def test_the_second_board_s_row_of_a_model_follows_from_its_results():
    """Llama-2-7b-hf: IFEval 25.19, MATH 1.21, GPQA 2.24, MMLU-Pro 9.57 on the board; of IFEval, its results are published."""
    found = scored(
        "open-llm-leaderboard-2",
        leaderboard_ifeval={
            "prompt_level_strict_acc": (0.18484288354898337, 541),
            "inst_level_strict_acc": (0.31894484412470026, 541),
        },
        # 318 of 1192 and 16 of 1324 are the only counts that give the board's rounded scores
        diamond={"acc_norm": (60 / 198, 198)},
        extended={"acc_norm": (140 / 546, 546)},
        main={"acc_norm": (118 / 448, 448)},
        algebra={"exact_match": (10 / 307, 307)},
        geometry={"exact_match": (6 / 1017, 1017)},
        leaderboard_mmlu_pro={"acc": (0.1860871010638298, 12032)},
    )
    rounded = {name: round(value, 2) for name, value in found.items()}
    assert rounded == {"IFEval": 25.19, "MATH Lvl 5": 1.21, "GPQA": 2.24, "MMLU-Pro": 9.57}


def test_subtasks_are_normalized_one_by_one_and_none_is_below_zero():
    """The board's own example: 0.7, 0.4 and 0.6 of MuSR are 40, 25 and 40."""

    def musr(murder, objects, team):
        names = ("murder_mysteries", "object_placements", "team_allocation")
        results = {
            f"leaderboard_musr_{name}": {"acc_norm": (value, 250)}
            for name, value in zip(names, (murder, objects, team), strict=True)
        }
        return scored("open-llm-leaderboard-2", **results)["MuSR"]

    assert musr(0.7, 0.4, 0.6) == pytest.approx((40 + 25 + 40) / 3)
    assert musr(0.4, 0.4, 0.2) == pytest.approx(25 / 3)


def test_guessing_scores_nothing_and_the_best_all():
    suite = of("open-llm-leaderboard-2")
    parts = [part for parts in suite.scores.values() for part in parts]
    for share, expected in ((0.0, 0.0), (1.0, 100.0)):
        results = {
            (leaf, part.metric): (part.lowest + share * (part.highest - part.lowest), 10)
            for part in parts
            for leaf in GROUPS.get(part.task, (part.task,))
        }
        found = suite_scores(suite, lambda task: GROUPS.get(task, (task,)), results)
        assert found == pytest.approx(dict.fromkeys(suite.scores, expected))


def test_the_first_board_gives_every_subject_of_mmlu_the_same_weight():
    found = scored(
        "open-llm-leaderboard-1", mmlu_anatomy={"acc": (0.2, 1000)}, mmlu_virology={"acc": (0.6, 10)}
    )
    assert found["MMLU"] == pytest.approx(40)


@pytest.mark.slow
def test_bounds_are_those_of_the_choices_and_all_tasks_exist():
    """lm-eval itself says how many choices there are; and each suite's scores are of results that its tasks have."""
    from herdbook.errors import Gathered
    from herdbook.lock import labels_of
    from herdbook.lock.evaluation import LockedSuite
    from herdbook.lock.file import LockedFile
    from herdbook.lock.suite import check_scores
    from herdbook.lock.task import pin_tasks

    suites = {path.name: of(path.stem) for path in SUITES.glob("*.yaml")}
    names = [task.task for suite in suites.values() for task in suite.tasks]
    found = Gathered()
    tasks = pin_tasks(dict.fromkeys(names, "evaluate.tasks"), [], SUITES, found)
    found.end()
    file = LockedFile(name="s", size_bytes=0)
    check_scores({name: LockedSuite(file=file, suite=suite) for name, suite in suites.items()}, tasks)
    recipe = recipes.load(SUITES.parent / "buttercup.yaml")
    known = {name: labels_of(config) for task in tasks.values() for name, config in task.definitions.items()}
    assert all(mark.metric in known[mark.task] for mark in recipe.marks)
    assert {claim.better.task for claim in recipe.claims if claim.better} <= known.keys()
    definitions = {name: config for task in tasks.values() for name, config in task.definitions.items()}
    bounds = suites["open-llm-leaderboard-2.yaml"].scores["BBH"]
    assert len(bounds) == 24
    for part in bounds:
        assert part.lowest == pytest.approx(1 / len(definitions[part.task]["doc_to_choice"]))
    shots = {name: config.get("num_fewshot") for name, config in definitions.items()}
    assert {shots[name] for name in shots if "_bbh_" in name} == {3}
    assert {shots[name] for name in shots if "leaderboard_math" in name} == {4}
    assert (shots["leaderboard_mmlu_pro"], shots["leaderboard_ifeval"]) == (5, 0)
