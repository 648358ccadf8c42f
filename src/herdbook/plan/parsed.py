"""Our own modules as keys count them: their digests, and what they import.

A module counts by its syntax tree, serialized in a form of our own: a tree contains no comments, line breaks, quotes or
commas, and docstrings are left out of it; neither tokens nor ``ast.dump`` are the same in all versions of Python (f-strings
became tokens in 3.12, empty fields vanished from ``ast.dump`` in 3.13).

Only files of this package are parsed, nothing is imported, so the answer is the same where torch is not installed.

To parse all of them takes longer than to verify a small release. So what was found in a module is kept beside its bytecode, as
Python keeps that: with the digest of the source, and believed for this source alone.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from herdbook import __version__
from herdbook.settings import PINS

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "herdbook"
ROOT = Path(__file__).parents[1]

# The distribution of each package that is imported, whether it is installed here or not: machines that plan have no torch.
DISTRIBUTIONS = {
    "accelerate": "accelerate",
    "boto3": "boto3",
    "botocore": "botocore",
    "click": "click",
    "cmaes": "cmaes",
    "cryptography": "cryptography",
    "datasets": "datasets",
    "fsspec": "fsspec",
    "gguf": "gguf",
    "herdbook": "herdbook",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2",
    "libgguf": "libgguf",
    "llama_cpp": "llama-cpp-python",
    "lm_eval": "lm_eval",
    "nltk": "nltk",
    "numpy": "numpy",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic_core",
    "rfc8785": "rfc8785",
    "rich": "rich",
    "safetensors": "safetensors",
    "sentencepiece": "sentencepiece",
    "sigstore": "sigstore",
    "snakemake_interface_logger_plugins": "snakemake-interface-logger-plugins",
    "threadpoolctl": "threadpoolctl",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "tqdm": "tqdm",
    "transformers": "transformers",
    "yaml": "PyYAML",
}


class _Parsed(TypedDict):
    """What is kept of a module: the digest that counts, the dotted names that it imports, and whether it has no statement.

    A name has two parts where it is imported ``from`` a module of ours: whether the second is a module, too, depends on the
    package's other files.
    """

    source: str
    digest: str
    imported: list[list[str]]
    empty: bool


def module_digest(module: str) -> str:
    """Return the SHA-256 of a module of ours, by its syntax tree.

    Raises:
        ModuleNotFoundError: If the module does not exist.
    """
    return _parsed(module)["digest"]


@cache
def imports(module: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the imports of a module of ours, except those under ``if TYPE_CHECKING:``.

    Returns:
        Names of our own modules, with the packages that contain them; and distributions. The standard library is in
        neither.

    Raises:
        ModuleNotFoundError: If the module does not exist.
        KeyError: If the distribution of an imported package is not declared in ``DISTRIBUTIONS``.
    """
    ours: dict[str, None] = {}
    others: dict[str, None] = {}
    for source, *inside in _parsed(module)["imported"]:
        dotted = ".".join((source, *inside))
        name = dotted if inside and _is_module(dotted) else source
        top = name.partition(".")[0]
        if top == PACKAGE and name != PACKAGE:
            ours |= dict.fromkeys(with_packages(name))
        elif top in DISTRIBUTIONS or top not in sys.stdlib_module_names:
            others[DISTRIBUTIONS[top]] = None
    return tuple(ours), tuple(others)


def is_empty(module: str) -> bool:
    """Return whether a module contains nothing but a docstring, as the one of a package may."""
    return _parsed(module)["empty"]


def with_packages(module: str) -> Iterator[str]:
    """Yield a module and the packages that are imported with it, except the outermost, which contains only a version."""
    names = module.split(".")
    for count in range(2, len(names) + 1):
        yield ".".join(names[:count])


def _path(module: str) -> Path:
    top, *inside = module.split(".")
    if top == PACKAGE:
        base = ROOT.joinpath(*inside)
        for path in (base.with_suffix(".py"), base / "__init__.py") if inside else (base / "__init__.py",):
            if path.is_file():
                return path
    raise ModuleNotFoundError(f"no source for {module}", name=module)


def _source(module: str) -> bytes:
    return _path(module).read_bytes()


