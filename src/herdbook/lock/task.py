"""Pinning evaluation tasks: their definitions with all that they include, their code, and their local data.

A file that includes nothing is its own definition. lm-eval resolves the others, and its own tasks by their names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from herdbook import yamlio
from herdbook.errors import Gathered, RecipeError
from herdbook.faults import told
from herdbook.lock.definition import data_files, problems_of
from herdbook.lock.evaluation import FUNCTION, OWN, LockedGroup, LockedTask, harness_folder
from herdbook.lock.file import pin_file
from herdbook.lock.harness import FOLDER, resolve
from herdbook.lock.local import pin_local
from herdbook.lock.paths import check_task, problem
from herdbook.recipe import is_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import yaml

    from herdbook.lock.file import LockedFile
    from herdbook.lock.harness import ResolvedTask

RESOLVED = ("include", "group", "class")  # keys of a file that is not its own definition


class _Loader(yamlio.PyYamlLoader):
    """The YAML of tasks, with the places of code instead of functions."""

    tags = yamlio.PyYamlLoader.tags | {FUNCTION}


def _function(loader: _Loader, node: yaml.ScalarNode) -> dict[str, Any]:
    return {FUNCTION: loader.construct_scalar(node)}


_Loader.add_constructor(FUNCTION, _function)


class Plain(BaseModel):
    """A task file that is its own definition, as far as it is read here; other keys are lm-eval's alone."""

    model_config = ConfigDict(extra="allow", strict=True)

    task: str
    dataset_path: str | None = None
    dataset_kwargs: dict[str, Any] | None = None
    metadata: dict[str, JsonValue] | None = None
    filter_list: list[Any] | None = None
    metric_list: list[dict[str, Any]] | None = None


ASKED = "evaluate.tasks"  # the key of a recipe that names tasks


def read_task(content: bytes, name: str) -> dict[str, Any] | None:
    """Return the definition of a task that a file contains; None if lm-eval has to resolve it.

    Args:
        content: The content of the file.
        name: Its path, as the recipe names it.

    Raises:
        RecipeError: If it is not a task.
    """
    spec = _read(content, f"{ASKED}: {name}")
    return spec if _is_plain(spec) else None


def _read(content: bytes, where: str) -> dict[str, Any]:
    """Return the content of a task file; ``where`` names it. Raises RecipeError if it is not a task."""
    try:
        spec = yamlio.load(content.decode(), _Loader)
        if not isinstance(spec, dict) or _is_plain(spec):
            Plain.model_validate(spec)
        found: dict[str, Any] = spec
    except UnicodeDecodeError as error:
        wrong = [f"it is not UTF-8 (byte {error.start + 1:,})"]
    except yamlio.YamlError as error:
        wrong = [str(error)]
    except ValidationError as error:
        wrong = told(error, spec)
    else:
        return found
    raise RecipeError([f"{where}: expected a task of lm-eval: {problem}" for problem in wrong])


def _is_plain(spec: dict[str, Any]) -> bool:
    return not any(key in spec for key in RESOLVED) and not any(True for _ in _functions(spec))


def pin_tasks(
    places: Mapping[str, str], trust: Sequence[str], beside: Path, found: Gathered
) -> dict[str, LockedTask]:
    """Pin tasks, by their names and files, as they are named relative to the recipe.

    Args:
        places: The tasks, each with the key that names it.
        trust: The files of code that tasks may run.
        beside: The recipe's folder.
        found: Takes the errors: of tasks that do not exist, cannot be measured as they are, or run code that is not trusted.

    Returns:
        The other tasks.
    """
    known: dict[str, ResolvedTask] = {}
    files: dict[str, Path] = {}
    for task, where in places.items():
        if not is_file(task):
            continue
        with found.one():
            pin_local(beside, task, where)
            spec = _read((beside / task).read_bytes(), f"{where}: {task}")
            if _is_plain(spec):
                named = str(spec["task"])
                known[task] = {"name": named, "definitions": {named: spec}, "groups": {}, "files": []}
            else:
                _Pinning(task, beside, trust, where).check(spec)
                files[task] = beside / task
    registered = [task for task in places if not is_file(task)]
    if registered or files:
        with found.one():
            resolved, problems = resolve(registered, files)
            known |= resolved
            for task, problem in problems.items():
                found.add(RecipeError(f"{places[task]}: {problem}"))
    pinned = {}
    for task in filter(known.__contains__, places):
        with found.one():
            pinned[task] = _Pinning(task, beside, trust, places[task]).pin(known[task])
    return pinned


