"""Reports as JSON, which the commands write for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from herdbook.files import dump_json, write_output
from herdbook.visible import json_text

if TYPE_CHECKING:
    from pathlib import Path


def write_report(path: Path, value: Any) -> None:
    """Write a report as JSON (see ``write_output``); what is not visible in the text of strangers is written as JSON's escapes."""
    write_output(path, json_text(dump_json(value)))
