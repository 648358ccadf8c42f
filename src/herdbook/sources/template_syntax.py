"""Whether chat templates can be compiled, as transformers compiles them: in a process of its own.

A template is a program in Jinja. Expressions of constants are computed while it is compiled, so that a few characters can
take years; and what is compiled is Python, which has limits of its own.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from herdbook import apart, limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jinja2.nodes import Node
    from jinja2.parser import Parser

SHOWN = 200  # characters of a message


def wrong_template(templates: Iterable[str]) -> str | None:
    """Return why one of some chat templates cannot be compiled; None if all can."""
    texts = tuple(templates)
    if not texts:
        return None
    if (longest := max(map(len, texts))) > limits.TEMPLATE_CHARACTERS:
        return f"it has {longest:,} characters, over the limit of {limits.TEMPLATE_CHARACTERS:,}"
    return _wrong(texts)


@lru_cache(maxsize=64)
def _wrong(texts: tuple[str, ...]) -> str | None:
    """Return the same; models of a recipe often have the same template."""
    try:
        answer = apart.ask(
            "herdbook.sources.template_syntax",
            json.dumps({"texts": texts}),
            limits.TEMPLATE_MEMORY_BYTES,
            limits.TEMPLATE_SECONDS,
        )
    except apart.FailedError:
        return f"it takes more than {limits.TEMPLATE_SECONDS} seconds, or too much memory"
    problem = answer["problem"]
    return None if problem is None else str(problem)


def reply(texts: Sequence[str]) -> dict[str, str | None]:
    """Return the first ``problem`` of some templates."""
    # Source: transformers, `chat_template_utils.py`: the sandbox, its settings, its tag `generation` and its extension.
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag around what a model writes."""

        tags = {"generation"}  # noqa: RUF012 - as the class has it

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    for text in texts:
        try:
            environment.from_string(text)
        except TemplateSyntaxError as error:
            return {"problem": f"line {error.lineno}: {(error.message or '')[:SHOWN]}"}
        except Exception as error:  # noqa: BLE001 - of Python's compiler, or of an expression that is computed
            return {"problem": f"{type(error).__name__}: {str(error)[:SHOWN]}"}
    return {"problem": None}


def main() -> None:
    """Answer the question on standard input."""
    import jinja2.ext
    import jinja2.sandbox  # noqa: F401 - so that it counts to the program

    apart.answer(reply)


if __name__ == "__main__":
    main()
