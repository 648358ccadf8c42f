"""Settings by which the files of a model make programs run code from a repository, this one or another."""

from __future__ import annotations

from typing import Any

SETTINGS = ("auto_map", "custom_pipelines")


def named_in(configuration: Any) -> str | None:
    """Return the first such setting anywhere in a configuration; None if it has none."""
    values = [configuration]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            for setting in SETTINGS:
                if value.get(setting):
                    return setting
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return None
