"""How large the Parquet files of data sets are once they are unpacked, counted in a process of its own.

A few kilobytes can repeat a long text in millions of rows. The files are read in batches here, and nothing of them is kept, before
the library that lm-eval reads them by writes all of it to the disk.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from herdbook import apart, limits
from herdbook.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SUFFIX = ".parquet"
ROWS = 1000  # of a batch


def check_unpacked(paths: Sequence[Path]) -> None:
    """Refuse Parquet files that are much larger once they are unpacked; other files are left alone.

    Raises:
        StepError: If one is, or cannot be read; it is named.
    """
    packed = [path for path in paths if path.suffix == SUFFIX]
    if not packed:
        return
    sizes = {str(path): path.stat().st_size for path in packed}
    most = {path: limits.UNPACKED_RATIO * size + limits.UNPACKED_BYTES for path, size in sizes.items()}
    question = json.dumps({"most": most})
    seconds = limits.UNPACKING_SECONDS + sum(sizes.values()) // limits.UNPACKED_PER_SECOND
    try:
        answer = apart.ask(__name__, question, limits.UNPACKING_MEMORY_BYTES, seconds)
    except apart.FailedError as error:
        names = ", ".join(path.name for path in packed[:3])
        raise StepError(
            f"evaluate.tasks: refused: data sets ({names}) take too much memory or time to unpack (their process {error})"
        ) from error
    for path in packed:
        problem = answer["problems"].get(str(path))
        if problem:
            raise StepError(f"evaluate.tasks: refused: {path.name} of a data set {problem}")


def reply(most: Mapping[str, int]) -> apart.Answer:
    """Return what is wrong with each file, by its path; ``most`` has the bytes that each may have."""
    problems = {}
    for path, limit in most.items():
        try:
            unpacked = _unpacked(path, limit)
        except MemoryError:
            problems[path] = "takes too much memory to unpack"
        except Exception as error:  # noqa: BLE001 - of a stranger's file; whatever the library raises is its message
            problems[path] = f"is not a Parquet file that can be read: {str(error)[:200]}"
        else:
            if unpacked > limit:
                problems[path] = f"has over {limit:,} bytes once it is unpacked"
    return {"problems": problems}


def _unpacked(path: str, most: int) -> int:
    """Return the size of all columns, or what was counted when it was more than the limit."""
    import pyarrow as pa
    from pyarrow import parquet

    total = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS):
            for column in batch.columns:
                plain = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
                total += plain.nbytes
            if total > most:
                break
    return total


def main() -> None:
    """Answer the question on standard input."""
    import pyarrow.parquet  # noqa: F401 - what is imported before counts to the program itself

    apart.answer(reply)


if __name__ == "__main__":
    main()
