"""Snapshots of leaderboards: rows of text by column, from CSV, JSON or Parquet, and the filters of a recipe."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from herdbook import limits
from herdbook.errors import StepError
from herdbook.recipe import Bounds

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from herdbook.recipe import Leaderboard

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?|[+-]?\.[0-9]+")


@dataclass(frozen=True)
class Snapshot:
    """What is read of a snapshot.

    Args:
        rows: Name and score, as text, of each row that passes the filters, without this model's own.
        left_out: How many rows do not pass them.
        own: Name and score of this model's own row, if the recipe requests one.
    """

    rows: list[tuple[str, str]]
    left_out: int
    own: tuple[str, str] | None


def read_snapshot(content: bytes, board: Leaderboard, where: str) -> Snapshot:
    """Read a snapshot.

    Raises:
        StepError: If it does not have the format of its name, does not have exactly one column of each name, or has no row of this model, or
            several.
    """
    kind = board.snapshot.rpartition(".")[2]
    wanted = {board.model_column, board.score_column, *board.where, *(board.row or {})}
    try:
        if kind == "parquet":
            columns, rows = _parquet(content, wanted)
        elif kind == "csv":
            columns, rows = _csv(content.decode("utf-8-sig"))
        else:
            columns, rows = _json(content.decode("utf-8-sig"), lines=kind == "jsonl")
    except limits.OverLimitError as error:
        raise StepError(f"{where}: {board.snapshot}: is refused: it {error}") from error
    except ImportError as error:
        raise StepError(
            f"{where}: {board.snapshot}: reading Parquet needs pyarrow. Install it with `pip install 'herdbook[evaluate]'`."
        ) from error
    except (ValueError, OSError, csv.Error, RecursionError) as error:
        known = "Parquet" if kind == "parquet" else f"{kind.upper()} in UTF-8"
        raise StepError(f"{where}: {board.snapshot}: is not {known}: {error}") from error
    named = [("model_column", board.model_column), ("score_column", board.score_column)]
    named += [(f"where.{column}", column) for column in board.where]
    named += [(f"row.{column}", column) for column in board.row or {}]
    for key, column in named:
        if columns.count(column) != 1:
            raise StepError(
                f"{where}.{key}: {board.snapshot} has {columns.count(column)} columns named {column!r}; "
                f"its columns are {', '.join(columns) or 'none'}"
            )
    own = [
        row
        for row in rows
        if board.row and all(row.get(name, "") == cell for name, cell in board.row.items())
    ]
    if board.row and len(own) != 1:
        raise StepError(f"{where}.row: {board.snapshot} has {len(own)} rows of this model, not one")
    others = [row for row in rows if row not in own]
    kept = [
        row
        for row in others
        if all(_passes(row.get(name, ""), wanted) for name, wanted in board.where.items())
    ]
    pairs = [_pair(row, board) for row in kept]
    return Snapshot(pairs, len(others) - len(kept), _pair(own[0], board) if own else None)


def _pair(row: Mapping[str, str], board: Leaderboard) -> tuple[str, str]:
    return row.get(board.model_column) or "unnamed", row.get(board.score_column, "")


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


def _parquet(content: bytes, wanted: Container[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the names of all columns, and the rows of those that are wanted. Files of strangers may state any sizes."""
    import pyarrow as pa

    try:
        return _rows_of_parquet(pa.BufferReader(content), wanted)
    except (pa.ArrowException, LookupError, TypeError, MemoryError) as error:
        raise ValueError(str(error)) from error


def _rows_of_parquet(source: Any, wanted: Container[str]) -> tuple[list[str], list[dict[str, str]]]:
    import pyarrow as pa
    from pyarrow import parquet

    about = parquet.read_metadata(source)
    if about.num_rows > limits.SNAPSHOT_ROWS:
        raise limits.OverLimitError(
            f"has {about.num_rows:,} rows, over the limit of {limits.SNAPSHOT_ROWS:,}"
        )
    schema = parquet.read_schema(source)
    columns = list(schema.names)
    read = [name for name in columns if name in wanted and columns.count(name) == 1]
    # Texts stay in their dictionaries: a long text could be repeated in each row.
    texts_in = [name for name in read if pa.types.is_string(schema.field(name).type)]
    with parquet.ParquetFile(source, read_dictionary=texts_in) as file:
        rows: list[dict[str, str]] = []
        for batch in file.iter_batches(batch_size=1000, columns=read):
            for column in batch.columns:
                texts = column.dictionary if isinstance(column, pa.DictionaryArray) else column
                if texts.nbytes > 1000 * limits.SNAPSHOT_CELL or any(
                    isinstance(text, str) and len(text) > limits.SNAPSHOT_CELL for text in texts.to_pylist()
                ):
                    raise limits.OverLimitError(
                        f"has a cell of more than {limits.SNAPSHOT_CELL:,} characters"
                    )
            found = {name: batch.column(name) for name in batch.schema.names}
            cells = {
                name: [_cell(value) for value in _plain(column).to_pylist()] for name, column in found.items()
            }
            rows += [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    return columns, rows


def _plain(column: Any) -> Any:
    """Return a column with numbers of single precision as text, in as few digits as distinguish them."""
    import pyarrow as pa

    return column.cast(pa.string()) if column.type in {pa.float16(), pa.float32()} else column


def _json(text: str, *, lines: bool) -> tuple[list[str], list[dict[str, str]]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, str]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("an object has a key twice")
        return {key: _cell(value) for key, value in pairs}

    def load(part: str) -> Any:
        return json.loads(part, parse_float=str, parse_int=str, object_pairs_hook=once)

    rows = [load(line) for line in text.split("\n") if line.strip()] if lines else load(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is not a list of objects")
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _cell(value: Any) -> str:
    """Return a value of JSON or Parquet as text; numbers of JSON are text already."""
    if value is None:
        return ""
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, default=str)
    return str(value).strip()


def _passes(cell: str, wanted: str | list[str] | Bounds) -> bool:
    if isinstance(wanted, Bounds):
        found = number(cell)
        if found is None:
            return False
        low, high = wanted.at_least, wanted.at_most
        return (low is None or found >= Decimal(str(low))) and (high is None or found <= Decimal(str(high)))
    return cell in ([wanted] if isinstance(wanted, str) else wanted)
