"""Reading YAML, also from untrusted sources: without code, without duplicate keys, and bounded."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    # The keys and indexes that lead to an entry.
    Keys = tuple[Any, ...]

# Of YAML's own tags, those that JSON has too, and dates: sets and ordered maps are written as nothing that is read.
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}
NUMBERS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float")}
MORE_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("merge", "timestamp", "value")}


class YamlError(ValueError):
    """A text is not accepted as YAML; the message contains the reason and, if known, line and column."""


class PyYamlLoader(yaml.SafeLoader):
    """YAML as PyYAML's safe loader reads it (YAML 1.1), but duplicate keys are an error, and so are sets, pairs and bytes."""

    tags = TAGS | MORE_TAGS

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._composed = self._merged = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read an entry. Raises MarkedYAMLError beyond the limit, and for a tag that has no meaning here."""
        self._composed += 1
        if self._composed > limits.YAML_ENTRIES:
            raise yaml.MarkedYAMLError(problem=_too_many("contains"), problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        if node is not None and node.tag not in self.tags:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            problem = f"could not determine a constructor for the tag {tag!r}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if node is not None and node.tag in NUMBERS and len(node.value) > limits.YAML_DIGITS:
            problem = f"refused: a number of {len(node.value):,} characters"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge the mappings that a mapping names with ``<<``. Raises MarkedYAMLError beyond the limit."""
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > limits.YAML_ENTRIES:
            raise yaml.MarkedYAMLError(problem=_too_many("merges"), problem_mark=node.start_mark)


class RecipeLoader(PyYamlLoader):
    """The YAML of recipes: only true and false are booleans, as in YAML 1.2; dates are text, and so is every key.

    YAML 1.1 reads the key ``on`` as a boolean.
    """

    tags = TAGS

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def load(text: str, loader: type[PyYamlLoader] = RecipeLoader) -> Any:
    """Return the content of a YAML document; None if it is empty.

    Args:
        text: The document.
        loader: The dialect: ``RecipeLoader``, or ``PyYamlLoader`` for a file that another program reads with PyYAML.

    Raises:
        YamlError: If it is not YAML, contains duplicate keys, is nested too deeply, is too long, or expands to too many entries.
    """
    with _explained(text):
        reader = loader(text)
        node = reader.get_single_node()
        return None if node is None else _construct(reader, node)


@dataclass(frozen=True)
class Document:
    """A YAML document, with the lines of its entries.

    Args:
        content: Its content.
        lines: The line of each entry, from 1, by the keys and indexes that lead to it.
    """

    content: Any
    lines: Mapping[Keys, int]


def documents(text: str, loader: type[PyYamlLoader] = RecipeLoader) -> list[Document]:
    """Return the documents of a text, which ``---`` separates; without empty ones.

    Args:
        text: The text.
        loader: The dialect, as for ``load``.

    Raises:
        YamlError: As ``load`` does.
    """
    found = []
    with _explained(text):
        reader = loader(text)
        while reader.check_node():
            node = reader.get_node()
            if node is not None and (content := _construct(reader, node)) is not None:
                found.append(Document(content, dict(_lines(reader, node, ()))))
    return found


def _lines(reader: PyYamlLoader, node: yaml.Node, keys: Keys) -> Iterator[tuple[Keys, int]]:
    """Yield the line of each entry below a node: that of its key, if it has one."""
    if not keys:
        yield keys, node.start_mark.line + 1
    children: list[tuple[Any, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(reader.construct_object(key, deep=True), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for name, start, value in children:
        yield (*keys, name), start.start_mark.line + 1
        yield from _lines(reader, value, (*keys, name))


@contextmanager
def _explained(text: str) -> Iterator[None]:
    """Turn every way in which PyYAML ends into YamlError."""
    if len(text) > limits.YAML_CHARACTERS:
        raise YamlError(
            f"refused: it has {len(text):,} characters, over the limit of {limits.YAML_CHARACTERS:,}"
        )
    try:
        yield
    except RecursionError as error:
        raise YamlError("is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"{position}{error.problem or 'not YAML'}") from error
    except yaml.reader.ReaderError as error:
        # PyYAML takes no control characters, not even in quotes
        before = text[: error.position].split("\n")
        raise YamlError(
            f"line {len(before)}, column {len(before[-1]) + 1}: not YAML: the control character {text[error.position]!r}; in double "
            f"quotes it can be written so"
        ) from error
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # an impossible number, date or truth, at which PyYAML ends in many ways
        raise YamlError(f"not YAML: {error}") from error


def _construct(loader: PyYamlLoader, node: yaml.Node) -> Any:
    if _expanded_nodes(node, {}) > limits.YAML_ENTRIES:
        raise yaml.MarkedYAMLError(problem=_too_many("expands to"))
    return loader.construct_document(node)


def _too_many(verb: str) -> str:
    return f"refused: it {verb} more than {limits.YAML_ENTRIES:,} entries"


def _mapping(loader: PyYamlLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge" and not isinstance(loader, RecipeLoader):
            continue  # the mapping's own keys override those that are merged in
        key = loader.construct_object(key_node, deep=True)
        if isinstance(loader, RecipeLoader) and not isinstance(key, str):
            problem = f"the key {key!r} is not text; put it in quotes"
        elif isinstance(key, list | dict):
            problem = "a key is a list or a mapping"
        elif key in seen:
            problem = f"duplicate key {key!r}"
        else:
            seen.add(key)
            continue
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
    return loader.construct_mapping(node, deep=True)


PyYamlLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
RecipeLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _expanded_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of entries of a node with its aliases expanded; more than the limit if it contains itself."""
    if id(node) not in known:
        known[id(node)] = limits.YAML_ENTRIES + 1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_expanded_nodes(child, known) for child in children)
    return known[id(node)]
