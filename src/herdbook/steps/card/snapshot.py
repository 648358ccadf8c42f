"""Snapshots of leaderboards: rows of text by column, from CSV or JSON, and the filters of a recipe."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook.errors import StepError
from herdbook.recipe import Bounds

if TYPE_CHECKING:
    from herdbook.recipe import Leaderboard

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|[+-]?\.[0-9]+")


def read_snapshot(content: bytes, board: Leaderboard, where: str) -> tuple[list[tuple[str, str]], int]:
    """Return the name and the score, as text, of each row that passes the filters, and how many rows do not.

    Raises:
        StepError: If it is not what its name says, or does not have exactly one column of each name.
    """
    try:
        text = content.decode("utf-8-sig")
        columns, rows = _csv(text) if board.snapshot.endswith(".csv") else _json(text, board.snapshot)
    except (ValueError, csv.Error, RecursionError) as error:
        kind = board.snapshot.rpartition(".")[2].upper()
        raise StepError(f"{where}: {board.snapshot}: is not {kind} in UTF-8: {error}") from error
    asked = [("model_column", board.model_column), ("score_column", board.score_column)]
    for key, column in (*asked, *((f"where.{column}", column) for column in board.where)):
        if columns.count(column) != 1:
            raise StepError(
                f"{where}.{key}: {board.snapshot} has {columns.count(column)} columns named {column!r}; "
                f"its columns are {', '.join(columns) or 'none'}"
            )
    kept = [
        row for row in rows if all(_passes(row.get(name, ""), wanted) for name, wanted in board.where.items())
    ]
    pairs = [(row.get(board.model_column) or "unnamed", row.get(board.score_column, "")) for row in kept]
    return pairs, len(rows) - len(kept)


def number(text: str) -> Decimal | None:
    """Return the number that a cell contains; None if it contains something else."""
    return Decimal(text) if NUMBER.fullmatch(text) else None


def filters(board: Leaderboard) -> str:
    """Return the filters in words."""
    words = []
    for column, wanted in board.where.items():
        if isinstance(wanted, Bounds):
            low = [] if wanted.at_least is None else [f"at least {wanted.at_least:g}"]
            high = [] if wanted.at_most is None else [f"at most {wanted.at_most:g}"]
            words.append(f"{column} {' and '.join(low + high)}")
        else:
            words.append(f"{column} {' or '.join([wanted] if isinstance(wanted, str) else wanted)}")
    return "; ".join(words)


def _csv(text: str) -> tuple[list[str], list[dict[str, str]]]:
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    columns = [cell.strip() for cell in lines[0]] if lines else []
    rows = [line for line in lines[1:] if any(cell.strip() for cell in line)]
    return columns, [{name: cell.strip() for name, cell in zip(columns, row, strict=False)} for row in rows]


def _json(text: str, name: str) -> tuple[list[str], list[dict[str, str]]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, str]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("an object has a key twice")
        return {key: _cell(value) for key, value in pairs}

    def load(part: str) -> Any:
        return json.loads(part, parse_float=str, parse_int=str, object_pairs_hook=once)

    lines = name.endswith(".jsonl")
    rows = [load(line) for line in text.split("\n") if line.strip()] if lines else load(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is not a list of objects")
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _cell(value: Any) -> str:
    """Return a value of JSON as text; numbers are text already."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _passes(cell: str, wanted: str | list[str] | Bounds) -> bool:
    if isinstance(wanted, Bounds):
        found = number(cell)
        if found is None:
            return False
        low, high = wanted.at_least, wanted.at_most
        return (low is None or found >= Decimal(str(low))) and (high is None or found <= Decimal(str(high)))
    return cell in ([wanted] if isinstance(wanted, str) else wanted)
