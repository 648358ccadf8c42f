"""lm-eval's tasks, made from the lock's definitions: of pinned code, and of pinned data on this machine alone."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from herdbook.errors import LockError, StepError
from herdbook.files import git_blob_id, sha256_file
from herdbook.humanize import did_you_mean
from herdbook.layout import CARD
from herdbook.lock import FUNCTION, SEED, check_pinned, data_files, data_set_of, locate_source
from herdbook.plan.asked import asked_tasks
from herdbook.sources.data_set import CONVERTED, card_of, converted_card, read_front, reading_of
from herdbook.steps.evaluate.offline import offline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from herdbook.lock import LockedDataSet, LockedFile, LockedTask
    from herdbook.plan import Plan
    from herdbook.plan.asked import Group
    from herdbook.recipe import Asked

_DOWNLOADS = re.compile(r"""nltk\.download\(\s*["'](\w+)["']""")


class Round(NamedTuple):
    """Tasks that are put to a model in the same way, in one call of lm-eval.

    Args:
        tasks: lm-eval's tasks and groups.
        leaves: The tasks among them and in their groups, by name.
        limit: How many documents of each are read; None for all.
        options: Further arguments of ``simple_evaluate``.
    """

    tasks: list[Any]
    leaves: dict[str, Any]
    limit: int | None
    options: dict[str, Any]


@contextlib.contextmanager
def rounds(plan: Plan, group: Group | None = None) -> Iterator[list[Round]]:
    """Make tasks of a plan, in rounds; their data exist until the end.

    Args:
        plan: The plan.
        group: The tasks; all by default.

    Raises:
        LockError: If a task, its code or its data changed since they were locked, or lm-eval is of another version.
        StepError: If a task finds no documents in its data, or lm-eval cannot make it.
    """
    _check_harness(plan)
    with offline() as scratch:
        maker = _Maker(plan, scratch)
        made: dict[str, Round] = {}
        for locked, asked in group.tasks if group else asked_tasks(plan.recipe, plan.lock):
            options = _options(asked)
            tasks, leaves = maker.make(locked, asked)
            limit = options.pop("limit")
            round_ = made.setdefault(repr((limit, options)), Round([], {}, limit, options))
            round_.tasks.extend(tasks)
            round_.leaves.update(leaves)
        yield list(made.values())


def _options(asked: Asked) -> dict[str, Any]:
    """Return the arguments of ``simple_evaluate`` for a task's settings, as the command ``lm_eval`` gives them."""
    chat = bool(asked.chat_template)
    multiturn = chat if asked.fewshot_as_multiturn is None else asked.fewshot_as_multiturn
    return {
        "limit": asked.limit,
        "num_fewshot": asked.num_fewshot,
        "system_instruction": asked.system,
        "apply_chat_template": chat,
        "fewshot_as_multiturn": multiturn,
        "gen_kwargs": dict(asked.gen_kwargs) or None,
    }


def _check_harness(plan: Plan) -> None:
    import lm_eval

    locked = plan.lock.harness
    if locked is None or (locked.lm_eval, locked.seed) != (lm_eval.__version__, SEED):
        pinned = f"{locked.lm_eval} with the seed {locked.seed}" if locked else "no version"
        raise LockError(
            f"evaluate: the lock pins lm-eval {pinned}, and here is {lm_eval.__version__} with the seed {SEED}. Install the "
            "pinned version, or run `herdbook lock`."
        )


class _Maker:
    """The making of tasks. Copies of data sets are shared by tasks that read the same configuration of one."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self._plan, self._scratch = plan, scratch
        self._folders: dict[tuple[str, Any], Path] = {}

    def make(self, locked: LockedTask, asked: Asked) -> tuple[list[Any], dict[str, Any]]:
        """Return lm-eval's task, group, or tasks of a tag; and the tasks in it, by name."""
        where = f"evaluate.tasks: {locked.name}"
        for source in (*locked.local, *(one for one in locked.sources if one not in locked.local)):
            check_pinned(locate_source(source.name, self._plan.recipe_path.parent), source, where)
        self._check_resources(locked, where)
        leaves = {name: self._task(locked, name, asked) for name in locked.definitions}
        if locked.name in locked.groups:
            return [_group(locked, locked.name, leaves)], leaves
        return list(leaves.values()), leaves

    def _task(self, locked: LockedTask, name: str, asked: Asked) -> Any:
        from lm_eval.api.task import ConfigurableTask

        where = f"evaluate.tasks: {name}"
        try:
            config = self._loaded(locked.definitions[name])
        except ImportError as error:
            raise StepError(
                f"{where}: its code needs the package {error.name}, which is not installed: pip install {error.name}"
            ) from error
        config.pop("tag", None)
        config |= self._data(locked, locked.definitions[name], where)
        _check_documents(config, where)
        try:
            task = ConfigurableTask(config=config)
            count = len(task.eval_docs)
        except Exception as error:
            raise StepError(
                f"{where}: lm-eval cannot make it: {type(error).__name__}: {str(error)[:300]}"
            ) from error
        if not count:
            raise StepError(f"{where}: of its split, no document is left to measure")
        _check_shots(task, asked, where)
        return task

    def _loaded(self, value: Any) -> Any:
        """Return a definition with its functions, from code that was compared with its pins."""
        if isinstance(value, list):
            return [self._loaded(item) for item in value]
        if not isinstance(value, dict):
            return value
        if FUNCTION not in value:
            return {key: self._loaded(item) for key, item in value.items()}
        from lm_eval.tasks._yaml_loader import _load_module_with_cache

        path = locate_source(value["file"], self._plan.recipe_path.parent)
        return getattr(_load_module_with_cache(path.resolve()), value[FUNCTION])

    def _data(self, locked: LockedTask, config: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the part of a definition that locates its data: on this machine."""
        arguments = dict(config.get("dataset_kwargs") or {})
        if (key := data_set_of(config)) is not None:
            for name in ("revision", "trust_remote_code"):
                arguments.pop(name, None)
            folder = self._copy(key, config, where)
            return {"dataset_path": str(folder), "dataset_kwargs": arguments or None}
        assert locked.file is not None  # noqa: S101 - lm-eval's own tasks have no files beside them
        beside = self._plan.beside_recipe(locked.file.name).parent
        for pinned in locked.data:
            if pinned.name in data_files(config):
                check_pinned(beside / pinned.name, pinned, where)
        arguments["data_files"] = _absolute(arguments["data_files"], beside)
        return {"dataset_kwargs": arguments}

    def _copy(self, key: str, config: dict[str, Any], where: str) -> Path:
        """Return a folder with the files of a data set, and a card with the entries of the data set's own card for them."""
        reading, data_set = reading_of(config), self._plan.lock.data_sets[key]
        how = (reading.name, reading.data_dir, reading.data_files)
        if (folder := self._folders.get((key, how))) is not None:
            return folder
        number = len(self._folders)
        folder = self._folders[key, how] = (
            self._scratch / "copies" / str(number) / data_set.repo.rpartition("/")[2]
        )
        paths = {file.name: self._checked(data_set, file) for file in data_set.files}
        front = (
            converted_card(paths, where)
            if data_set.branch == CONVERTED
            else read_front(paths[CARD].read_bytes() if CARD in paths else None, where)
        )
        for name, path in paths.items():
            if name != CARD:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(path.absolute())
        (folder / CARD).write_bytes(card_of(reading, front, where))
        return folder

    def _checked(self, data_set: LockedDataSet, pinned: LockedFile) -> Path:
        """Return a file of a data set that was compared with its pin."""
        assert self._plan.data is not None  # noqa: S101 - the lock has data sets
        path = self._plan.layout.data(self._plan.data, data_set.folder, pinned.name)
        found = sha256_file(path) if pinned.sha256 else git_blob_id(path.read_bytes())
        if found != (pinned.sha256 or pinned.git_blob):
            raise LockError(
                f"datasets/{data_set.repo}: {path} is not the pinned file. Delete it, and run the step `data` again."
            )
        return path

    def _check_resources(self, locked: LockedTask, where: str) -> None:
        """Refuse code that would download something while models are measured, unless that is present."""
        beside = self._plan.recipe_path.parent
        code = [source for source in locked.sources if source.name.endswith(".py")]
        texts = [locate_source(source.name, beside).read_text(encoding="utf-8") for source in code]
        for name in sorted({name for text in texts for name in _DOWNLOADS.findall(text)}):
            import nltk

            try:
                nltk.data.find(f"tokenizers/{name}")
            except LookupError as error:
                raise StepError(
                    f"{where}: its code needs {name} of NLTK's data, and nothing is downloaded while models are measured. "
                    f"Install it with:\n  python -m nltk.downloader {name}"
                ) from error


def _absolute(files: Any, beside: Path) -> Any:
    """Return the files of a task, by split or not, with absolute paths."""
    if isinstance(files, dict):
        return {split: _absolute(names, beside) for split, names in files.items()}
    if isinstance(files, list):
        return [_absolute(name, beside) for name in files]
    return str((beside / files).resolve())


def _group(locked: LockedTask, name: str, leaves: dict[str, Any]) -> Any:
    """Return a group of lm-eval, with its tasks and groups."""
    from lm_eval.api.group import Group

    group = Group.from_config(dict(locked.groups[name].config))
    for member in locked.groups[name].members:
        group.add(_group(locked, member, leaves) if member in locked.groups else leaves[member])
    return group


def _check_documents(config: dict[str, Any], where: str) -> None:
    """Refuse a task whose splits are missing in its data, or are empty: lm-eval ends at them without naming them."""
    import datasets

    try:
        found = datasets.load_dataset(
            config["dataset_path"], config.get("dataset_name"), **(config.get("dataset_kwargs") or {})
        )
    except Exception as error:
        raise StepError(
            f"{where}: its data cannot be read: {type(error).__name__}: {str(error)[:300]}"
        ) from error
    for split in reading_of(config).splits:
        if split not in found:
            raise StepError(
                f"{where}: its data have no split {split!r}; they have {', '.join(found)}{did_you_mean(split, found)}"
            )
        if not len(found[split]):
            raise StepError(f"{where}: the split {split!r} of its data is empty, so nothing can be measured")


def _check_shots(task: Any, asked: Asked, where: str) -> None:
    """Refuse more solved examples than exist."""
    own = task.config.num_fewshot
    shots = own if asked.num_fewshot is None else asked.num_fewshot
    if not shots:
        return
    pool: Sequence[Any] = task.sampler.df if hasattr(task, "sampler") else ()
    if shots > len(pool):
        raise StepError(f"{where}: num_fewshot: {shots} solved examples, and its data have {len(pool)}")
