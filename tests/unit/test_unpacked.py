"""Parquet files of data sets: how large they are once they are unpacked."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from herdbook import limits
from herdbook.errors import StepError
from herdbook.steps.evaluate import unpacked
from herdbook.steps.evaluate.unpacked import check_unpacked


def write(path, texts):
    parquet.write_table(pa.table({"text": texts}), path, compression="zstd")
    return path


def test_honest_files_pass(tmp_path):
    rows = write(
        tmp_path / "a.parquet", [f"document {number}: " + "some words " * 20 for number in range(5000)]
    )
    (tmp_path / "b.jsonl").write_text("not looked at")
    check_unpacked([rows, tmp_path / "b.jsonl"])
    check_unpacked([])


def test_a_text_that_is_repeated_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1_000_000)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array(["x" * 1000]))
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pa.table({"text": texts.cast(pa.string())}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(
        StepError, match=r"bomb\.parquet of a data set has over [\d,]+ bytes once it is unpacked"
    ):
        check_unpacked([path])


@pytest.mark.slow
def test_one_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKING_MEMORY_BYTES", 50_000_000)
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 1_000_000]))
    path = tmp_path / "wide.parquet"
    parquet.write_table(pa.table({"text": texts}), path, compression="zstd")
    with pytest.raises(StepError, match=r"wide\.parquet"):
        check_unpacked([path])


def test_the_lack_of_memory_is_the_reason_that_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(unpacked, "_unpacked", fail)
    assert unpacked.reply({"a": 1}) == {"problems": {"a": "takes too much memory to unpack"}}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(StepError, match=r"c\.parquet of a data set is not a Parquet file that can be read"):
        check_unpacked([tmp_path / "c.parquet"])
