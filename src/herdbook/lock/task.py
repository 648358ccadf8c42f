"""Pinning evaluation tasks: their definitions with all that they include, their code, and their local data.

A file that includes nothing is its own definition. lm-eval resolves the others, and its own tasks by their names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.humanize import first_problem
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


def read_task(content: bytes, name: str) -> dict[str, Any] | None:
    """Return the definition of a task that a file contains; None if lm-eval has to resolve it.

    Args:
        content: The content of the file.
        name: Its path, as the recipe names it.

    Raises:
        RecipeError: If it is not a task.
    """
    spec = _read(content, name)
    return spec if _is_plain(spec) else None


def _read(content: bytes, name: str) -> dict[str, Any]:
    """Return the content of a task file. Raises RecipeError if it is not a task."""
    try:
        spec = yamlio.load(content.decode(), _Loader)
        if not isinstance(spec, dict) or _is_plain(spec):
            Plain.model_validate(spec)
        found: dict[str, Any] = spec
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 ({error})"
    except yamlio.YamlError as error:
        wrong = str(error)
    except ValidationError as error:
        wrong = first_problem(error)
    else:
        return found
    raise RecipeError(f"evaluate.tasks: {name}: expected a task of lm-eval: {wrong}")


def _is_plain(spec: dict[str, Any]) -> bool:
    return not any(key in spec for key in RESOLVED) and not any(True for _ in _functions(spec))


def pin_tasks(names: Sequence[str], trust: Sequence[str], beside: Path) -> dict[str, LockedTask]:
    """Pin tasks, by their names and files, as they are named relative to the recipe.

    Args:
        names: The tasks.
        trust: The files of code that tasks may run.
        beside: The recipe's folder.

    Raises:
        RecipeError: If a task does not exist, cannot be measured as it is, or runs code that is not trusted.
        SourceError: If a file does not exist.
    """
    found: dict[str, ResolvedTask] = {}
    files: dict[str, Path] = {}
    for task in filter(is_file, names):
        pin_local(beside, task, "evaluate.tasks")
        spec = _read((beside / task).read_bytes(), task)
        if _is_plain(spec):
            found[task] = {
                "name": spec["task"],
                "definitions": {spec["task"]: spec},
                "groups": {},
                "files": [],
            }
        else:
            _Pinning(task, beside, trust).check(spec)
            files[task] = beside / task
    registered = [task for task in names if not is_file(task)]
    found |= resolve(registered, files) if registered or files else {}
    pinned = {task: _Pinning(task, beside, trust).pin(found[task]) for task in names}
    _refuse_equal_names(pinned)
    used = {file.name for locked in pinned.values() for file in locked.sources}
    if idle := [path for path in trust if os.path.normpath(path) not in used]:
        raise RecipeError(f"evaluate.trust: {idle[0]}: no task runs it; leave it out")
    return pinned


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
    found = resolve(
        [task for task in locked if not is_file(task)],
        {task: beside / task for task in filter(is_file, locked)},
    )
    return {task: _Pinning(task, beside, trust).resolved(found[task]) for task in locked}


class _Pinning:
    """One task as it is pinned: where its files are, and what is wrong with it."""

    def __init__(self, task: str, beside: Path, trust: Sequence[str]) -> None:
        self._task, self._beside = task, beside
        self._where = f"evaluate.tasks: {task}"
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
        file = pin_local(self._beside, self._task, "evaluate.tasks") if local else None
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
                check_task(source, text, names if source == self._task else [], self._beside)
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


def _refuse_equal_names(pinned: dict[str, LockedTask]) -> None:
    """Refuse two tasks of one name, by which lm-eval and the results identify a task."""
    entries: dict[str, str] = {}
    for task, locked in pinned.items():
        for name in (*locked.definitions, *locked.groups):
            if name in entries:
                raise RecipeError(
                    f"evaluate.tasks: {entries[name]} and {task} are both named {name!r} (`task:`). Change one of the names"
                    if is_file(task) and is_file(entries[name])
                    else f"evaluate.tasks: {name} is measured twice, by {entries[name]} and by {task}. Leave one of them out"
                )
            entries[name] = task
