"""Settings by which the files of a model make programs run code from a repository, this one or another."""

from __future__ import annotations

import json
from typing import Any

SETTINGS = ("auto_map", "custom_pipelines")
# Ends of the names of settings that choose how attention or experts are computed: in transformers, also by a compiled kernel in a
# repository on the Hub, whose name has a slash.
KERNELS = ("_implementation", "_implementation_internal")


def named_in(configuration: Any) -> str | None:
    """Return the first such setting anywhere in a configuration; None if it has none."""
    values = [configuration]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            for setting, content in value.items():
                if (setting in SETTINGS and content) or (
                    setting.endswith(KERNELS) and "/" in json.dumps(content)
                ):
                    return str(setting)
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return None
