"""Memory, disk and GPU memory that jobs ask for: what they follow from, and that it is enough for what is made."""

import dataclasses
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from herdbook import needs
from herdbook.errors import RecipeError
from herdbook.needs import disk, gpu, measuring, memory
from herdbook.needs.layerwise import reading
from herdbook.needs.reducing import MATRIX_PIECE_BYTES, matrix_bytes
from herdbook.needs.time import SLOW
from herdbook.plan import Evaluation
from herdbook.plan.asked import Group
from herdbook.plan.operation import Reduce
from herdbook.recipe import rank_rule
from herdbook.steps.laser import decompose
from herdbook.steps.quantize import encode
from support import tiny

MB, GB = 10**6, 10**9


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A mixture of a lasered and a searched model, made."""
    folder = tmp_path_factory.mktemp("needs")
    tiny.write_model(folder / "base", layers=3)
    words = " ".join(f"w{number % 50}" for number in range(700))
    (folder / "t.jsonl").write_text(f'{{"text": "{words}"}}\n', encoding="utf-8")
    cut = {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj", "mlp.up_proj"]}
    models = {
        "base": {"folder": "base"},
        "cut": cut,
        "searched": {**cut, "calibration": "words", "guard": {"margin": 0.1}},
        "mix": {
            "moe": {
                "base": "cut",
                "experts": [
                    {"model": "searched", "prompts": ["w1"]},
                    {"model": "base", "prompts": ["w2"]},
                ],
            }
        },
    }
    words = {"data": ["t.jsonl"], "split": "validation", "windows": 30, "tokens": 10}
    recipe = tiny.write_recipe(folder / "r.yaml", models, calibration={"words": words})
    return tiny.build(recipe, folder / "results")


def matrix(part, rows, columns, dtype="BF16"):
    """Return a tensor that is reduced, of a shape."""
    tensor = next(one for one in part.tensors if one.action == "laser")
    return dataclasses.replace(tensor, shape=(rows, columns), dtype=dtype)


def lasered(plan, *shapes):
    """Return a LASER part with reduced matrices of shapes."""
    (part,) = plan.nodes["cut"].parts
    return dataclasses.replace(part, tensors=tuple(matrix(part, *shape) for shape in shapes))


def size_on_disk(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# -- memory --------------------------------------------------------------------------------------------------------------


def test_a_matrix_takes_squares_of_its_smaller_side_and_copies_of_itself(plan):
    (part,) = plan.nodes["cut"].parts
    small, large = (
        matrix_bytes([matrix(part, m, n)], whitened=False) for m, n in ((1000, 4000), (2000, 4000))
    )
    # five squares in float64, three copies in bfloat16
    assert large - small == 5 * 8 * (2000**2 - 1000**2) + 3 * 2 * 1000 * 4000
    assert matrix_bytes([matrix(part, 4000, 1000)], whitened=False) == small


def test_reading_takes_a_layer_and_streams_of_all_windows_and_one_window_on_its_way(plan):
    base = plan.nodes["base"]
    few, many = reading(base, 10, 20), reading(base, 30, 20)
    layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64 + 2 * 32
    assert few.layer == many.layer == 4 * layer
    assert few.head == 4 * 64 * 32
    assert many.streams == 3 * few.streams
    assert many.window == few.window < reading(base, 10, 40).window


def test_a_search_shares_the_layer_and_the_text_among_its_threads(plan):
    search = plan.nodes["searched"].search
    read = reading(plan.nodes["base"], 60, 10)
    alone, four = (needs.memory_bytes(plan, search, threads) for threads in (1, 4))
    assert four - alone == 3 * read.window
    assert alone > read.layer + read.head + read.streams


def test_loading_a_mixture_takes_a_layer_of_its_experts_more_or_all_where_they_are_small(plan):
    expert = 4 * 3 * 32 * 64
    assert measuring.stacking_bytes(plan.nodes["base"]) == 0
    assert measuring.stacking_bytes(plan.nodes["mix"]) == 3 * 2 * expert

    def widened(part):
        tensors = (
            dataclasses.replace(one, shape=tuple(128 * side for side in one.shape)) for one in part.tensors
        )
        return dataclasses.replace(part, tensors=tuple(tensors))

    node = plan.nodes["mix"]
    wide = dataclasses.replace(node, parts=tuple(map(widened, node.parts)))
    # as they came; gates and ups stacked, and joined; less what stays, gates, ups and downs
    matrix = 2 * 128**2 * expert // 3
    assert measuring.stacking_bytes(wide) == 3 * matrix + 2 * matrix + 2 * matrix - 3 * matrix


# -- the GPU -------------------------------------------------------------------------------------------------------------


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that operations make, while these live; ``most`` of them at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage):
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, which, size):
        self._seen.discard(which)
        self.now -= size


def test_a_release_of_a_type_that_only_transformers_knows_takes_a_process_with_torch(plan, monkeypatch):
    own = memory.memory_bytes(plan, None)
    monkeypatch.setattr(memory, "is_known", lambda config: config != plan.released.config)
    assert memory.memory_bytes(plan, None) == own + memory.TORCH_BYTES


def test_pieces_are_as_large_as_the_steps_read_them():
    assert MATRIX_PIECE_BYTES == 8 * decompose.PIECE_ELEMENTS
    assert memory.QUANTIZED_PIECE_BYTES == encode.BLOCK_BYTES


def test_what_lies_on_a_device_at_once_is_within_what_is_asked(plan, monkeypatch):
    rows, columns = 900, 300
    monkeypatch.setattr(decompose, "PIECE_ELEMENTS", 100 * columns)
    torch.manual_seed(0)
    weights = torch.randn(rows, columns)
    with Living() as living:
        decompose.decompose(weights, "cpu:0")
    pieces = gpu.MATRIX_PIECES * 8 * 100 * columns
    part = lasered(plan, (rows, columns, "F32"))
    asked = (
        gpu.part_bytes(plan, part, 1) - gpu.LIBRARIES_BYTES - gpu.MATRIX_PIECES * MATRIX_PIECE_BYTES + pieces
    )
    # the workspace of the solver, two squares, is no tensor
    assert asked / 3 < living.most < asked - 2 * 8 * columns**2 + 1


def test_as_many_matrices_at_once_as_a_gpu_holds(plan):
    part = lasered(plan, (4096, 14336), (4096, 4096))
    one = gpu.part_bytes(plan, part, 1)
    more = gpu.part_bytes(plan, part, 2) - one
    assert more == 5 * 8 * 4096**2 + 3 * MATRIX_PIECE_BYTES + 2 * 4096 * 14336
    assert gpu.matrices_at_once(plan, part, 4, None) == 4
    assert gpu.matrices_at_once(plan, part, 4, 80 * GB) == 4
    for count in (1, 2, 3):
        just = int((one + (count - 1) * more) / gpu.USABLE) + 1
        assert gpu.matrices_at_once(plan, part, 4, just) == count
        assert gpu.matrices_at_once(plan, part, 4, just - 2) == max(1, count - 1)


def test_a_model_gets_as_many_gpus_as_hold_it(plan, measured, monkeypatch):
    monkeypatch.setattr(gpu, "pass_bytes", lambda *_: 800 * MB)
    for gpu_bytes in (24 * GB, 80 * GB, 141 * GB):
        count = next(
            n for n in range(1, 100) if gpu.evaluation_bytes(plan, measured, n) <= gpu.USABLE * gpu_bytes
        )
        assert needs.gpus(plan, measured, gpu_bytes) == count
    assert needs.gpus(plan, measured, None) == 1


def test_a_gpu_that_is_too_small_is_refused_with_the_job_s_name(plan):
    needs.check_gpu(plan, None)
    needs.check_gpu(plan, 2 * GB)
    with pytest.raises(
        RecipeError, match=r"gpu_memory: (laser|search|routing) \S+ needs at least 1\.[78]\d GB of GPU memory"
    ):
        needs.check_gpu(plan, GB)


@pytest.fixture
def measured(plan):
    """A measurement of a model of 24 thousand million parameters, as a 4x7B has."""
    node = plan.nodes["base"]
    (part,) = node.parts
    tensors = tuple(
        dataclasses.replace(part.tensors[0], name=f"model.layers.{layer}.x", shape=(24, 10**9 // 32))
        for layer in range(32)
    )
    node = dataclasses.replace(node, parts=(dataclasses.replace(part, tensors=tensors),))
    return Evaluation("one", node, None, "0" * 64, {}, Group("", "float32", False, ()))


# -- the disk ------------------------------------------------------------------------------------------------------------


def test_a_part_writes_its_tensors_and_its_decompositions(plan):
    part = lasered(plan, (1000, 3000), (2000, 3000))
    alone = lasered(plan, (1000, 3000))
    more = needs.disk_bytes(plan, part) - needs.disk_bytes(plan, alone)
    assert more == 2 * 2000 * 3000 + 8 * 2000**2 + disk.ENTRY_BYTES


def test_a_folder_s_files_are_copied_and_take_their_size(plan):
    (part,) = plan.nodes["base"].parts
    entries = disk.LEAST_BYTES + disk.ENTRY_BYTES * len(part.tensors)
    assert needs.disk_bytes(plan, part) == entries + part.size_bytes
    assert plan.layout.shard(part) in dict(disk.large_files(plan))


def test_a_search_keeps_hidden_states_before_and_after_each_layer(plan):
    search = plan.nodes["searched"].search
    longer = dataclasses.replace(search.text, windows=130)
    more = needs.disk_bytes(plan, dataclasses.replace(search, text=longer)) - needs.disk_bytes(plan, search)
    assert more == 4 * (100 * 10 * 32) * (3 + 1)


def test_a_search_for_a_budget_reads_no_text_and_decomposes_a_matrix_for_each_thread(plan):
    search = plan.nodes["searched"].search
    budget = dataclasses.replace(search, ranks=(rank_rule({"budget": 0.5}),), guard=None, text=None)
    matrices = [tensor for _, tensor in plan.nodes["base"].tensors.values() if tensor.name in search.matrices]
    matrix = matrix_bytes(matrices, whitened=False)
    assert needs.memory_bytes(plan, budget, 3) - needs.memory_bytes(plan, budget, 1) == 2 * matrix
    written = needs.disk_bytes(plan, budget) - disk.LEAST_BYTES - len(matrices) * disk.ENTRY_BYTES
    assert written == sum(8 * min(tensor.shape) ** 2 for tensor in matrices)
    assert 0 < needs.seconds(plan, budget) <= needs.seconds(plan, search)


def test_clusters_take_the_memory_of_their_bases_and_the_time_of_their_rounds(plan):
    part = lasered(plan, (1000, 200))
    few, many = (
        dataclasses.replace(
            part,
            operation=Reduce(
                rank_rule({"clustered": {"clusters": 4, "keep": {"fraction": 0.5}}} if each else 100)
            ),
        )
        for each in (False, True)
    )
    more = needs.memory_bytes(plan, many) - needs.memory_bytes(plan, few)
    assert more == 2 * 8 * 1000 * 200  # as many elements as the matrix, twice, in float64
    rates = dataclasses.replace(SLOW, float64=1.0)
    operations = needs.seconds(plan, many, 1, rates) - needs.seconds(plan, few, 1, rates)
    # nine times four clusters of 250 x 200, and eight times projections of all rows on four bases of 100
    of_one = needs.decomposition_operations((250, 200))
    assert operations == pytest.approx(9 * 4 * of_one + 8 * 2 * 1000 * 200 * 4 * 100, rel=1e-3)


def test_what_lies_on_the_disk_is_within_what_was_asked(plan):
    for part in plan.parts.values():
        entries = plan.layout.record(part).stat().st_size / len(part.tensors)
        assert entries < disk.ENTRY_BYTES
    asked = sum(needs.disk_bytes(plan, part) - disk.LEAST_BYTES for part in plan.parts.values())
    made = size_on_disk(plan.layout.root / "shards") + size_on_disk(plan.layout.decompositions)
    states = size_on_disk(plan.layout.root / "states")
    assert states
    assert made + states < asked


@pytest.mark.parametrize(("side", "count"), [(512, 1), (4096, 1), (4096, 4), (4096, 8), (8192, 20)])
def test_a_thread_has_at_least_as_much_to_do_as_a_process_takes_to_start(plan, side, count):
    """Of matrices that are reduced, by the operations in closed form: 1 + 14/3 + 2 cubes of the side."""
    [part] = plan.nodes["cut"].parts
    wide = [dataclasses.replace(matrix(part, side, side), name=str(number)) for number in range(count)]
    part = dataclasses.replace(part, tensors=tuple(wide))
    work = count * (3 + 14 / 3) * side**3 / SLOW.float64
    threads = needs.threads(plan, part, on_gpu=True)
    assert threads == 4 or threads * SLOW.start >= work  # as many as there is work for
    assert (
        threads == 2 or (threads - 1) * SLOW.start < work * 1.5
    )  # beside the decompositions, it moves bytes; and a copy alone has a single thread
    assert (threads > 2) == (side == 8192)
    # a cluster's profile knows by a second one that a GPU is wanted; else two cores would be waited for
    own = needs.threads(plan, part)
    assert own == threads or (own == 1 and work <= SLOW.start)


def test_a_report_on_few_words_gets_one_thread(plan):
    assert needs.threads(plan, plan.report) == 1
