"""Which tasks a recipe measures and how, and what of that cannot work, before anything is fetched or measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.errors import RecipeError
from herdbook.humanize import did_you_mean
from herdbook.lock import data_set_of, labels_of
from herdbook.recipe import measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.lock import Lock, LockedTask
    from herdbook.plan.model import Node
    from herdbook.recipe import Asked, Recipe

GENERATED = "generate_until"  # lm-eval's name for tasks in which the model writes a text


@dataclass(frozen=True)
class Group:
    """The tasks that one job measures a model on: those of a suite, or those of no suite, in one type.

    Another suite of the recipe may change without measuring these again.

    Args:
        suite: The name of the suite; empty for tasks that belong to none.
        dtype: The type in which models are measured.
        own_dtype: Whether that is another type than the recipe's.
        tasks: The tasks, each with the settings that apply to it.
    """

    suite: str
    dtype: str
    own_dtype: bool
    tasks: tuple[tuple[LockedTask, Asked], ...]

    @property
    def name(self) -> str:
        """What distinguishes it from the other groups of a recipe, for names of files; empty if nothing does."""
        return ".".join([*([self.suite] if self.suite else []), *([self.dtype] if self.own_dtype else [])])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what has results in it: tasks, and groups of lm-eval."""
        return tuple(name for locked, _ in self.tasks for name in (*locked.titles, *locked.groups))


def groups(recipe: Recipe, lock: Lock) -> tuple[Group, ...]:
    """Return the pinned tasks of a recipe, in the groups that are measured together."""
    if recipe.evaluate is None:
        return ()
    common = recipe.evaluate.dtype
    suites = {path: locked.suite for path, locked in lock.suites.items()}
    found: dict[tuple[str, str], list[tuple[LockedTask, Asked]]] = {}
    for task, asked, suite in measured(recipe.evaluate, suites):
        found.setdefault((suite, asked.dtype or common), []).append((lock.tasks[task], asked))
    return tuple(
        Group(suite, dtype, dtype != common, tuple(tasks)) for (suite, dtype), tasks in found.items()
    )


def asked_tasks(recipe: Recipe, lock: Lock) -> list[tuple[LockedTask, Asked]]:
    """Return the pinned tasks of a recipe, those of suites included, each with the settings that apply to it."""
    return [pair for group in groups(recipe, lock) for pair in group.tasks]


def labels(lock: Lock) -> dict[str, tuple[str, ...]]:
    """Return the names of the results of each task that is measured, and of each group as a whole, by its name."""
    found = {
        name: labels_of(config) for task in lock.tasks.values() for name, config in task.definitions.items()
    }
    for task in lock.tasks.values():
        for name in task.groups:
            if own := _labels_of_group(task, name, found):
                found[name] = own
    return found


