"""Rows clustered around subspaces, against NumPy's SVD of each cluster, trials of every partition, and planted clusters."""

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from herdbook.errors import RecipeError
from herdbook.needs.time import CLUSTER_ROUNDS
from herdbook.recipe import rank_rule
from herdbook.steps.laser import clusters as module
from herdbook.steps.laser.clusters import cluster, join
from herdbook.steps.laser.decompose import decompose
from herdbook.steps.laser.gradient import predicted_change
from herdbook.steps.laser.reduce import reduce
from support import tiny


def rule(clusters, keep):
    return rank_rule({"clustered": {"clusters": clusters, "keep": keep}})


def truncated(rows, rank):
    u, s, v = np.linalg.svd(rows, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


def lost(matrix, labels, rank):
    """The squared error of each cluster's best approximation, summed."""
    parts = (matrix[labels == label] for label in np.unique(labels))
    return sum(((part - truncated(part, rank)) ** 2).sum() for part in parts)


def drawn(rows, columns, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)))


def labels_of(found, rows):
    labels = np.empty(rows, dtype=int)
    for number, each in enumerate(found):
        labels[each.rows] = number
    return labels


def planted(seed=0, noise=0.0):
    """Rows of three subspaces of two dimensions each, mixed; a third of each run of rows is of each subspace at most."""
    rng = np.random.default_rng(seed)
    bases = [rng.standard_normal((2, 12)) for _ in range(3)]
    owners = np.repeat(np.arange(3), 20)
    for number in rng.choice(60, 15, replace=False):
        owners[number] = rng.integers(3)
    rows = np.stack([rng.standard_normal(2) @ bases[owner] for owner in owners])
    return torch.from_numpy(rows + noise * rng.standard_normal(rows.shape)), owners


@pytest.mark.parametrize("seed", range(4))
def test_planted_subspaces_are_found(seed):
    matrix, owners = planted(seed)
    found = cluster(matrix, rule(3, 2))
    labels = labels_of(found, 60)
    assert lost(matrix.numpy(), np.repeat(np.arange(3), 20), 2) > 1  # the runs that it begins with are wrong
    assert {len(set(zip(labels, owners, strict=True)))} == {3}  # the same partition, by whatever numbers
    torch.testing.assert_close(join(matrix, found), matrix, rtol=0, atol=1e-9)
    assert np.linalg.matrix_rank(matrix.numpy()) == 6  # and no approximation of rank two has that


