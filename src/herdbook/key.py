"""Keys: digests that say what a thing is, from what it is made of and by which code.

Order is part of the meaning (an expert's place, a parent's place), so a key is taken over JSON in which lists keep
their order and only the keys of mappings are sorted. The key travels as one string: Snakemake forgets the order and
the names of inputs and params when it decides whether to run a job again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.settings import PINS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHORT = 12  # hexadecimal digits of a key in file names: 48 bits, ample within one results folder


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        ValueError: If ``value`` holds NaN or an infinity.
        TypeError: If ``value`` holds something that JSON has no form for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Code:
    """What a result depends on beyond its inputs.

    Args:
        modules: Dotted names of our own modules whose source decides the bytes of the result.
        packages: Distributions whose version decides them. Local version labels (``+cpu``) do not count.
    """

    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def describe(self) -> dict[str, str]:
        """Return ``{module or package: digest or version}``, as it enters keys and provenance."""
        recorded = _RECORDED.get()
        if recorded is not None:
            return {name: recorded[name] for name in (*self.modules, *self.packages)}
        return {
            **{module: _source_digest(module) for module in self.modules},
            **{package: package_version(package) for package in self.packages},
        }


_RECORDED: ContextVar[Mapping[str, str] | None] = ContextVar("recorded", default=None)


@contextmanager
def as_recorded(code: Mapping[str, str]) -> Iterator[None]:
    """Describe code, inside the block, as a record says that it was, not as it is installed here.

    So the keys of what was built with other code or versions can be computed again.

    Args:
        code: What ``Code.describe`` returned then, for all the code of a plan. A name that is missing is a KeyError.
    """
    token = _RECORDED.set(code)
    try:
        yield
    finally:
        _RECORDED.reset(token)


def changed(code: Mapping[str, str]) -> list[str]:
    """Return the names of those modules and packages that are installed here otherwise than a record says, sorted."""

    def installed(name: str) -> str:
        if "." not in name:
            return package_version(name)
        try:
            return _source_digest(name)
        except ModuleNotFoundError:
            return "absent"

    return sorted(name for name, said in code.items() if installed(name) != said)


COPY = Code()  # moving bytes depends on nothing but the bytes


@cache
def _source_digest(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source for {module}")
    return hashlib.sha256(Path(spec.origin).read_bytes().replace(b"\r\n", b"\n")).hexdigest()


@cache
def package_version(package: str) -> str:
    """Return the version of a distribution with which steps run, without its local label, or ``"absent"``.

    That is the installed one; or, where each step has an environment of its own made from a lock of packages, and none has
    all of them, the one in the lock, whose path ``settings.PINS`` holds.
    """
    pinned = _pins(PINS.value).get(_plain(package))
    if pinned is not None:
        return pinned
    try:
        return importlib.metadata.version(package).split("+", maxsplit=1)[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@cache
def _pins(lock: str) -> dict[str, str]:
    """Return the versions in a lock of packages, by name."""
    if not lock:
        return {}
    lines = (line.partition("==") for line in Path(lock).read_text(encoding="utf-8").splitlines())
    return {_plain(name): version for name, equal, version in lines if equal and not name.startswith("#")}


def _plain(name: str) -> str:
    """Return a distribution's name as packages are compared by (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
