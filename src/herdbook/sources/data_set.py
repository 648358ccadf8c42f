"""Data sets on the Hub: which files a task reads of one, and the card with which a copy of these files is read alike.

A card's front matter lists which files belong to which configuration and split; without that, `datasets` finds them by their
names. A copy of some files has a card with the original's entries for them, and no others.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fsspec.utils import glob_translate

from herdbook import yamlio
from herdbook.errors import SourceError
from herdbook.humanize import did_you_mean
from herdbook.layout import CARD
from herdbook.sources.card import front_matter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

INFOS = "dataset_infos.json"  # what cards contained in earlier years
SETTINGS = ".huggingface.yaml"
CONVERTED = "refs/convert/parquet"  # the branch to which the Hub converts a data set
_FORMATS = (".parquet", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".arrow", ".xml")
_PACKED = ("", ".gz", ".zst", ".bz2", ".xz")
_SUFFIXES = (*(suffix + packed for suffix in _FORMATS for packed in _PACKED), ".zip")
_NOT_DATA = {"config.json", "dataset_info.json", INFOS, "dataset_dict.json"}
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass(frozen=True)
class Reading:
    """How a task reads a data set.

    Args:
        name: The configuration; None if the task names none.
        data_dir: The folder of the data set that is read; None for all of it.
        data_files: The patterns of the files that are read; None if the data set lists them.
        splits: The splits that the task needs.
    """

    name: str | None
    data_dir: str | None
    data_files: tuple[str, ...] | None
    splits: tuple[str, ...]


def reading_of(config: Mapping[str, Any]) -> Reading:
    """Return how a task reads its data set, from its definition."""
    arguments = config.get("dataset_kwargs") or {}
    files = arguments.get("data_files")
    fewshot = (config.get("fewshot_config") or {}).get("split")
    named = (*(config.get(key) for key in _SPLIT_KEYS), fewshot)
    return Reading(
        config.get("dataset_name"),
        arguments.get("data_dir"),
        tuple(_patterns(files)) if files else None,
        tuple(dict.fromkeys(split for split in named if isinstance(split, str))),
    )


def is_script(repo: str, names: Collection[str]) -> bool:
    """Return whether a data set is made by a script, which is not run: the Hub has its conversion to Parquet."""
    return f"{repo.rpartition('/')[2]}.py" in names


def is_data(name: str) -> bool:
    """Return whether a file of this name may contain documents, or describes how such files are read."""
    last = name.rpartition("/")[2]
    return last.endswith(_SUFFIXES) or name in {CARD, INFOS}


def read_front(content: bytes | None, what: str) -> dict[str, Any]:
    """Return the entries of a data set's card; empty if it has none. Raises SourceError if it is damaged."""
    try:
        return front_matter(content) if content is not None else {}
    except yamlio.YamlError as error:
        raise SourceError(
            f"{what}: {CARD}: its front matter{error}, so which files are read is not known"
        ) from error


