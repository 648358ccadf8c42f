"""Comparisons, marks and claims on what is not measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support import tiny
from support.boards import JSON_BOARD as BOARD
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def recipe(**changes: Any) -> Callable[[Path], Path]:
    """Return a maker of a model that is measured, and of a recipe with these sections."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        tiny.write_task(folder / "task.yaml")
        (folder / "board.json").write_text(json.dumps([{"model": "a", "score": 1}]), encoding="utf-8")
        measured = {"tasks": ["task.yaml"], "models": ["base"], **changes.get("evaluate", {})}
        sections = {"leaderboards": {"board": BOARD}, **changes, "evaluate": measured}
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}}, **sections)

    return make


MARK = {"task": "held_out", "metric": "bits_per_byte"}
BENCHMARK = {"task": "held_out", "metric": "acc", "dataset": "a/b", "id": "b", "scale": 100}
CLAIM = {"text": "So it is.", "by": "Somebody"}
CASES = [
    Case(
        "a comparison with a model that is not measured",
        recipe(evaluate={"compare": {"base": ["bese"]}}),
        "evaluate.compare.base.0: 'bese' is not in evaluate.models; did you mean 'base'?",
    ),
    Case(
        "a mark on a task that the recipe does not have",
        recipe(marks=[{**MARK, "task": "held_in", "at_most": 1}]),
        "marks.0.task: no task is named 'held_in'; did you mean 'held_out'?",
    ),
    Case(
        "a mark with two limits",
        recipe(marks=[{**MARK, "at_most": 1, "at_least": 0}]),
        "marks.0: give one of at_least, at_most, no_worse_than",
    ),
    Case(
        "a mark that compares the release with itself",
        recipe(marks=[{**MARK, "no_worse_than": "base"}]),
        "marks.0.no_worse_than: the released model is compared with itself",
    ),
    Case(
        "a leaderboard on a task that the recipe does not have",
        recipe(leaderboards={"board": {**BOARD, "task": "held_in"}}),
        "leaderboards.board.task: no task is named 'held_in'; did you mean 'held_out'?",
    ),
    Case(
        "a snapshot that is to be fetched from two places",
        recipe(leaderboards={"board": {**BOARD, "fetch": {"url": "https://a.org/b.csv", "dataset": "a/b"}}}),
        "leaderboards.board.fetch: ",
    ),
    Case(
        "a leaderboard with a measured score and a row of its own",
        recipe(leaderboards={"board": {**BOARD, "row": {"model": "a"}}}),
        "leaderboards.board: give ",
    ),
    Case(
        "a snapshot on another kind of server",
        recipe(leaderboards={"board": {**BOARD, "fetch": {"url": "ftp://a.org/b.csv"}}}),
        "leaderboards.board.fetch.url: ",
    ),
    Case(
        "a benchmark of the Hub that is measured in part",
        recipe(evaluate={"limit": 4}, benchmarks=[BENCHMARK]),
        "benchmarks: evaluate.limit measures only 4 documents of each",
    ),
    Case(
        "a benchmark of the Hub on the recipe's own data",
        recipe(benchmarks=[BENCHMARK]),
        "benchmarks.0.dataset: held_out reads files of its own, not ",
    ),
    Case(
        "a benchmark on a task that the recipe does not have",
        recipe(benchmarks=[{**BENCHMARK, "task": "held_in"}]),
        "benchmarks.0.task: no task is named 'held_in'; did you mean 'held_out'?",
    ),
    Case(
        "a type to measure in that no model has",
        recipe(evaluate={"dtype": "float8"}),
        "evaluate.dtype: ",
    ),
    Case(
        "llama.cpp's runtime without the dequantized file to compare with",
        recipe(quantize={"methods": ["Q8_0"], "evaluate": False, "runtime": "llama.cpp"}),
        "quantize: runtime: is compared with the dequantized file",
    ),
    Case(
        "a snapshot in another format",
        recipe(leaderboards={"board": {**BOARD, "snapshot": "board.xlsx"}}),
        "leaderboards.board.snapshot: ",
    ),
    Case(
        "a claim on a leaderboard that the recipe does not have",
        recipe(claims=[{**CLAIM, "rank": {"leaderboard": "bord", "place": 1}}]),
        "claims.0.rank.leaderboard: no leaderboard is named 'bord'; did you mean 'board'?",
    ),
    Case(
        "a claim to be better than a model that is not compared",
        recipe(claims=[{**CLAIM, "better": {"than": "base", "task": "held_out"}}]),
        "claims.0.better: evaluate.compare does not compare 'base' with 'base'",
    ),
]
