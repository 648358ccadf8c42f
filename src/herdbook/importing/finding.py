"""Finding configurations: the documents of a YAML file, or the blocks of a model's card, as people write them."""

from __future__ import annotations

import contextlib
import html
import re
import textwrap
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from herdbook import yamlio
from herdbook.errors import RecipeError
from herdbook.importing.keys import KINDS, is_configuration, is_nearly_one
from herdbook.importing.value import Notes, Value
from herdbook.yamlio import PyYamlLoader, YamlError

if TYPE_CHECKING:
    from collections.abc import Iterator

QUOTE = re.compile(r"^(?:[ \t]*>)+ ?")
# As in CommonMark, what follows an opening fence has no backticks: ```` ```pip install x``` ```` is no fence.
OPENING = re.compile(r"^[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}|~{3,})[ \t]*([^`\n]*)$")
YAML_INFO = re.compile(r"^(ya?ml)\b", re.IGNORECASE)
IS_CONFIGURATION = re.compile(r"^[ \t]*[\"']?(merge_method|experts)[\"']?[ \t]*:", re.MULTILINE)
IS_LIKE_ONE = re.compile(
    r"^[ \t]*[\"']?(models|modules|slices|base_model|gate_mode)[\"']?[ \t]*:", re.MULTILINE
)
IS_EVOLVED = re.compile(r"^[\"']?genome[\"']?[ \t]*:", re.MULTILINE)
IS_RECIPE = re.compile(r"^release[ \t]*:", re.MULTILINE)
STARTS = re.compile(
    r"^[ \t]*(?:- )?(?:name|models|modules|slices|base_model|merge_method|experts|gate_mode|dtype|parameters|tokenizer_source)\s*:"
)
LIKE_YAML = re.compile(r"^\s*(?:$|#|-(?:\s|$)|[\"']?[\w.-]+[\"']?\s*:(?:\s|$)|[\]})])")
BEGINS_YAML = re.compile(rf"{LIKE_YAML.pattern}|^\s*[{{\[%&!]|^---")
PYTHON_INFO = re.compile(r"^(py|python3?|ipython)\b", re.IGNORECASE)
PYTHON_TEXT = re.compile(r"(\"{3}|'{3})(.*?)\1", re.DOTALL)
TAG = re.compile(r"<[^<>\n]{0,200}>")
MARKED = re.compile(r"`([^`\n]{1,200})`|\*\*([^*\n]{1,200})\*\*")
HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(.{1,200})$", re.MULTILINE)
WORD = re.compile(r"[\w-]+(?:\.[\w-]+)*")
LONGEST_LINE = 500
BLOCKS = 500  # of a card, in which people have about 50 at most
LINK = re.compile(r"(?:huggingface\.co|hf\.co)/([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")


@dataclass(frozen=True)
class Found:
    """A configuration in a text.

    Args:
        value: The configuration.
        labels: What the text calls it: headings, names in backticks or in bold before it, the nearest first, and names in the
            line before it.
    """

    value: Value
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """A text with configurations.

    Args:
        found: The configurations, each once.
        front_matter: A card's front matter; empty without one.
        repositories: The repositories of the Hub that a card names in links, backticks and front matter.
    """

    found: tuple[Found, ...]
    front_matter: dict[str, Any]
    repositories: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    first: int  # its first line, from 0
    body: str
    before: str  # the text between the block before it and this one