@pytest.mark.parametrize("shape", [(40, 8), (24, 30), (33, 12)])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_each_cluster_is_its_best_approximation_and_no_row_wants_to_move(shape, count, dtype, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 100)
    matrix = drawn(*shape).to(dtype)
    wide = matrix.double().numpy()
    found = cluster(matrix, rule(count, 3))
    labels = labels_of(found, shape[0])
    expected = np.empty(shape)
    for number in range(len(found)):
        expected[labels == number] = truncated(wide[labels == number], 3)
    near = {torch.float64: 1e-7, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(join(matrix, found).double(), torch.from_numpy(expected), rtol=near, atol=near)
    distances = []
    for number in range(len(found)):
        v = np.linalg.svd(wide[labels == number])[2][:3]
        distances.append(((wide - wide @ v.T @ v) ** 2).sum(axis=1))
    own = np.array(distances)[labels, np.arange(shape[0])]
    assert (own <= np.min(distances, axis=0) + 1e-6).all()
    begun = np.repeat(np.arange(count), [len(run) for run in np.array_split(np.arange(shape[0]), count)])
    assert lost(wide, labels, 3) <= lost(wide, begun, 3) + 1e-9


def test_every_round_loses_less_or_the_same(monkeypatch):
    matrix = drawn(60, 10, seed=5)
    losses = []
    for rounds in range(8):
        monkeypatch.setattr(module, "ROUNDS", rounds)
        losses.append(lost(matrix.numpy(), labels_of(cluster(matrix, rule(3, 2)), 60), 2))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


def test_no_partition_of_a_few_rows_is_much_better():
    """The best of all 2^9 partitions in two clusters; from runs of rows, a local optimum is found, which may be worse."""
    matrix = drawn(10, 4, seed=2).numpy()
    every = [np.array([0, *rest]) for rest in itertools.product((0, 1), repeat=9)]
    best = min(lost(matrix, labels, 1) for labels in every)
    found = lost(matrix, labels_of(cluster(torch.from_numpy(matrix), rule(2, 1)), 10), 1)
    assert best <= found <= lost(matrix, np.repeat([0, 1], 5), 1)
    # a local optimum: no single row that moves makes it better by the nearest subspace, and it is not far from the best
    assert found < 1.5 * best


def test_evidence_counts_all_clusters():
    matrix = drawn(60, 10, seed=1)
    found = reduce(matrix, decompose(matrix), rule(3, {"fraction": 0.3}))
    entry = found.evidence
    assert entry["clusters"]["ranks"] == [3, 3, 3]
    assert sum(entry["clusters"]["rows"]) == 60
    assert (entry["rank"], entry["of"]) == (9, 30)
    change = ((found.matrix - matrix) ** 2).sum() / (matrix**2).sum()
    assert entry["energy"] == pytest.approx(1 - change.item(), abs=1e-5)
    assert entry["change"] == pytest.approx(math.sqrt(change.item()), rel=1e-5)
    assert 0 < entry["tolerance"] < 1e-10
    assert entry["spectrum"] == reduce(matrix, decompose(matrix), rank_rule(5)).evidence["spectrum"]


def test_zeros_stay_zeros():
    matrix = torch.zeros(12, 6, dtype=torch.float64)
    found = reduce(matrix, decompose(matrix), rule(3, 2))
    assert found.matrix.count_nonzero() == 0
    assert found.evidence["energy"] == 1.0


def test_the_predicted_change_is_the_gradient_along_what_is_cut():
    matrix, gradient = drawn(30, 8, seed=3), drawn(30, 8, seed=4)
    each = rule(3, 2)
    cut = join(matrix, cluster(matrix, each)) - matrix
    found = predicted_change(matrix, decompose(matrix), each, gradient)
    assert found == pytest.approx((gradient * cut).sum().item(), abs=1e-10)


def test_the_rounds_are_those_that_time_is_asked_for():
    assert module.ROUNDS == CLUSTER_ROUNDS


# -- from the recipe -----------------------------------------------------------------------------------------------------

CLUSTERED = {"clustered": {"clusters": 4, "keep": {"fraction": 0.5}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clusters")
    tiny.write_model(root / "m", layers=2, dtype=torch.float32)
    rng = random.Random(1)
    lines = [json.dumps({"text": " ".join(f"w{rng.randrange(50)}" for _ in range(200))}) for _ in range(20)]
    (root / "validation.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def build(folder, results, name, **entry):
    entry = {"laser": "m", "matrices": ["mlp.up_proj", "self_attn.k_proj"], "rank": CLUSTERED, **entry}
    text = {"data": ["validation.jsonl"], "split": "validation", "windows": 30, "tokens": 24}
    recipe = tiny.write_recipe(
        folder / f"{name}.yaml", {"m": {"folder": "m"}, "l": entry}, calibration={"c": text}
    )
    plan = tiny.build(recipe, results)
    entries = {
        tensor: entry
        for part in plan.nodes["l"].parts
        for tensor, entry in json.loads(plan.layout.record(part).read_text())["tensors"].items()
        if entry["action"] == "laser"
    }
    made = {
        tensor: value
        for shard in plan.layout.folder(plan.nodes["l"]).glob("*.safetensors")
        for tensor, value in load_file(shard).items()
    }
    return plan, entries, made


def test_a_model_s_matrices_are_cut_by_cluster(folder, tmp_path):
    _, entries, made = build(folder, tmp_path, "plain")
    before = load_file(folder / "m/model.safetensors")
    assert len(entries) == 4
    for name, entry in entries.items():
        rows = before[name].shape[0]
        assert entry["rule"] == CLUSTERED
        assert set(entry["clusters"]["ranks"]) == {rows // 8}
        change = torch.linalg.norm(made[name] - before[name]) / torch.linalg.norm(before[name])
        runs = np.repeat(np.arange(4), rows // 4)
        worst = math.sqrt(lost(before[name].double().numpy(), runs, rows // 8)) / torch.linalg.norm(
            before[name]
        )
        assert change.item() == pytest.approx(entry["change"], rel=1e-4)
        assert change.item() <= worst.item() * (1 + 1e-6)


def test_a_search_ranks_and_tries_clusters(folder, tmp_path):
    plan, entries, made = build(
        folder,
        tmp_path,
        "searched",
        rank=[CLUSTERED, 14],
        select={"by": "gradient", "count": 3},
        calibration="c",
        guard={"margin": 0.002},
    )
    (planned,) = plan.searches.values()
    result = json.loads(plan.layout.search(planned).read_text())
    assert {name: entry["rule"] for name, entry in entries.items()} == result["chosen"]
    tried = [trial for trial in result["trials"] if trial["rule"] == CLUSTERED]
    assert len(tried) == 3
    assert any(trial["kept"] for trial in tried)
    before = load_file(folder / "m/model.safetensors")
    for name in entries:
        assert not torch.equal(made[name], before[name])


def test_a_matrix_with_too_few_rows_is_refused_by_name(folder, tmp_path):
    many = {"clustered": {"clusters": 9, "keep": 1}}
    with pytest.raises(
        RecipeError,
        match=r"models\.l\.rank: 9 clusters need at least 18 rows, and model\.layers\.0\.self_attn\.k_proj\.weight has 16",
    ):
        build(folder, tmp_path, "few", rank=many)