def converted_card(names: Iterable[str], what: str) -> dict[str, Any]:
    """Return the card that a conversion to Parquet lacks: its files are ``configuration/split/0000.parquet``."""
    files: dict[str, dict[str, None]] = {}
    for name in names:
        parts = name.split("/")
        if len(parts) != 3 or not name.endswith(".parquet"):
            continue
        if parts[1].startswith("partial-"):
            raise SourceError(
                f"{what}: the Hub converted only a part of {parts[0]}/{parts[1]}; name another copy of the data"
            )
        files.setdefault(parts[0], {})[parts[1]] = None
    return {
        "configs": [
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}/*.parquet"} for split in splits],
            }
            for config, splits in files.items()
        ]
    }


def wanted(reading: Reading, front: Mapping[str, Any], names: Collection[str], what: str) -> set[str]:
    """Return the names of the files that a task reads, with those that describe how.

    Args:
        reading: How the task reads the data set.
        front: The content of the data set's card.
        names: The names of all files of the data set.
        what: The data set, for messages.

    Raises:
        SourceError: If it has no such configuration or split, a split is empty, or no such files exist.
    """
    if SETTINGS in names:
        raise SourceError(f"{what}: {SETTINGS} chooses the files that are read, which is not supported")
    chosen = _configuration(reading, front, what)
    _check_splits(reading, front, chosen, what)
    data = [
        name
        for name in names
        if is_data(name) and _is_visible(name) and name.rpartition("/")[2] not in _NOT_DATA
    ]
    data = [name for name in data if name != CARD]
    patterns = _patterns_of(reading, chosen)
    found = {
        name for name in data if patterns is None or any(pattern.fullmatch(name) for pattern in patterns)
    }
    if not found:
        raise SourceError(f"{what}: has no files in a supported format that {_said(reading)}")
    return found | ({CARD, INFOS} & set(names))


def card_of(reading: Reading, front: Mapping[str, Any], what: str) -> bytes:
    """Return the card of a copy of the files that a task reads, from the data set's own card."""
    chosen = _configuration(reading, front, what)
    entries: dict[str, Any] = {}
    if chosen is not None:
        entries["configs"] = [{**chosen, "default": True}]
    if infos := _infos(front):
        name = chosen["config_name"] if chosen else reading.name
        kept = [info for info in infos if name is None or info.get("config_name", name) == name]
        entries["dataset_info"] = kept[0] if len(kept) == 1 and "config_name" not in kept[0] else kept
    text = json.dumps({key: value for key, value in entries.items() if value}, default=str)
    return f"---\n{text}\n---\n".encode()


def _configuration(reading: Reading, front: Mapping[str, Any], what: str) -> dict[str, Any] | None:
    """Return the entry of the configuration that is read; None if the card names none, or the task names files itself."""
    entries = [
        entry for entry in front.get("configs") or [] if isinstance(entry, dict) and "config_name" in entry
    ]
    if reading.data_files is not None or reading.data_dir is not None:
        return None
    if not entries:
        known = [info["config_name"] for info in _infos(front) if "config_name" in info]
        if reading.name is not None and reading.name not in {*known, "default"}:
            raise SourceError(
                f"{what}: has no configuration {reading.name!r}{did_you_mean(reading.name, known)}"
            )
        return None
    names = [str(entry["config_name"]) for entry in entries]
    if reading.name is not None:
        if reading.name not in names:
            raise SourceError(
                f"{what}: has no configuration {reading.name!r}{did_you_mean(reading.name, names)}"
            )
        return entries[names.index(reading.name)]
    default = [
        entry for entry in entries if entry.get("default") is True or entry["config_name"] == "default"
    ]
    if len(entries) > 1 and not default:
        raise SourceError(
            f"{what}: has several configurations ({', '.join(names[:5])}), and the task names none"
        )
    return (default or entries)[0]


def _infos(front: Mapping[str, Any]) -> list[dict[str, Any]]:
    infos = front.get("dataset_info") or []
    return [info for info in (infos if isinstance(infos, list) else [infos]) if isinstance(info, dict)]


def _check_splits(
    reading: Reading, front: Mapping[str, Any], chosen: Mapping[str, Any] | None, what: str
) -> None:
    files = chosen.get("data_files") if chosen else None
    where = f"{what}: {chosen['config_name']}" if chosen else what
    if isinstance(files, list) and all(isinstance(item, dict) and "split" in item for item in files):
        splits = [str(item["split"]) for item in files]
        for split in reading.splits:
            if split.partition("[")[0] not in splits:
                raise SourceError(f"{where}: has no split {split!r}{did_you_mean(split, splits)}")
    name = chosen["config_name"] if chosen else reading.name
    for info in _infos(front):
        if reading.data_files is not None or info.get("config_name", name) != name:
            continue
        for split in info.get("splits") or []:
            if (
                isinstance(split, dict)
                and split.get("name") in reading.splits
                and split.get("num_examples") == 0
            ):
                raise SourceError(
                    f"{where}: its split {split['name']!r} is empty, so nothing can be measured"
                )


def _patterns_of(reading: Reading, chosen: Mapping[str, Any] | None) -> list[re.Pattern[str]] | None:
    """Return patterns of the names of the files that are read; None for all files."""
    if reading.data_files is not None:
        base, patterns = reading.data_dir, list(reading.data_files)
    elif reading.data_dir is not None or chosen is None:
        base, patterns = reading.data_dir, ["**"]
    else:
        base, patterns = chosen.get("data_dir"), list(_patterns(chosen.get("data_files") or "**"))
    if base is None and patterns == ["**"]:
        return None
    prefix = f"{str(base).strip('/')}/" if base else ""
    whole = [prefix + pattern.removeprefix("./") for pattern in patterns]
    # A folder stands for all that is in it.
    return [
        re.compile(glob_translate(one)) for pattern in whole for one in (pattern, f"{pattern.rstrip('/')}/**")
    ]


def _patterns(files: Any) -> Iterator[str]:
    """Yield the patterns of files, as a card or a task names them: one, several, or those of each split."""
    if isinstance(files, str):
        yield files
    elif isinstance(files, dict):
        for value in [files["path"]] if "path" in files else files.values():
            yield from _patterns(value)
    elif isinstance(files, list):
        for item in files:
            yield from _patterns(item)


def _is_visible(name: str) -> bool:
    return not any(part.startswith((".", "__")) for part in name.split("/"))


def _said(reading: Reading) -> str:
    if reading.data_files is not None:
        return f"match {', '.join(reading.data_files)}"
    return f"belong to {reading.name!r}" if reading.name else "could be read"