def find(text: str, notes: Notes) -> Text:
    """Return the configurations in a text.

    Args:
        text: A YAML file, or a card.
        notes: Notes on the configurations.

    Raises:
        RecipeError: If it has none, or if one is not YAML.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    start = next((number for number, content in enumerate(lines) if content.strip()), 0)
    front_matter, after = _front_matter(lines, start)
    blocks = list(islice(chain(_fenced(lines, after), _preformatted(lines, after)), BLOCKS + 1))
    if len(blocks) > BLOCKS:
        raise RecipeError(
            f"refused: it has more than {BLOCKS:,} blocks; put the configuration into a file of its own"
        )
    if not (after or blocks or BEGINS_YAML.match(lines[start] if lines[start:] else "")):
        blocks = list(islice(_bare(lines, after), BLOCKS))
    is_card = bool(after or blocks)
    if not is_card:
        blocks = [_Block(0, "\n".join(lines), "")]
    elif not any(IS_CONFIGURATION.search(block.body) for block in blocks):
        blocks += islice(_bare(lines, after), BLOCKS)
    found: list[Found] = []
    for block in blocks:
        if not is_card or IS_CONFIGURATION.search(block.body):
            _add(found, block, _documents(block), notes)
    if not found:  # perhaps a card whose configuration has a misspelt key; other blocks may be anything
        for block in blocks:
            if not IS_LIKE_ONE.search(block.body):
                continue
            with contextlib.suppress(RecipeError):
                _add(found, block, _documents(block), notes)
    if not found and any(IS_EVOLVED.search(block.body) for block in blocks):
        raise RecipeError(
            "is a search of mergekit-evolve (`genome`), not a merge. Import the configuration that it found; or write the merge as a "
            "recipe with a `search`, and run `herdbook tune`"
        )
    if not found and IS_RECIPE.search(text):
        raise RecipeError(
            "is a recipe of Herdbook, which needs no import: keep it with the files that it names, and run `herdbook lock` on it"
        )
    if not found:
        raise RecipeError(f"contains no configuration of {' or '.join(KINDS.values())}")
    card = "\n".join(lines) if is_card else ""
    return Text(tuple(found), front_matter, tuple(dict.fromkeys(_repositories(card, front_matter))))


def _add(found: list[Found], block: _Block, documents: list[yamlio.Document], notes: Notes) -> None:
    """Add the configurations among documents of a block, also with misspelt keys, that are not there yet."""
    for document in documents:
        content = document.content
        if not (is_configuration(content) or is_nearly_one(content)):
            continue
        if all(content != one.value.content for one in found):
            found.append(Found(Value(content, (), document.lines, notes), tuple(_labels(block))))


def _front_matter(lines: list[str], start: int) -> tuple[dict[str, Any], int]:
    """Return a card's front matter, and the number of the line after it; 0 without one."""
    if not lines[start : start + 1] or lines[start].rstrip() != "---":
        return {}, 0
    end = next((n for n in range(start + 1, len(lines)) if lines[n].rstrip() == "---"), None)
    content = "\n".join(lines[start + 1 : end]) if end else ""
    if end is None or IS_CONFIGURATION.search(content):  # documents of a YAML file
        return {}, 0
    try:
        read = yamlio.load(content, PyYamlLoader)
    except YamlError as error:
        raise RecipeError(f"its front matter is not YAML: {error}") from error
    if is_nearly_one(read):
        return {}, 0
    return read if isinstance(read, dict) else {}, end + 1


def _fenced(lines: list[str], after: int) -> Iterator[_Block]:
    """Yield the fenced blocks; an unclosed one ends where the next one of YAML begins, or with what looks like YAML."""
    end = number = after
    while number < len(lines):
        quoted = QUOTE.match(lines[number])
        opening = OPENING.match(_unquoted(lines[number]))
        number += 1
        if not opening:
            continue
        first, fence, closed = number, opening[1], False
        while number < len(lines):
            content = _unquoted(lines[number]) if quoted else lines[number]
            bare = content.strip()
            closed = len(bare) >= len(fence) and not bare.strip(fence[0])
            again = OPENING.match(content)
            if closed or (again and YAML_INFO.match(again[2])):
                break
            number += 1
        body = [_unquoted(content) if quoted else content for content in lines[first:number]]
        if not closed:
            body = body[: _like_yaml(body)]
        block = _Block(first, _dedented(body), "\n".join(lines[end : first - 1]))
        yield from _python_texts(block) if PYTHON_INFO.match(opening[2]) else [block]
        number += closed
        end = number


def _python_texts(block: _Block) -> Iterator[_Block]:
    """Yield the long texts in a block of Python, one of which a notebook writes to a file."""
    for match in PYTHON_TEXT.finditer(block.body):
        line = block.body.count("\n", 0, match.start(2))
        yield replace(block, first=block.first + line, body=match[2])