def _labels_of_group(task: LockedTask, name: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of the results of a group as a whole; none if its definition names none."""
    metrics = [entry["metric"] for entry in task.groups[name].config.get("aggregate_metric_list") or []]
    of_tasks = dict.fromkeys(label for leaf in task.leaves(name) for label in known[leaf])
    return tuple(label for label in of_tasks if label.partition(",")[0] in metrics)


def check_tasks(recipe: Recipe, lock: Lock) -> None:
    """Check that marks, benchmarks, leaderboards and claims are on results of the recipe's tasks. Raises RecipeError."""
    named: dict[str, tuple[str, str | None]] = {}
    named |= {f"marks.{index}": (mark.task, mark.metric) for index, mark in enumerate(recipe.marks)}
    named |= {f"benchmarks.{index}": (one.task, one.metric) for index, one in enumerate(recipe.benchmarks)}
    named |= {
        f"leaderboards.{key}": (one.task, one.metric) for key, one in recipe.leaderboards.items() if one.task
    }
    named |= {
        f"claims.{index}.better": (claim.better.task, None)
        for index, claim in enumerate(recipe.claims)
        if claim.better
    }
    known = labels(lock) or {task.name: () for task in lock.tasks.values()}
    problems = list(_benchmark_problems(recipe, lock))
    tested = {f"marks.{index}" for index, mark in enumerate(recipe.marks) if mark.no_worse_than}
    tested |= {f"claims.{index}.better" for index, claim in enumerate(recipe.claims) if claim.better}
    wholes = {name for locked in lock.tasks.values() for name in locked.groups}
    for where, (task, metric) in named.items():
        if task not in known:
            problems.append(f"{where}.task: no task is named {task!r}{did_you_mean(task, known)}")
        elif where in tested and task in wholes:
            problems.append(
                f"{where}.task: {task} is a group; models are compared in tasks. Name one of its tasks"
            )
        elif metric is not None and known[task] and metric not in known[task]:
            has = "; ".join(known[task])
            problems.append(f"{where}.metric: {task} has no {metric!r}; it has {has}")
    if problems:
        raise RecipeError(problems)


def _benchmark_problems(recipe: Recipe, lock: Lock) -> Iterator[str]:
    """Yield what would make a result another one than that of a benchmark: a part of its documents, or other data."""
    asked = {
        name: (locked, own)
        for locked, own in asked_tasks(recipe, lock)
        for name in (*locked.titles, *locked.groups)
    }
    for index, benchmark in enumerate(recipe.benchmarks):
        if benchmark.task not in asked:
            continue  # named by the caller
        where, (locked, own) = f"benchmarks.{index}", asked[benchmark.task]
        if own.limit:
            yield (
                f"{where}.task: only {own.limit} documents of {benchmark.task} are measured (its limit), which is no result of "
                "a benchmark"
            )
        repo, _, revision = benchmark.dataset.partition("@")
        configs = [locked.definitions[name] for name in locked.leaves(benchmark.task)]
        keys = {data_set_of(config) for config in configs}
        read = sorted({f"{one.repo}@{one.revision}" for key in keys if key and (one := lock.data_sets[key])})
        if None in keys or {name.partition("@")[0] for name in read} != {repo}:
            what = f"reads {', '.join(read)}" if read else "reads files of its own"
            yield f"{where}.dataset: {benchmark.task} {what}, not {repo}"
        elif revision and read != [benchmark.dataset]:
            yield f"{where}.dataset: {benchmark.task} reads {', '.join(read)}, not the commit {revision}"


def check_settings(recipe: Recipe, lock: Lock, nodes: Mapping[str, Node]) -> None:
    """Check that the settings of tasks fit the tasks and the measured models. Raises RecipeError; each problem is named."""
    problems: list[str] = []
    for locked, asked in asked_tasks(recipe, lock):
        where = f"evaluate.tasks: {locked.name}"
        for name, config in locked.definitions.items():
            own = "" if name == locked.name else f"{name}: "
            problems += [f"{where}: {own}{problem}" for problem in _problems(config, asked)]
        if asked.gen_kwargs and not any(_generates(config) for config in locked.definitions.values()):
            problems.append(f"{where}: gen_kwargs: the model writes no text in it; leave them out")
        if asked.fewshot_as_multiturn and not asked.chat_template:
            problems.append(f"{where}: fewshot_as_multiturn: turns need `chat_template: true`")
        if asked.chat_template:
            problems += [
                f"{where}: chat_template: the tokenizer of {model!r} has no chat template; leave it out of evaluate.models, or "
                "leave `chat_template` out"
                for model in (recipe.evaluate.models if recipe.evaluate else ())
                if not nodes[model].chat_template
            ]
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _problems(config: Mapping[str, Any], asked: Asked) -> Iterator[str]:
    """Yield what is wrong with the number of solved examples of one task."""
    defined, shots = config.get("num_fewshot"), asked.num_fewshot
    if defined == 0 and shots:
        yield f"num_fewshot: the task's definition sets 0, which lm-eval keeps; {shots} would be ignored"
        return
    shots = defined if shots is None else shots
    if not shots:
        return
    fewshot = config.get("fewshot_config") or {}
    samples = fewshot.get("samples")
    if isinstance(samples, list) and shots > len(samples):
        yield f"num_fewshot: {shots} solved examples, and the task has {len(samples)}"
    splits = (config.get("fewshot_split"), fewshot.get("split"), config.get("training_split"))
    if not samples and not any(splits) and config.get("validation_split") in {None, _measured_split(config)}:
        yield (
            f"num_fewshot: the task has no split for {shots} solved examples; lm-eval would draw them from the questions "
            "themselves"
        )


def _measured_split(config: Mapping[str, Any]) -> Any:
    return config.get("test_split") or config.get("validation_split")


def _generates(config: Mapping[str, Any]) -> bool:
    return config.get("output_type") == GENERATED
