"""LASER on the miniature's real weights: the bits of a full SVD, a laptop's memory, the guard's promise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from herdbook import needs
from herdbook import plan as plans
from herdbook.inference.forward import CheckpointFolder
from herdbook.recipe import rank_rule
from herdbook.steps.laser.decompose import decompose, round_once
from herdbook.steps.laser.rank import keep
from herdbook.steps.laser.reduce import reduce
from support import tiny

MODELS = Path(__file__).parents[2] / "results/models"
RULES = ({"fraction": 0.9}, {"energy": 0.99}, 100, "mp-edge", "gavish-donoho", "laser-rmt")
KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base():
    found = [path for path in MODELS.glob("base-*") if not path.name.startswith("base-laser")]
    if not found:
        pytest.skip("needs what `make demo` builds")
    return CheckpointFolder(found[0])


@pytest.mark.parametrize("layer", [0, 14, 29])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_and_bits_are_those_of_a_full_svd(base, layer, kind):
    matrix = base.stored(f"model.layers.{layer}.{kind}.weight")
    u, s, v = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    decomposition = decompose(matrix)
    for rule in RULES:
        rank = keep(rank_rule(rule), s, *matrix.shape).rank
        found = reduce(matrix, decomposition, rank_rule(rule))
        assert found.evidence["rank"] == rank
        expected = round_once(torch.from_numpy((u[:, :rank] * s[:rank]) @ v[:rank]), matrix.dtype)
        assert found.matrix.equal(expected)


def peak_memory(folder, layers):
    """Return the largest memory of `herdbook laser` for a model of so many layers, in bytes."""
    name = f"m{layers}"
    tiny.write_model(folder / name, layers=layers, hidden=640, intermediate=1792)
    recipe = tiny.write_recipe(
        folder / f"{name}.yaml",
        {"m": {"folder": name}, "l": {"laser": "m", "rank": "mp-edge", "matrices": "all"}},
    )
    tiny.lock(recipe)
    plan = plans.load(recipe, folder / f"results-{name}")
    from herdbook.steps.fetch.step import fetch

    for part in plan.nodes["m"].parts:
        fetch(plan, part)
    (part,) = plan.nodes["l"].parts
    script = (
        "import sys; from herdbook.cli.main import main; status = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]); sys.exit(status)"
    )
    arguments = ["laser", part.key, "--recipe", str(recipe), "--results", str(plan.layout.root)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, env=os.environ
    )
    peak = 1024 * int(
        done.stdout.splitlines()[-1]
    )  # of this program alone: getrusage counts what the parent held, too
    assert peak < needs.memory_bytes(plan, part)  # what the plan asks of a scheduler is enough
    return peak, plan.nodes["m"].size_bytes


def test_memory_does_not_grow_with_the_model(tmp_path):
    (few, small), (many, large) = (peak_memory(tmp_path, layers) for layers in (2, 20))
    assert large - small > 150_000_000
    assert many - few < (large - small) / 2  # what the allocator keeps, and no more


def test_a_guard_does_no_harm_by_its_own_test_on_a_real_model(base, tmp_path):
    (tmp_path / "base").symlink_to(base.path)
    text = Path(__file__).parents[2] / "config/miniature/text"
    for kind in ("python", "prose", "general"):
        (tmp_path / f"{kind}.jsonl").write_bytes((text / kind / "validation.jsonl").read_bytes())
    entry = {
        "laser": "base",
        "rank": [{"fraction": 0.6}, {"fraction": 0.9}],
        "matrices": ["self_attn.q_proj", "self_attn.o_proj"],
        "layers": "28-29",
        "calibration": "mixed",
        "guard": {"margin": 0.001},
    }
    data = [f"{kind}.jsonl" for kind in ("python", "prose", "general")]
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml",
        {"base": {"folder": "base"}, "l": entry},
        calibration={"mixed": {"data": data, "split": "validation", "windows": 30, "tokens": 64}},
    )
    plan = tiny.build(recipe, tmp_path / "results")
    found = json.loads(plan.layout.search(plan.nodes["l"].search).read_text())
    assert found["trials"]
    assert found["difference"]["upper"] <= 0.001