@cache
def _parsed(module: str) -> _Parsed:
    source = _source(module)
    digest = hashlib.sha256(_own_source() + source).hexdigest()
    # Who can write there can write the bytecode that Python runs, too.
    kept = Path(importlib.util.cache_from_source(str(_path(module)))).with_suffix(".parsed.json")
    with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
        found: _Parsed = json.loads(kept.read_bytes())
        if found["source"] == digest:
            return found
    tree = _tree(module)
    parsed = _Parsed(
        source=digest,
        digest=hashlib.sha256(_normal(tree).encode("ascii")).hexdigest(),
        imported=list(_imported(tree)),
        empty=not _statements(tree.body),
    )
    if not sys.dont_write_bytecode:
        _keep(kept, parsed)
    return parsed


@cache
def _own_source() -> bytes:
    """Return the source of this module, which decides what is found in the others."""
    return Path(__file__).read_bytes()


def _keep(path: Path, parsed: _Parsed) -> None:
    """Write what was found in a module, as Python writes bytecode: whole or not at all, and nothing where it may not."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(parsed), encoding="ascii")
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()


def _tree(module: str) -> ast.Module:
    return ast.parse(_source(module), filename=module)


def _imported(node: ast.AST) -> Iterator[list[str]]:
    """Yield the names that are imported below a node of a tree, as ``_Parsed`` has them."""
    if isinstance(node, ast.Import):
        yield from ([alias.name] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = str(node.module)
        ours = source.partition(".")[0] == PACKAGE
        yield from ([source, alias.name] if ours else [source] for alias in node.names)
    elif isinstance(node, ast.stmt | ast.Module | ast.excepthandler | ast.match_case):
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            children = getattr(node, field, None)
            if isinstance(children, list) and not (field == "body" and _is_for_types(node)):
                for child in children:
                    yield from _imported(child)


@cache
def _is_module(name: str) -> bool:
    try:
        _path(name)
    except ModuleNotFoundError:
        return False
    return True


def _is_for_types(node: ast.AST) -> bool:
    """Return whether a statement is ``if TYPE_CHECKING:``, which is never run."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


# Fields of a tree that describe its source text, or nothing but types.
_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def _normal(value: Any) -> str:
    """Return a tree as text. Empty fields are left out, since each version of Python adds some."""
    if isinstance(value, ast.Constant):
        return f"{type(value.value).__name__} {value.value!a}"
    if isinstance(value, ast.AST):
        fields = ((name, getattr(value, name, None)) for name in value._fields if name not in _IGNORED_FIELDS)
        items = [f"{name}={_normal(field)}" for name, field in fields if field is not None and field != []]
        return f"{type(value).__name__}({','.join(items)})"
    if isinstance(value, list):
        return f"[{';'.join(map(_normal, _statements(value)))}]"
    return ascii(value)


def _statements(body: list[Any]) -> list[Any]:
    """Return the statements of a block that have an effect: no bare strings, and nothing that is for types alone."""

    def is_bare_string(node: Any) -> bool:
        constant = node.value if isinstance(node, ast.Expr) else None
        return isinstance(constant, ast.Constant) and isinstance(constant.value, str)

    return [
        node for node in body if not is_bare_string(node) and not (_is_for_types(node) and not node.orelse)
    ]


def package_version(package: str) -> str:
    """Return the version of a distribution with which steps run, without its local label, or ``"absent"``.

    This is the installed version; or, where each step has an environment of its own and no environment has all packages,
    the version in the lock file of packages (``settings.PINS``).
    """
    return _pins(PINS.value).get(_plain(package)) or _installed_version(package)


@cache
def _installed_version(package: str) -> str:
    if (
        package == PACKAGE
    ):  # what runs, which an installation in place may have been made for an earlier version of
        return __version__
    try:
        return importlib.metadata.version(package).split("+", maxsplit=1)[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"


@cache
def _pins(lock: str) -> dict[str, str]:
    """Return the versions in a lock file of packages, by name."""
    if not lock:
        return {}
    lines = (line.partition("==") for line in Path(lock).read_text(encoding="utf-8").splitlines())
    return {_plain(name): version for name, equal, version in lines if equal and not name.startswith("#")}


def _plain(name: str) -> str:
    """Return a distribution's normalized name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
