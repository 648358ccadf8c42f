"""The text of an imported recipe: tidy YAML, with what is assumed as comments where it matters."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import yamlio
from herdbook.visible import line, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from herdbook.importing.value import Assumption

WIDTH = 110
FLOW = 90  # characters of a list or a mapping that is written in one line


class _Dumper(yaml.SafeDumper):
    """YAML in which short lists and mappings of plain values take one line, and no value is an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's form
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)  # lists are indented, too


def _collection(dumper: _Dumper, data: Any) -> yaml.Node:
    node = dumper.represent_dict(data.items()) if isinstance(data, dict) else dumper.represent_list(data)
    is_plain = all(
        not isinstance(item, list | dict) for item in (data.values() if isinstance(data, dict) else data)
    )
    node.flow_style = is_plain and len(str(data)) <= FLOW
    return node


_Dumper.add_representer(dict, _collection)
_Dumper.add_representer(list, _collection)


def recipe_text(recipe: dict[str, Any], assumptions: Sequence[Assumption], source: str) -> str:
    """Return the text of a recipe.

    Args:
        recipe: The recipe.
        assumptions: What is assumed; each stands above the entry that it explains, or the nearest around it.
        source: Name of the file that it was imported from.
    """
    body = _dump(recipe, allow_unicode=True)
    if visible(body) != body:
        # a terminal would not show it as it is: written with YAML's escape sequences instead
        body = _dump(recipe, allow_unicode=False)
    lines = body.splitlines()
    places = yamlio.documents(body)[0].lines
    comments: dict[int, list[str]] = {}
    for assumption in assumptions:
        keys: tuple[Any, ...] = assumption.at
        while keys not in places:
            keys = keys[:-1]
        number = places[keys] if keys else 1
        indent = len(lines[number - 1]) - len(lines[number - 1].lstrip())
        comments.setdefault(number, []).extend(_comment(assumption.text, indent))
    text = [f"# Imported from {line(source)}; comments state what was assumed."]
    for number, content in enumerate(lines, start=1):
        text += [*comments.get(number, []), content]
    return "\n".join(text) + "\n"


def _dump(recipe: dict[str, Any], *, allow_unicode: bool) -> str:
    return yaml.dump(recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=WIDTH)


def _comment(text: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(
        line(text),
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