def refuse_idle(trust: Sequence[str], pinned: Mapping[str, LockedTask]) -> None:
    """Refuse trust in code that no task runs. Raises RecipeError."""
    used = {file.name for locked in pinned.values() for file in locked.sources}
    if idle := [path for path in trust if os.path.normpath(path) not in used]:
        raise RecipeError(f"evaluate.trust: {idle[0]}: no task runs it; leave it out")


def resolve_again(
    locked: Mapping[str, LockedTask], beside: Path, trust: Sequence[str]
) -> dict[str, LockedTask]:
    """Return what lm-eval makes of tasks, without their data, which need not be there.

    Args:
        locked: The tasks, by their names and files.
        beside: The recipe's folder, or one with copies of the files that tasks are made of.
        trust: The files of code that tasks may run; none is run.

    Raises:
        RecipeError: If lm-eval has no such task, or cannot read one.
        SourceError: If lm-eval is not installed, or gave no answer.
    """
    found, problems = resolve(
        [task for task in locked if not is_file(task)],
        {task: beside / task for task in filter(is_file, locked)},
    )
    if problems:
        raise RecipeError([f"{ASKED}: {problem}" for problem in problems.values()])
    return {task: _Pinning(task, beside, trust).resolved(found[task]) for task in locked}


class _Pinning:
    """One task as it is pinned: where its files are, and what is wrong with it."""

    def __init__(self, task: str, beside: Path, trust: Sequence[str], place: str = ASKED) -> None:
        self._task, self._beside, self._place = task, beside, place
        self._where = f"{place}: {task}"
        self._trust = {os.path.normpath(path) for path in trust}
        self._problems: list[str] = []
        self._sources: dict[str, LockedFile] = {}

    def check(self, spec: dict[str, Any]) -> None:
        """Refuse what can be seen without lm-eval: files that are missing, and code that is not trusted."""
        folder = (self._beside / self._task).parent
        listed = spec.get("include") or []
        for name in listed if isinstance(listed, list) else [listed]:
            if not (folder / str(name)).is_file():
                self._problems.append(f"include: {name} does not exist")
        for function in _functions(spec):
            self._placed({**function, FOLDER: str(folder)})
        self._refuse()

    def _refuse(self) -> None:
        if self._problems:
            raise RecipeError([f"{self._where}: {wrong}" for wrong in self._problems])

    def resolved(self, found: ResolvedTask) -> LockedTask:
        """Return its pins but for its data, from what it was resolved to. Raises RecipeError if something is wrong with it."""
        local = is_file(self._task)
        file = pin_local(self._beside, self._task, self._place) if local else None
        own = (self._beside / self._task).resolve()
        for path in map(Path, found["files"]):
            if path != own or not local:
                self._add(path)
        definitions = {name: self._placed(config) for name, config in found["definitions"].items()}
        for name, config in definitions.items():
            where = "" if name == found["name"] else f"{name}: "
            self._problems += [f"{where}{wrong}" for wrong in problems_of(config)]
        self._refuse()
        return LockedTask(
            name=found["name"],
            file=file,
            sources=tuple(self._sources[name] for name in sorted(self._sources)),
            definitions=definitions,
            groups={name: LockedGroup(**group) for name, group in found["groups"].items()},
        )

    def pin(self, found: ResolvedTask) -> LockedTask:
        """Return its pins, from what it was resolved to. Raises RecipeError if something is wrong with it."""
        local, locked = is_file(self._task), self.resolved(found)
        definitions = locked.definitions
        names = sorted({name for config in definitions.values() for name in data_files(config)})
        if names and not local:
            raise RecipeError(
                f"{self._where}: reads {names[0]}, which is not on the Hub, and cannot be pinned"
            )
        if local:
            for source in (self._task, *(name for name in self._sources if not name.startswith(OWN))):
                text = (self._beside / source).read_text(encoding="utf-8")
                where = f"{self._place}: {source}"
                check_task(where, source, text, names if source == self._task else [], self._beside)
        folder = (self._beside / self._task).parent
        data = tuple(pin_local(folder, name, self._where) for name in names)
        for pinned in data:
            if not (folder / pinned.name).read_bytes().strip():
                raise RecipeError(f"{self._where}: {pinned.name} is empty, so nothing can be measured")
        return locked.model_copy(update={"data": data})

    def _placed(self, value: Any) -> Any:
        """Return a definition in which each function has the place of its code in the place of a folder of this machine."""
        if isinstance(value, list):
            return [self._placed(item) for item in value]
        if not isinstance(value, dict):
            return value
        if FUNCTION not in value:
            return {key: self._placed(item) for key, item in value.items()}
        module, _, name = str(value[FUNCTION]).rpartition(".")
        beside: Path = Path(value[FOLDER], f"{module.replace('.', '/')}.py").resolve()
        path = beside if beside.is_file() else _module(module)
        if path is None:
            self._problems.append(
                f"!function {value[FUNCTION]}: {module.replace('.', '/')}.py is not beside the task"
            )
            return value
        label = self._add(path)
        if label.startswith(OWN):
            for sibling in path.parent.glob("*.py"):  # which it may import
                self._add(sibling)
        elif label not in self._trust:
            advice = "Read it, and name it in evaluate.trust"
            untrusted = f"runs code, {label} (!function {value[FUNCTION]}). {advice}: [{label}]"
            self._problems += [untrusted] * (untrusted not in self._problems)
        return {FUNCTION: name, "file": label}

    def _add(self, path: Path) -> str:
        """Pin a further file, and return its name: below lm-eval's package, or relative to the recipe."""
        package = harness_folder()
        if package and path.is_relative_to(package):
            label = f"{OWN}{path.relative_to(package).as_posix()}"
        else:
            label = os.path.relpath(path, self._beside.resolve())
            if wrong := problem(label, self._beside):
                self._problems.append(wrong)
        self._sources.setdefault(label, pin_file(path, label))
        return label


def _module(name: str) -> Path | None:
    """Return the file of a module of lm-eval, by its dotted name."""
    package = harness_folder()
    if package is None or not name.startswith("lm_eval."):
        return None
    path = package.joinpath(*name.split(".")[1:]).with_suffix(".py")
    return path if path.is_file() else None


def _functions(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the functions in a definition."""
    if isinstance(value, dict):
        if FUNCTION in value:
            yield value
        else:
            value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _functions(item)


def refuse_equal_names(pinned: Mapping[str, LockedTask], places: Mapping[str, str]) -> None:
    """Refuse two tasks of one name, by which lm-eval and the results identify a task. Raises RecipeError."""
    entries: dict[str, str] = {}
    problems = []
    for task, locked in pinned.items():
        for name in (*locked.definitions, *locked.groups):
            if name not in entries:
                entries[name] = task
                continue
            other = entries[name]
            problems.append(
                f"{places[task]}: {other} and {task} are both named {name!r} (`task:`). Change one of the names"
                if is_file(task) and is_file(other)
                else f"{places[task]}: {name} is measured twice, by {other} and by {task}. Leave one of them out"
            )
    if problems:
        raise RecipeError(problems)
