"""A program that resolves tasks with lm-eval: definitions with all that they include, members of groups and tags.

lm-eval resolves them by its own code, but neither data nor the code of tasks are loaded: a function is the place of its code. It
runs in a process of its own, since importing lm-eval loads torch and takes seconds, and its thousands of files more.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from herdbook import apart
from herdbook.errors import SourceError
from herdbook.humanize import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Read = Callable[..., dict[str, Any]]

_WORD = re.compile(r"[\w.+-]+")
_INCLUDE = re.compile(r"""^["']?include["']?:(.*)$""", re.MULTILINE)
FOLDER = "folder"  # beside a function's name: the folder of the file that names it


class ResolvedGroup(TypedDict):
    """A group: its configuration, and the names of its tasks and groups, in order."""

    config: dict[str, Any]
    members: list[str]


class ResolvedTask(TypedDict):
    """A name or a file as lm-eval resolves it: definitions by task, groups by name, and the YAML files that were read."""

    name: str
    definitions: dict[str, dict[str, Any]]
    groups: dict[str, ResolvedGroup]
    files: list[str]


def resolve(
    names: Iterable[str], files: Mapping[str, Path]
) -> tuple[dict[str, ResolvedTask], dict[str, str]]:
    """Return the tasks as lm-eval resolves them, each by its name, or by the name that the recipe has for its file.

    Returns:
        The tasks; and of those that lm-eval does not have, or cannot read, what is wrong.

    Raises:
        SourceError: If lm-eval is not installed, or gave no answer.
    """
    question = {"names": list(names), "files": {name: str(path) for name, path in files.items()}}
    try:
        answer = apart.ask(__name__, json.dumps(question))
    except apart.FailedError as error:
        raise SourceError(
            f"evaluate.tasks: lm-eval, which resolves the definitions of tasks, {error}"
        ) from error
    if "missing" in answer:
        raise SourceError(
            "evaluate.tasks: names of lm-eval's tasks, and files with `include`, `!function` or groups, are read by lm-eval, "
            "which is not installed. Install it with:\n  pip install 'herdbook[evaluate]'"
        )
    return answer["tasks"], answer["problems"]


def version() -> str:
    """Return lm-eval's version: of the one that is installed, or else the only one that this Herdbook measures with.

    Raises:
        SourceError: If neither is known.
    """
    with suppress(PackageNotFoundError):
        return metadata.version("lm_eval")
    with suppress(PackageNotFoundError):
        for line in metadata.requires("herdbook") or ():
            if found := re.match(r"lm[-_]eval(?:\[[\w,-]+\])?==([\w.]+)", line):
                return found[1]
    raise SourceError(
        "evaluate: lm-eval is not installed. Install it with:\n  pip install 'herdbook[evaluate]'"
    )


def reply(names: list[str], files: dict[str, str]) -> dict[str, Any]:
    """Answer the question; see ``resolve``."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        return {"missing": "lm_eval"}
    words = set(names)
    for path in files.values():  # a local group may name tasks of lm-eval
        words.update(_WORD.findall(Path(path).read_text(encoding="utf-8")))
    index = _index(words)
    if not index.keys() >= set(names):  # to name the nearest ones
        index = TaskManager().task_index
    tasks: dict[str, ResolvedTask] = {}
    problems: dict[str, str] = {}
    for name in (*names, *files):
        if name in names and name not in index:
            problems[name] = f"lm-eval has no task, group or tag named {name!r}{did_you_mean(name, index)}"
            continue
        try:
            tasks[name] = _resolved(files[name] if name in files else index[name], index)
            json.dumps(tasks[name], allow_nan=False)
        except Exception as error:  # noqa: BLE001 - a stranger's file: lm-eval may end at it in any way
            problems[name] = f"{name}: lm-eval cannot read it: {type(error).__name__}: {str(error)[:300]}"
    return {"problems": problems, "tasks": tasks}


def _index(words: set[str]) -> dict[str, Any]:
    """Return the part of lm-eval's index in which tasks, groups and tags of these names are, and all that these name.

    Reading all of its thousands of files as YAML takes many times longer than looking for words in them.
    """
    from lm_eval.tasks import __file__ as package
    from lm_eval.tasks._index import TaskIndex
    from lm_eval.tasks._yaml_loader import load_yaml

    templates: dict[Path, set[str]] = {}

    def in_file(path: Path) -> set[str]:
        """Return the words in a file, and in what it includes."""
        text = path.read_text(encoding="utf-8", errors="replace")
        found = set(_WORD.findall(text))
        for match in _INCLUDE.finditer(text):
            template = path.parent / match[1].strip("'\" ")
            if template.is_file():
                if template not in templates:
                    templates[template] = set()
                    templates[template] = in_file(template)
                found |= templates[template]
        return found

    held = {path: in_file(path) for path in TaskIndex._iter_yaml_files(Path(package).parent)}  # noqa: SLF001
    known: dict[Path, dict[str, Any]] = {}
    new, seen = set(words), set(words)
    while new:
        for path, found in held.items():
            if path not in known and not new.isdisjoint(found):
                with suppress(Exception):  # as lm-eval skips what it cannot read
                    known[path] = load_yaml(path, resolve_func=False)
        index: dict[str, Any] = {}
        for path in held:
            if path in known:
                with suppress(Exception):
                    TaskIndex.process_cfg(known[path], path, index)
        named = {
            name
            for word in seen & index.keys()
            for name in (*index[word].tags, *_WORD.findall(json.dumps(_members(index[word]))))
        }
        new = named - seen
        seen |= new
    return index


def _members(entry: Any) -> Any:
    """Return what a group is made of."""
    members = (entry.cfg or {}).get("task")
    return members if isinstance(members, list) else []


def _resolved(task: Any, index: dict[str, Any]) -> ResolvedTask:
    """Return what lm-eval makes of an entry of its index, or of a file."""
    from lm_eval.api.group import Group
    from lm_eval.tasks import _factory, _yaml_loader
    from lm_eval.tasks._index import Entry, TaskIndex

    read: set[str] = set()
    load: Read = getattr(_yaml_loader.load_yaml, "plain", _yaml_loader.load_yaml)

    def recorded(path: Any, *, resolve_func: bool = True, **options: Any) -> dict[str, Any]:
        del resolve_func
        read.add(str(Path(path).resolve()))
        return load(path, resolve_func=False, **options)

    def place(base: Path, resolve: bool) -> Callable[[Any, Any], dict[str, str]]:
        del resolve
        return lambda loader, node: {"!function": loader.construct_scalar(node), FOLDER: str(base.resolve())}

    class Task:
        """A task that is not made: its name and its definition."""

        def __init__(self, config: dict[str, Any]) -> None:
            self.task_name, self.config = config["task"], config
            config["metadata"].pop("config_source", None)  # a path of this machine

    class Factory(_factory.TaskFactory):  # type: ignore[misc] # lm-eval has no types
        """lm-eval's maker of tasks, up to the point at which it would make them."""

        def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Task:
            config = self._load_full_config(entry, overrides)
            return Task({key: config[key] for key in config if key not in {"tag", "group", "task_list"}})

    recorded.plain = load  # type: ignore[attr-defined]
    _yaml_loader.load_yaml = _factory.load_yaml = recorded
    _yaml_loader._mk_function_ctor = place  # noqa: SLF001 - the only place where functions would be imported
    _factory.ConfigurableTask = Task
    entry = task
    if isinstance(task, str):
        config = load(task, resolve_func=False)
        name = str(config["group"] if "group" in config else config["task"])
        entry = Entry(name, TaskIndex._kind_of(config), Path(task))  # noqa: SLF001
    built = Factory().build(entry, overrides=None, registry=index)
    definitions: dict[str, dict[str, Any]] = {}
    groups: dict[str, ResolvedGroup] = {}

    def add(item: Any) -> None:
        if isinstance(item, Group):
            groups[item.name] = {"config": _group(item), "members": item.child_names}
            for child in item:
                add(child)
        elif definitions.setdefault(item.task_name, item.config) != item.config:
            raise ValueError(f"it makes several tasks named {item.task_name!r}, of which results show one")

    for item in built if isinstance(built, list) else [built]:
        add(item)
    return {"name": entry.name, "definitions": definitions, "groups": groups, "files": sorted(read)}


def _group(group: Any) -> dict[str, Any]:
    """Return a group's configuration but for its members."""
    config = {key: value for key, value in group.to_dict().items() if key != "task" and value is not None}
    (config.get("metadata") or {}).pop("config_source", None)
    return json.loads(json.dumps(config, default=vars))  # type: ignore[no-any-return]


if __name__ == "__main__":
    apart.answer(reply)
