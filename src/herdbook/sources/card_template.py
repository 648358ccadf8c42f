"""What a template of a recipe's own may do. It is somebody's text, and whoever verifies the release renders it, too.

It may print facts, choose and repeat. It may not call, include, define or multiply anything, so that rendering it takes no more time
and memory than the facts' sizes allow; names that begin with an underscore lead out of the facts, and the sandbox refuses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jinja2 import nodes

MOST_BYTES = 100_000
DEPTH = 3  # of loops inside loops
FILTERS = frozenset((
    "default", "first", "items", "join", "last", "length", "list", "map", "reject", "rejectattr", "select", "selectattr", "sort", "sum",
    "unique",
))  # fmt: skip


def problem(text: str, own_filters: Collection[str]) -> str | None:
    """Return why a template is refused; None if it is not.

    Args:
        text: The template.
        own_filters: The names of the filters that cards have besides some of Jinja's.
    """
    from jinja2 import Environment, TemplateSyntaxError

    if len(text.encode()) > MOST_BYTES:
        return f"has more than {MOST_BYTES:,} bytes"
    try:
        tree = Environment(autoescape=False).parse(text)  # noqa: S701 - nothing is rendered
        return next(_refused(tree, {*FILTERS, *own_filters}, 0), None)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "is nested too deeply"


def _refused(node: nodes.Node, filters: Collection[str], depth: int) -> Iterator[str]:
    from jinja2 import nodes

    for child in node.iter_child_nodes():
        inside = depth + isinstance(child, nodes.For)
        match child:
            case nodes.For() if inside > DEPTH or child.recursive:
                yield f"line {child.lineno}: has loops inside loops, more than {DEPTH} deep"
            case nodes.Filter() if child.name not in filters:
                yield f"line {child.lineno}: has the filter {child.name!r}, which cards do not have"
            case nodes.Call():
                yield f"line {child.lineno}: calls something; a template prints facts by filters alone"
            case nodes.Mul() | nodes.Pow() | nodes.Mod():
                yield f"line {child.lineno}: multiplies; a template prints facts as they are"
            case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
                yield f"line {child.lineno}: includes another template; name it in card.sections"
            case nodes.Macro() | nodes.CallBlock() | nodes.Block():
                yield f"line {child.lineno}: defines a macro or a block"
        yield from _refused(child, filters, inside)
