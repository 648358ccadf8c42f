"""Write the pages of docs/reference from what they describe: the schema of recipes, the parsers, the settings, the errors.

    python docs/site/reference.py

The pages are committed, so that they can be read without the site; tests/unit/test_site.py holds them equal.
"""

from pathlib import Path
from typing import Any

import click

from herdbook import errors, recipe
from herdbook.cli.commands import GROUPS, PROGRAM, herdbook
from herdbook.settings import SETTINGS

FOLDER = Path(__file__).parents[1] / "reference"
MADE = "\n\n<!-- Made by docs/site/reference.py. Do not edit. -->\n\n"
SHOWN = 16  # of a list of allowed values
WIDTH = 80
OTHER_STATUSES = {
    0: "Done.",
    1: "The operating system refused something (disk full, missing permission). Of `herdbook routers`: routers that cannot choose.",
    2: "The command was called in a wrong way, or the recipe cannot be read or built, or what should be verified is no release.",
    10: "An error of the verifier itself; the release was not judged.",
    130: "Interrupted.",
}
Schema = dict[str, Any]


def pages() -> dict[str, str]:
    """Return the content of each page, by the name of its file."""
    return {"recipe.md": of_recipes(), "commands.md": of_commands(), "settings.md": of_settings()}


# --- recipes ------------------------------------------------------------------------------------------------------


def of_recipes() -> str:
    """Return a page of all keys of a recipe: a section for each mapping, a row for each key."""
    schema = recipe.json_schema()
    definitions: dict[str, Schema] = schema["$defs"]
    parts = [
        f"# Keys of a recipe{MADE}{schema['description'].splitlines()[0]} [Writing a recipe](../recipe.md) is the guide. "
        "The same, for editors: [recipe.schema.json](../../config/recipe.schema.json).\n\n## The recipe\n\n"
        + _rows(schema, definitions)
    ]
    seen: list[str] = []
    _walk(schema["properties"], definitions, seen)
    for name in seen:
        found = definitions[name]
        about = " ".join(found.get("description", "").split())
        if "properties" not in found:
            parts.append(f"## {name}\n\n{about}\n\n{_kind(found)}.\n")
        else:
            parts.append(f"## {name}\n\n{about}\n\n{_rows(found, definitions)}")
    return "\n".join(parts)


def _walk(value: Any, definitions: dict[str, Schema], seen: list[str]) -> None:
    """Append the names of all definitions that a part of the schema leads to, in the order in which they are met."""
    if isinstance(value, dict):
        if "$ref" in value:
            name = _name(value)
            if name not in seen:
                seen.append(name)
                _walk(definitions[name], definitions, seen)
        for key, inner in value.items():
            if key != "discriminator":
                _walk(inner, definitions, seen)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, definitions, seen)


def _rows(schema: Schema, definitions: dict[str, Schema]) -> str:
    lines = ["| key | meaning |", "| --- | --- |"]
    for name, entry in schema.get("properties", {}).items():
        about = _text(entry.get("description") or _of_reference(entry, definitions))
        default = "**required**" if name in schema.get("required", []) else _default(entry)
        value = f"*{_kind(entry)}*" + (f"; {default}" if default else "")
        lines.append(f"| `{name}` | {about}{'<br>' if about else ''}{value} |")
    return "\n".join(lines) + "\n"


def _of_reference(entry: Schema, definitions: dict[str, Schema]) -> str:
    """Return the description of the one definition that an entry leads to; empty if there are several."""
    inner = [entry.get("items", {}), *entry.get("patternProperties", {}).values()]
    seen = [_name(one) for one in [entry, *entry.get("anyOf", []), *inner] if "$ref" in one]
    return definitions[seen[0]].get("description", "").split("\n\n")[0] if len(seen) == 1 else ""


def _default(entry: Schema) -> str:
    value = entry.get("default")
    if value in (None, [], {}, "") or isinstance(value, dict | list):
        return ""
    return f"default `{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(entry: Schema) -> str:
    """Return what a value may be."""
    if "$ref" in entry:
        return f"[{_name(entry)}](#{_name(entry).lower()})"
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        shown = ", ".join(f"`{value}`" for value in entry["enum"][:SHOWN])
        left = len(entry["enum"]) - SHOWN
        return shown + (f" and {left} more" if left > 0 else "")
    for choice in ("anyOf", "oneOf"):
        if choice in entry:
            kinds = dict.fromkeys(_kind(one) for one in entry[choice] if one.get("type") != "null")
            return " or ".join(kinds)
    match entry.get("type"):
        case "array":
            return f"list of {_kind(entry.get('items', {}))}"
        case "object":
            values = [*entry.get("patternProperties", {}).values(), entry.get("additionalProperties")]
            return f"mapping of names to {_kind(values[0]) if isinstance(values[0], dict) else 'any value'}"
        case "string":
            return "text"
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number" as kind:
            return ("whole number" if kind == "integer" else "number") + _bounds(entry)
    return "any value"


def _bounds(entry: Schema) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    return "".join(f", {word} {entry[key]}" for key, word in words.items() if key in entry)


def _name(reference: Schema) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _text(text: str) -> str:
    """Return a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# --- the command line ---------------------------------------------------------------------------------------------


def of_commands() -> str:
    """Return a page of all commands with their help, and of all exit statuses."""
    context = click.Context(herdbook, info_name=PROGRAM, terminal_width=WIDTH, max_content_width=WIDTH)
    parts = [
        f"# Commands{MADE}The help of each command. [The command line](../command-line.md) is about what they share.\n"
    ]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        for name in names:
            command = herdbook.get_command(context, name)
            if command:
                parts += _helps(command, name, context)
    statuses = dict(OTHER_STATUSES)
    for kind in vars(errors).values():
        if (
            isinstance(kind, type)
            and issubclass(kind, errors.HerdbookError)
            and kind.exit_status not in statuses
        ):
            statuses[kind.exit_status] = str(kind.__doc__).splitlines()[0]
    rows = [f"| {status} | {statuses[status]} |" for status in sorted(statuses)]
    parts.append("\n".join(["## Exit statuses\n", "| status | meaning |", "| ---: | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _helps(command: click.Command, name: str, parent: click.Context) -> list[str]:
    """Return sections with the help of a command and of those that it groups."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    parts = [f"### {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found:
                parts += _helps(found, inner, context)
    return parts


# --- settings -----------------------------------------------------------------------------------------------------


def of_settings() -> str:
    """Return a page of the settings of a machine."""
    rows = [
        f"| {f'`{one.key}`' if one.key else ''} | `{one.variable}` | {f'`{one.default}`' if one.default else ''} | {_text(one.meaning)} |"
        for one in SETTINGS
    ]
    head = (
        f"# Settings of a machine{MADE}Each is a key of `config/config.yaml`, an environment variable, or both; those without "
        "a key are set by the workflow itself. No setting decides a result. [The command line](../command-line.md) describes which "
        "of them counts.\n\n"
    )
    return head + "\n".join(
        ["| key | variable | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    )


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
