"""Folders, and paths of the author's machine, which a release would show to everyone.

What was overwritten after it was locked is refused by the build.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from safetensors.torch import load_file, save_file

from support import tiny
from support.inputs import Case
from support.inputs.tasks import DOCUMENTS, TASK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1000\n"


def recipe(base: str = "base", adapter: str = "adapter", **sections: Any) -> Callable[[Path], Path]:
    """Return a maker of a model with an adapter, and of a recipe that names them, and files, as said."""

    def make(folder: Path) -> Path:
        write(folder)
        models = {"base": {"folder": base}, "tuned": {"adapter": adapter, "on": "base"}}
        return tiny.write_recipe(folder / "recipe.yaml", models, **sections)

    return make


def write(folder: Path) -> None:
    tiny.write_model(folder / "base", seed=1, shards=2)
    tiny.write_adapter(folder / "adapter", folder / "base")
    (folder / "data.jsonl").write_text(DOCUMENTS, encoding="utf-8")
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")


def measured(task: str) -> dict[str, Any]:
    return {"evaluate": {"tasks": [task], "models": ["tuned"]}}


def changed(change: Callable[[Path], Any], **sections: Any) -> Callable[[Path], Path]:
    """Return a maker of the same, after which something in the recipe's folder is changed."""

    def make(folder: Path) -> Path:
        path = recipe(**sections)(folder)
        change(folder)
        return path

    return make


def saved(name: str, **entries: Any) -> Callable[[Path], Path]:
    """Return a maker in which a configuration has more entries."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | entries), encoding="utf-8")

    return changed(change)


def task_with(**entries: Any) -> Callable[[Path], Path]:
    def change(folder: Path) -> None:
        (folder / "task.yaml").write_text(yaml.safe_dump(TASK | entries), encoding="utf-8")

    return changed(change, **measured("task.yaml"))


def comment(name: str) -> Callable[[Path], Path]:
    """Return a maker in which the first line of a file is a comment with the path of its folder."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(f"# copied from {folder}/old\n{text}", encoding="utf-8")

    return changed(change, **measured("task.yaml"))


def with_metadata(folder: Path) -> None:
    path = folder / "base/model-00001-of-00002.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "output_dir": "/home/me/runs/7"})


def one_file_twice(folder: Path) -> None:
    first, second = sorted((folder / "base").glob("*.safetensors"))
    second.unlink()
    second.symlink_to(first.name)


def as_pointer(name: str) -> Callable[[Path], Path]:
    return changed(lambda folder: (folder / name).write_bytes(POINTER))


SHOWN = "and everyone would see it in the release"
CALIBRATION = {"calibration": {"text": {"data": ["/data/c.jsonl"], "split": "train"}}}
BOARD = {
    "leaderboards": {
        "board": {
            "snapshot": "~/board.csv",
            "title": "Board",
            "as_of": "2026-01-01",
            "source": "a page",
            "model_column": "model",
            "score_column": "score",
            "direction": "higher",
            "task": "words",
            "metric": "exact_match",
        }
    }
}
CASES = [
    Case(
        "a folder with an absolute path",
        recipe(base="/models/base"),
        f"models.base.folder: /models/base is an absolute path, {SHOWN}",
    ),
    Case(
        "a folder in the home of a user",
        recipe(base="~/models/base"),
        f"models.base.folder: ~/models/base is an absolute path, {SHOWN}",
    ),
    Case(
        "a folder with a path of Windows",
        recipe(base="D:\\models\\base"),
        "models.base.folder: D:\\models\\base is a path of Windows",
    ),
    Case(
        "a path that climbs to the root of the file system",
        recipe(base="../" * 40 + "models/base"),
        f"models/base climbs to the root of the file system, {SHOWN}",
    ),
    Case(
        "an adapter with an absolute path",
        recipe(adapter="/adapters/one"),
        f"models.tuned.adapter: /adapters/one is an absolute path, {SHOWN}",
    ),
    Case(
        "an evaluation task with an absolute path",
        recipe(**measured("/tasks/words.yaml")),
        f"evaluate.tasks.0: /tasks/words.yaml is an absolute path, {SHOWN}",
    ),
    Case(
        "a task that reads data by an absolute path",
        task_with(dataset_kwargs={"data_files": {"test": "/data/test.jsonl"}}),
        f"evaluate.tasks.0: task.yaml: /data/test.jsonl is an absolute path, {SHOWN}",
    ),
    Case(
        "calibration text with an absolute path",
        recipe(**CALIBRATION),
        f"calibration.text.data.0: /data/c.jsonl is an absolute path, {SHOWN}",
    ),
    Case(
        "a leaderboard with an absolute path",
        recipe(**measured("task.yaml"), **BOARD),
        f"leaderboards.board.snapshot: ~/board.csv is an absolute path, {SHOWN}",
    ),
    Case("a comment in the recipe that shows its folder", comment("recipe.yaml"), "line 1: contains /"),
    Case(
        "a comment in a task that shows its folder",
        comment("task.yaml"),
        "evaluate.tasks.0: task.yaml: line 1: contains /",
    ),
    Case(
        "a model whose configuration states from where it was loaded",
        saved("base/config.json", _name_or_path="/home/me/models/old"),
        "folder: base: config.json: _name_or_path is /home/me/models/old",
    ),
    Case(
        "a tokenizer whose configuration names a file of the machine on which it was saved",
        saved("base/tokenizer_config.json", tokenizer_file="/root/.cache/huggingface/tokenizer.json"),
        "folder: base: tokenizer_config.json: tokenizer_file is /root/.cache/huggingface/tokenizer.json",
    ),
    Case(
        "weights whose header names a folder of the machine on which they were saved",
        changed(with_metadata),
        "folder: base: model-00001-of-00002.safetensors: output_dir is /home/me/runs/7",
    ),
    Case(
        "a clone without Git LFS",
        as_pointer("base/model-00001-of-00002.safetensors"),
        "folder: base: model-00001-of-00002.safetensors: it is a pointer of Git LFS, not the file itself",
    ),
    Case(
        "a tokenizer of a clone without Git LFS",
        as_pointer("base/tokenizer.json"),
        "folder: base: tokenizer.json: it is a pointer of Git LFS, not the file itself",
    ),
    Case(
        "an adapter of a clone without Git LFS",
        as_pointer("adapter/adapter_model.safetensors"),
        "adapter: adapter: adapter_model.safetensors: it is a pointer of Git LFS, not the file itself",
    ),
    Case(
        "two weights files that are one, by a link",
        changed(one_file_twice),
        "folder: base: tensor lm_head.weight is in both",
    ),
    Case(
        "a folder that does not exist",
        recipe(base="bass"),
        "folder: bass: the folder",
    ),
]