def _preformatted(lines: list[str], after: int) -> Iterator[_Block]:
    """Yield the blocks between HTML's tags ``pre`` or ``code``."""
    text = "\n".join(lines)
    position = end = sum(len(content) + 1 for content in lines[:after])
    folded = text.lower() if text.isascii() else re.sub("[A-Z]+", lambda match: match[0].lower(), text)
    while True:
        starts = [(folded.find(f"<{tag}", position), tag) for tag in ("pre", "code")]
        start, tag = min(((at, tag) for at, tag in starts if at >= 0), default=(-1, ""))
        if start < 0:
            return
        stop = folded.find(f"</{tag}>", start)
        if stop < 0:
            return
        opened = folded.find(">", start) + 1
        inner = re.sub(r"<br\s?/?>", "\n", text[opened:stop])
        body = html.unescape(TAG.sub("", inner))
        yield _Block(text.count("\n", 0, opened), _dedented(body.split("\n")), text[end:start])
        position = end = stop


def _bare(lines: list[str], after: int) -> Iterator[_Block]:
    """Yield what looks like a configuration in a card without a block that has one."""
    number = end = after
    while number < len(lines):
        if not STARTS.match(_unquoted(lines[number])):
            number += 1
            continue
        body = [_unquoted(content) for content in lines[number:]]
        length = max(1, _like_yaml(body))
        yield _Block(number, _dedented(body[:length]), "\n".join(lines[end:number]))
        number = end = number + length


def _like_yaml(body: list[str]) -> int:
    """Return how many lines at the beginning can be of YAML: until one that is not indented and is neither key nor entry."""
    indent = min((len(content) - len(content.lstrip()) for content in body[:1]), default=0)
    for number, content in enumerate(body):
        is_deeper = len(content) - len(content.lstrip()) > indent
        if not LIKE_YAML.match(content) and not is_deeper:
            return number
    return len(body)


def _unquoted(content: str) -> str:
    return QUOTE.sub("", content)


def _dedented(body: list[str]) -> str:
    """Return lines without the indentation that all have; spaces that do not break, as browsers copy them, are spaces."""
    return textwrap.dedent("\n".join(body).replace("\u00a0", " "))


def _labels(block: _Block) -> Iterator[str]:
    comments = re.match(r"(?:[ \t]*#[^\n]*\n|[ \t]*\n)*", block.body)
    text = f"{block.before}\n{comments[0] if comments else ''}"
    found = [*MARKED.finditer(text), *HEADING.finditer(text)]
    for match in sorted(found, key=lambda match: match.start(), reverse=True):
        yield next(part for part in match.groups() if part).strip(" #*`:")
    before = block.before.rstrip().rpartition("\n")[2][:LONGEST_LINE]
    # an ordinary word is no name
    yield from (word for word in WORD.findall(before) if not (word.isalpha() and word.islower()))


def _documents(block: _Block) -> list[yamlio.Document]:
    try:
        read = yamlio.documents(block.body, PyYamlLoader)
    except YamlError as error:
        moved = re.sub(r"^line (\d+)", lambda match: f"line {int(match[1]) + block.first}", str(error))
        raise RecipeError(moved) from error
    return [
        yamlio.Document(one.content, {keys: number + block.first for keys, number in one.lines.items()})
        for one in read
    ]


def _repositories(card: str, front_matter: dict[str, Any]) -> Iterator[str]:
    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, entry in value.items():
                if key != "datasets":
                    yield from texts(entry)
        elif isinstance(value, list):
            for entry in value:
                yield from texts(entry)
        elif isinstance(value, str):
            yield value

    yield from (text for text in texts(front_matter) if HUB_NAME.fullmatch(text))
    yield from (match[1].rstrip(".") for match in LINK.finditer(card))
    yield from (match[1] for match in re.finditer(r"`([^`\n]{1,200})`", card) if HUB_NAME.fullmatch(match[1]))
