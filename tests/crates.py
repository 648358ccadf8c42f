"""Exporting a release as an RO-Crate in tests, and reading what was exported."""

import json

from herdbook.cli.main import main

DAY = "2026-01-02"
METADATA = "ro-crate-metadata.json"


def export(release, to):
    """Export as the command does; return its exit status."""
    return main(["export", "ro-crate", str(release), "--to", str(to), "--published", DAY])


def entities(folder):
    """Return a crate's entities by ``@id``, each of which names one."""
    graph = json.loads((folder / METADATA).read_text(encoding="utf-8"))["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    return found


def many(value):
    """Return what a property holds as a list, as JSON-LD means it."""
    return [] if value is None else value if isinstance(value, list) else [value]


def ids(entity, name):
    return [one["@id"] for one in many(entity.get(name))]


def typed(found, kind):
    return [entity for entity in found.values() if kind in many(entity["@type"])]
