"""Traces of earlier builds: older records of the same result, and the keys in Snakemake's metadata."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from herdbook.key import SHORT
from herdbook.plan.jobs import OF_A_MODEL

if TYPE_CHECKING:
    from herdbook.plan.job import Job

NOTES = Path(".snakemake/metadata")  # one JSON file for each output, named by its path in base64


def noted_key(output: Path) -> str | None:
    """Return the key with which an output was made, from Snakemake's metadata; None if that has none."""
    metadata = _read(NOTES / base64.b64encode(str(output).encode()).decode())
    params = metadata.get("params") if metadata else None
    quoted = [param for param in params or [] if re.fullmatch(r"'[0-9a-f]{64}'", str(param))]
    return str(quoted[0]).strip("'") if quoted else None


def older(job: Job) -> tuple[str, dict[str, Any]] | None:
    """Return the latest result of the same name and another key.

    Returns:
        Its id and its record. The record is empty for results without one, such as a model's folder. None if no older
        result exists.
    """
    output = next((path for path in job.outputs if path.suffix == ".json"), job.outputs[0])
    if job.rule in OF_A_MODEL:
        candidates = [path for path in output.parent.parent.glob(f"{job.label}-*") if path.name != job.id]
    else:
        ending = output.name.removeprefix(job.id)
        candidates = [
            path
            for path in output.parent.glob(f"{job.label}-*{ending}")
            if path.name != output.name
            and re.fullmatch(r"[0-9a-f]+", path.name[len(job.label) + 1 :].removesuffix(ending))
        ]
    for path in sorted(candidates, key=lambda path: path.lstat().st_mtime, reverse=True):
        if job.rule in OF_A_MODEL or path.suffix != ".json":
            return path.name.split(".gguf")[0].removesuffix(".full"), {}
        record = _read(path)
        if record is not None:
            return path.name.removesuffix(".json"), record
    return None


def holder(folder: Path, key: str) -> str | None:
    """Return the name under which a folder has the record of a shard, without its label; None if it has none."""
    found = next(iter(sorted(folder.glob(f"*-{key[:SHORT]}.json"))), None)
    return found.name.rpartition("-")[0].rpartition(".")[0] if found else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
