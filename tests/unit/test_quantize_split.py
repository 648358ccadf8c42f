"""Files in parts: as llama.cpp cuts and names them, and read again as one."""

import hashlib

import gguf
import numpy as np
import pytest

from herdbook.errors import CheckpointError
from herdbook.quantization.split import part_names, runs
from herdbook.quantization.tensor import Typed
from herdbook.steps.quantize.derive import derive, require_equal
from herdbook.weights.gguf_file import read_gguf
from herdbook.weights.gguf_parts import join, write_part
from support import tiny
from support.quantized import quantize_folder


def naive(sizes, most):
    """Cut as gguf-split does, written as a loop over offsets."""
    cuts, current = [0], 0
    for at, size in enumerate(sizes):
        if at > cuts[-1] and current + size > most:
            cuts.append(at)
            current = 0
        current += size
    return [tuple(map(str, range(*pair))) for pair in zip(cuts, [*cuts[1:], len(sizes)], strict=True)]


@pytest.mark.parametrize("most", [1, 63, 64, 65, 128, 500, 10**6])
def test_parts_are_cut_as_llama_cpp_cuts_them(most):
    lengths = [8, 24, 1, 100, 3, 3, 8, 16, 200]
    tensors = [Typed(str(number), (length,), "F32") for number, length in enumerate(lengths)]
    padded = [-(-4 * length // 32) * 32 for length in lengths]
    assert list(runs(tensors, most)) == naive(padded, most)


def test_names_are_those_that_llama_cpp_looks_for():
    assert part_names("A.Q8_0.gguf", 2) == ("A.Q8_0-00001-of-00002.gguf", "A.Q8_0-00002-of-00002.gguf")


@pytest.fixture
def whole(tmp_path):
    folder = tiny.write_model(tmp_path / "m", hidden=64)
    writer = gguf.GGUFWriter(str(tmp_path / "head.gguf"), "llama")
    writer.add_name("Small")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    quantize_folder(folder, tmp_path / "head.gguf", tmp_path / "q.gguf", "Q8_0")
    return folder, read_gguf(tmp_path / "q.gguf")


def test_parts_have_llama_cpp_s_entries_and_join_to_the_whole(whole, tmp_path):
    folder, file = whole
    tensors = [Typed(name, one.shape, one.type.name) for name, one in file.tensors.items()]
    cut = runs(tensors, file.size_bytes // 3)
    assert len(cut) > 2
    paths = [tmp_path / name for name in part_names("q.gguf", len(cut))]
    digests = [write_part(file, cut, number, path) for number, path in enumerate(paths)]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    for number, (path, names) in enumerate(zip(paths, cut, strict=True)):
        reader = gguf.GGUFReader(path)  # another reader
        assert [str(tensor.name) for tensor in reader.tensors] == list(names)
        own = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        assert ("general.name" in own) == (number == 0)
        found = {key: (own[key].types[0].name, own[key].parts[-1][0]) for key in own if "split" in key}
        assert found == {
            "split.no": ("UINT16", number),
            "split.count": ("UINT16", len(cut)),
            "split.tensors.count": ("INT32", len(tensors)),
        }
        for tensor in reader.tensors:
            whole_tensor = file.tensors[str(tensor.name)]
            assert np.array_equal(
                tensor.data.view(np.uint8).reshape(-1),
                file.read_rows(whole_tensor, 0, whole_tensor.rows).reshape(-1),
            )
    joined = join([read_gguf(path) for path in paths])
    assert (joined.digest(), joined.size_bytes) == (file.digest(), file.size_bytes)
    require_equal(derive(joined, folder), "q.gguf")


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1), (0, 2, 2)])
def test_parts_that_do_not_belong_together_are_refused(whole, tmp_path, order):
    _, file = whole
    names = list(file.tensors)
    cut = (tuple(names[:4]), tuple(names[4:9]), tuple(names[9:]))
    paths = [tmp_path / name for name in part_names("q.gguf", 3)]
    for number, path in enumerate(paths):
        write_part(file, cut, number, path)
    with pytest.raises(CheckpointError, match=r"is not part \d of \d of one file"):
        join([read_gguf(paths[number]) for number in order])
