"""LASER by what a model does: activations, gradients, the guard and the search, against whole models of transformers."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.errors import CheckpointError, LockError, RecipeError, StepError
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.text import windows
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.steps.fetch.step import fetch
from herdbook.steps.inputs import ParentShards
from herdbook.steps.laser import whiten as whitening
from herdbook.steps.laser.decompose import approximate, decompose, eigen
from herdbook.steps.laser.gradient import gradients, predicted_changes
from herdbook.steps.laser.guard import accepts, paired, t_quantile
from herdbook.steps.laser.search import search
from herdbook.steps.laser.states import States
from herdbook.steps.laser.step import laser
from herdbook.steps.laser.whiten import moments, whiten
from support import forkserver, tiny

LAYERS = 3


def words(rng, count):
    """Return text whose next word depends on the last, so that a model's loss can change with its weights."""
    found = [rng.randrange(20)]
    while len(found) < count:
        found.append((found[-1] * 7 + rng.choice([1, 1, 1, 2])) % 47)
    return " ".join(f"w{word}" for word in found)


def write_text(path, seed, documents=40):
    rng = random.Random(seed)
    lines = [json.dumps({"text": words(rng, 200)}) for _ in range(documents)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def lasered(folder, name="lasered", text=None, **entry):
    """Write and lock a recipe of one lasered model; return it."""
    entry = {"laser": "m", "matrices": "all", **entry}
    calibration = {
        "data": ["validation.jsonl"],
        "split": "validation",
        "windows": 30,
        "tokens": 24,
        **(text or {}),
    }
    recipe = tiny.write_recipe(
        folder / f"{name}.yaml", {"m": {"folder": "m"}, "l": entry}, calibration={"c": calibration}
    )
    tiny.lock(recipe)
    return recipe


def entries_of(plan, name="l"):
    return {
        tensor: entry
        for part in plan.nodes[name].parts
        for tensor, entry in json.loads(plan.layout.record(part).read_text())["tensors"].items()
    }


def result_of(plan):
    (planned,) = plan.searches.values()
    return json.loads(plan.layout.search(planned).read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    tiny.write_model(root / "m", layers=LAYERS, dtype=torch.float32)
    write_text(root / "validation.jsonl", 1)
    return root


@pytest.fixture(scope="module")
def whole(folder):
    return AutoModelForCausalLM.from_pretrained(folder / "m", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sequences():
    rng = random.Random(5)
    return [[rng.randrange(3, 64) for _ in range(20)] for _ in range(6)]


def losses_of(model, sequences):
    with torch.no_grad():
        return [model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() for ids in sequences]


def forward(model, sequences, replaced=None, start=0, streams=None):
    streams = model.embed(sequences) if streams is None else streams
    for number in range(start, model.layers):
        with model.layer(number, replaced) as module:
            streams = model.run(module, streams)
    return model.losses(streams, sequences)


# -- layer by layer ------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_whole_model(folder, whole, sequences):
    found = forward(LayerwiseModel(folder / "m"), sequences)
    assert found == pytest.approx(losses_of(whole, sequences), abs=1e-5)


def test_threads_change_no_bit_of_a_loss(folder, sequences):
    with one_thread_a_matrix():
        found = [forward(LayerwiseModel(folder / "m", threads=threads), sequences) for threads in (1, 2, 4)]
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that keeps memory")
def test_losses_take_no_more_memory_for_more_sequences(tmp_path):
    """Of many windows with logits of 5 MB each, no more than a few are there at once, with one thread and with two.

    A forked process has a peak of its own.
    """
    tiny.write_model(tmp_path / "wide", vocab=40_000, layers=1)
    script = textwrap.dedent("""
        import os, resource, sys, torch
        from pathlib import Path
        from herdbook.inference.forward import LayerwiseModel

        torch.set_num_threads(1)
        for threads in 1, 2:
            if os.fork() == 0:
                model = LayerwiseModel(Path(sys.argv[1]), threads=threads)
                peaks = []
                for windows in 6, 96:
                    ids = [list(range(3, 36))] * windows
                    model.losses(model.embed(ids), ids)
                    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
                print(*peaks, flush=True)
                os._exit(0)
            os.wait()
    """)
    said = subprocess.check_output([sys.executable, "-c", script, tmp_path / "wide"], text=True)
    peaks = [[1024 * int(peak) for peak in line.split()] for line in said.splitlines()]
    assert len(peaks) == 2
    for few, many in peaks:
        assert many - few < 150e6


def test_a_trial_reruns_only_what_lies_above(folder, tmp_path, sequences, whole):
    model = LayerwiseModel(folder / "m")
    states = States(tmp_path / "states", model, sequences)
    name = "model.layers.1.mlp.up_proj.weight"
    other = model.weights[name] * 0.5
    found = forward(model, sequences, {name: other}, start=1, streams=states.entering(1))
    assert found == forward(model, sequences, {name: other})
    weight = whole.get_parameter(name)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(other)
        expected = losses_of(whole, sequences)
        weight.copy_(kept)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(losses_of(whole, sequences), abs=1e-4)
    states.remove()
    assert not (tmp_path / "states").exists()


# -- SVD-LLM -------------------------------------------------------------------------------------------------------


def by_cholesky(matrix, inputs, rank):
    """SVD-LLM as its paper has it: truncate the SVD of W S, S S^T = X^T X, and take S back out."""
    S = torch.linalg.cholesky(inputs.T @ inputs)
    u, s, v = torch.linalg.svd(matrix @ S, full_matrices=False)
    return torch.linalg.solve_triangular(S, (u[:, :rank] * s[:rank]) @ v[:rank], upper=False, left=False)


@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (20, 12), (16, 16)])
@pytest.mark.parametrize("rank", [1, 5, 11])
def test_whitened_reduction_is_svd_llm_s(rows, columns, rank):
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, 2, columns, dtype=torch.float64)
    inputs = torch.randn(200, columns, generator=generator, dtype=torch.float64) * scales
    outputs = inputs @ matrix.T
    moment = (outputs.T @ outputs if rows <= columns else inputs.T @ inputs).numpy()
    found = whiten(matrix, moment)
    reduced = approximate(matrix, found, rank)
    torch.testing.assert_close(reduced, by_cholesky(matrix, inputs, rank), rtol=1e-6, atol=1e-8)
    # Eckart and Young for the outputs, whose singular values the decomposition has
    lost = torch.linalg.norm(inputs @ (matrix - reduced).T)
    assert lost.item() == pytest.approx(math.sqrt((found.values[rank:] ** 2).sum()), rel=1e-6)
    plain = approximate(matrix, decompose(matrix), rank)
    assert lost < torch.linalg.norm(inputs @ (matrix - plain).T)


def test_inputs_that_span_less_than_the_columns_are_no_obstacle():
    # X^T X is singular here and has no Cholesky factor; a rank that the inputs fill loses nothing on them.
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(20, 12, generator=generator, dtype=torch.float64)
    inputs = torch.randn(50, 4, generator=generator, dtype=torch.float64) @ torch.randn(
        4, 12, generator=generator, dtype=torch.float64
    )
    reduced = approximate(matrix, whiten(matrix, (inputs.T @ inputs).numpy()), 4)
    torch.testing.assert_close(inputs @ reduced.T, inputs @ matrix.T, rtol=1e-6, atol=1e-6)
    assert torch.linalg.matrix_rank(reduced, atol=1e-6) == 4


def swift_svd(matrix, inputs, rank):
    """Swift-SVD as its paper has it, W as columns by rows: Y = X W, V of Y^T Y, W V_k V_k^T."""
    W = matrix.numpy().T
    Y = inputs.numpy() @ W
    _, vectors = np.linalg.eigh(Y.T @ Y)
    leading = vectors[:, ::-1][:, :rank]
    return torch.from_numpy((W @ leading @ leading.T).T.copy())


@pytest.mark.parametrize("dependent", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (20, 12), (16, 16)])
def test_whitening_is_one_eigendecomposition_of_the_outputs(rows, columns, dependent, monkeypatch):
    generator = torch.Generator().manual_seed(6)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if dependent:  # W^T W has no Cholesky factor either
        matrix[:, 3] = 0
    inputs = torch.randn(200, columns, generator=generator, dtype=torch.float64) * torch.logspace(
        0, 1, columns, dtype=torch.float64
    )
    outputs = inputs @ matrix.T
    sizes = []
    monkeypatch.setattr(
        whitening, "eigen", lambda gram, device: sizes.append(len(gram)) or eigen(gram, device)
    )
    found = whiten(matrix, (outputs.T @ outputs if rows <= columns else inputs.T @ inputs).numpy())
    assert sizes == [min(rows, columns)] * (2 if dependent and rows > columns else 1)
    for rank in (1, 5, 11):
        torch.testing.assert_close(
            approximate(matrix, found, rank), swift_svd(matrix, inputs, rank), rtol=1e-7, atol=1e-9
        )
    expected = torch.linalg.svdvals(outputs)[: min(rows, columns)].numpy()
    np.testing.assert_allclose(found.values, expected, rtol=1e-8, atol=1e-6)


def test_moments_are_those_of_what_passes(folder, whole, sequences):
    names = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
    seen = {name: [] for name in names}
    hooks = [
        whole.model.layers[1]
        .get_submodule(name)
        .register_forward_hook(lambda _, given, out, name=name: seen[name].append((given[0][0], out[0])))
        for name in names
    ]
    losses_of(whole, sequences)
    for hook in hooks:
        hook.remove()
    model = LayerwiseModel(folder / "m", threads=2)
    streams = model.embed(sequences)
    with model.layer(0) as module:
        streams = model.run(module, streams)
    with model.layer(1) as module:
        found = moments(model, module, streams, names)
    for name in names:
        side = 0 if name == "mlp.gate_proj" else 1  # 64 x 32 is tall: its inputs count; else the outputs
        expected = sum(pair[side].double().T @ pair[side].double() for pair in seen[name])
        np.testing.assert_allclose(found[name], expected.numpy(), rtol=1e-4, atol=1e-4)


def test_svd_llm_from_the_recipe_harms_outputs_less(folder, tmp_path):
    rule = {"fraction": 0.5}
    matrices = ["mlp.up_proj", "mlp.down_proj"]
    made = {
        name: tiny.build(lasered(folder, name, rank=rank, matrices=matrices, **more), tmp_path)
        for name, rank, more in (
            ("plain", rule, {}),
            ("whitened", {"svd-llm": rule}, {"calibration": "c"}),
        )
    }
    plan = made["whitened"]
    ids = windows(plan, "c", folder / "m", LayerwiseModel(folder / "m").config, 30)
    before = forward(LayerwiseModel(folder / "m"), ids)
    after = {
        name: forward(LayerwiseModel(made[name].layout.folder(made[name].nodes["l"])), ids) for name in made
    }
    assert abs(sum(after["whitened"]) - sum(before)) < abs(sum(after["plain"]) - sum(before))
    entries = entries_of(plan)
    assert {entry["rank"] for entry in entries.values() if entry["action"] == "laser"} == {16}
    for name, entry in entries_of(made["plain"]).items():  # the matrix is the same, so is what is said of it
        assert entries[name].get("spectrum") == entry.get("spectrum")


# -- gradients -----------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_whole_model(folder, tmp_path, whole, sequences):
    names = ["model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight"]
    model = LayerwiseModel(folder / "m", threads=2)
    found = dict(gradients(model, States(tmp_path, model, sequences), sequences, names))
    whole.zero_grad()
    for ids in sequences:
        (whole(torch.tensor([ids]), labels=torch.tensor([ids])).loss / len(sequences)).backward()
    assert set(found) == set(names)
    for name in names:
        expected = whole.get_parameter(name).grad.double()
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-7)
    whole.zero_grad()


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_predicted_change_is_the_gradient_along_what_is_cut(shape):
    generator = torch.Generator().manual_seed(1)
    matrix, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    found = predicted_changes(matrix, decompose(matrix), gradient)
    for rank in range(7):
        u, s, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
        cut = (u[:, :rank] * s[:rank]) @ v[:rank] - matrix.numpy()
        assert found[rank] == pytest.approx((gradient.numpy() * cut).sum(), abs=1e-10)


# -- the guard -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    # A table of Student's t: Abramowitz and Stegun 1964, table 26.10.
    [
        (0.95, 30, 1.697),
        (0.95, 60, 1.671),
        (0.95, 120, 1.658),
        (0.975, 30, 2.042),
        (0.975, 60, 2.000),
        (0.995, 30, 2.750),
    ],
)
def test_t_quantiles(probability, freedom, expected):
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=6e-4)


def test_paired_difference_in_closed_form():
    before = [float(i) for i in range(31)]
    after = [value + (0.1 if i % 2 else -0.3) for i, value in enumerate(before)]
    found = paired(before, after, 0.95)
    mean = (15 * 0.1 - 16 * 0.3) / 31
    variance = (15 * (0.1 - mean) ** 2 + 16 * (-0.3 - mean) ** 2) / 30
    assert found.mean == pytest.approx(mean)
    assert found.stderr == pytest.approx(math.sqrt(variance / 31))
    assert found.upper == pytest.approx(mean + 1.6973 * math.sqrt(variance / 31), abs=1e-4)


def test_costs_within_the_margin_do_not_add_up():
    start = [1.0 + i / 100 for i in range(40)]
    once = [loss + 0.006 for loss in start]
    twice = [loss + 0.012 for loss in start]
    assert accepts(paired(start, once, 0.95), paired(start, once, 0.95), 0.01)
    assert not accepts(paired(once, twice, 0.95), paired(start, twice, 0.95), 0.01)
    assert not accepts(paired(start, once, 0.95), paired(start, once, 0.95), 0.0)


GUARDED = {
    "rank": [{"fraction": 0.3}, {"fraction": 0.7}],
    "calibration": "c",
    "guard": {"margin": 0.002},
    "layers": [1, 2],
}


@pytest.fixture(scope="module")
def guarded(folder, tmp_path_factory):
    return tiny.build(lasered(folder, "guarded", **GUARDED), tmp_path_factory.mktemp("guarded"))


@pytest.mark.slow
def test_the_end_is_never_worse_than_the_start(guarded):
    result = result_of(guarded)
    assert result["difference"]["upper"] <= 0.002
    again = paired(result["start"], result["end"], 0.95)
    assert result["difference"]["mean"] == pytest.approx(again.mean)
    assert result["difference"]["upper"] == pytest.approx(again.upper)
    assert result["confirmation"]["before"] != result["difference"]["before"]  # other windows


def test_every_trial_is_written_down_and_judged(guarded):
    result = result_of(guarded)
    assert any(trial["kept"] for trial in result["trials"])
    assert not all(trial["kept"] for trial in result["trials"])
    current, chosen = result["start"], {}
    for trial in result["trials"]:
        step, whole = (paired(base, trial["losses"], 0.95) for base in (current, result["start"]))
        assert trial["kept"] == (step.upper <= 0.002 and whole.upper <= 0.002)
        if trial["kept"]:
            current = trial["losses"]
            chosen[trial["tensor"]] = trial["rule"]
    assert chosen == result["chosen"]
    assert current == result["end"]
    layers = [int(trial["tensor"].split(".")[2]) for trial in result["trials"]]
    assert layers == sorted(layers, reverse=True)
    assert set(layers) == {1, 2}


def test_the_lasered_model_is_what_the_search_measured(guarded, folder):
    plan, result = guarded, result_of(guarded)
    entries = entries_of(plan)
    assert {name for name, entry in entries.items() if entry["action"] == "laser"} == set(result["chosen"])
    ids = windows(plan, "c", folder / "m", LayerwiseModel(folder / "m").config, 60)
    model = LayerwiseModel(plan.layout.folder(plan.nodes["l"]))
    assert forward(model, ids[:30]) == pytest.approx(result["end"], rel=1e-6)
    confirmed = forward(model, ids[30:])
    assert sum(confirmed) / 30 == pytest.approx(result["confirmation"]["after"], rel=1e-6)
    assert not plan.layout.journal(next(iter(plan.searches.values()))).exists()
    assert not plan.layout.scratch(next(iter(plan.searches.values()))).exists()


def prepared(recipe, results):
    """Make what a search reads; return the plan and the search."""
    from herdbook.steps.assemble.step import assemble

    plan = plans.load(recipe, results)
    for part in plan.nodes["m"].parts:
        fetch(plan, part)
    assemble(plan, plan.nodes["m"])
    return plan, next(iter(plan.searches.values()))


@pytest.mark.slow
def test_threads_change_no_byte_of_a_search(folder, tmp_path, guarded):
    plan, planned = prepared(folder / "guarded.yaml", tmp_path)
    search(plan, planned, threads=3)
    expected = guarded.layout.search(planned).read_bytes()
    assert plan.layout.search(planned).read_bytes() == expected


@pytest.mark.slow
def test_a_killed_search_goes_on_and_ends_with_the_same_bytes(folder, tmp_path, guarded):
    plan, planned = prepared(folder / "guarded.yaml", tmp_path)
    command = [forkserver.PROGRAMS / "herdbook", "search", planned.key]
    command += ["--recipe", folder / "guarded.yaml", "--results", tmp_path]
    journal = plan.layout.journal(planned)
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while running.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 5:
            os.kill(running.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    _, said = running.communicate()  # which ends with the last process that may write to it
    assert running.returncode == -signal.SIGKILL, said.decode()
    assert not plan.layout.search(planned).exists()
    with journal.open("ab") as file:
        file.write(b'{"tensor": "model.layers.1')  # a line that the kill cut off
    done = journal.read_bytes().count(b"\n") - 1
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"resuming after {done} trials" in again.stderr
    assert plan.layout.search(planned).read_bytes() == guarded.layout.search(planned).read_bytes()


@pytest.mark.slow
def test_a_journal_of_another_search_is_not_believed(folder, tmp_path, guarded):
    plan, planned = prepared(folder / "guarded.yaml", tmp_path)
    journal = plan.layout.journal(planned)
    journal.parent.mkdir(parents=True)
    lie = {
        "tensor": "model.layers.2.mlp.down_proj.weight",
        "rule": {"fraction": 0.3},
        "kept": True,
        "losses": [0.0] * 30,
    }
    journal.write_text(json.dumps({"key": "other", "start": []}) + "\n" + json.dumps(lie) + "\n")
    search(plan, planned)
    assert plan.layout.search(planned).read_bytes() == guarded.layout.search(planned).read_bytes()


# -- selection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["snr", "laser-rmt-snr", "gradient"])
def test_the_first_of_a_ranking_are_reduced(folder, tmp_path, by):
    text = {"calibration": "c"} if by == "gradient" else {}
    plan = tiny.build(
        lasered(folder, by, rank={"fraction": 0.5}, select={"by": by, "count": 4}, **text), tmp_path
    )
    result = result_of(plan)
    scores = [entry["score"] for entry in result["ranking"]]
    assert len(scores) == 7 * LAYERS
    assert scores == sorted(scores)
    chosen = {entry["tensor"] for entry in result["ranking"][:4]}
    entries = entries_of(plan)
    assert {name for name, entry in entries.items() if entry["action"] == "laser"} == chosen
    parents = ParentShards(plan)
    for part in plan.nodes["l"].parts:
        for tensor in part.tensors:
            if tensor.name not in chosen:
                (origin,) = tensor.origins
                assert entries[tensor.name]["sha256"] == parents.shard(origin.part).sha256(origin.tensor)


def test_single_matrices_can_be_named(folder, tmp_path):
    named = ["layers.1.mlp.up_proj", "model.layers.2.self_attn.q_proj.weight"]
    plan = tiny.build(lasered(folder, "named", rank=3, matrices=named), tmp_path)
    reduced = {name: entry for name, entry in entries_of(plan).items() if entry["action"] == "laser"}
    assert set(reduced) == {"model.layers.1.mlp.up_proj.weight", "model.layers.2.self_attn.q_proj.weight"}
    assert {entry["rank"] for entry in reduced.values()} == {3}


def test_another_threshold_decomposes_nothing_again(folder, tmp_path, monkeypatch):
    tiny.build(lasered(folder, "one", rank="mp-edge"), tmp_path)

    def refuse(*_):
        raise AssertionError("decomposed again")

    monkeypatch.setattr("herdbook.steps.laser.store.decompose", refuse)
    for number, rank in enumerate(["gavish-donoho", {"energy": 0.5}, 7, "laser-rmt"]):
        tiny.build(lasered(folder, f"other{number}", rank=rank), tmp_path)


# -- calibration text, and bad input -------------------------------------------------------------------------------


def test_windows_are_drawn_by_the_seed_and_stay_in_their_documents(folder):
    config = LayerwiseModel(folder / "m").config
    found = {
        seed: windows(
            plans.load(
                lasered(folder, f"seed{seed}", rank={"svd-llm": 3}, calibration="c", text={"seed": seed})
            ),
            "c",
            folder / "m",
            config,
            30,
        )
        for seed in (0, 0, 1)
    }
    assert found[0] != found[1]
    assert all(len(window) == 24 for window in found[0])
    library = Tokenizer.from_file(str(folder / "m/tokenizer.json"))
    documents = [
        library.encode(json.loads(line)["text"], add_special_tokens=False).ids
        for line in (folder / "validation.jsonl").read_text().splitlines()
    ]
    pieces = {tuple(ids[at : at + 24]) for ids in documents for at in range(0, len(ids) - 23, 24)}
    assert {tuple(window) for window in found[0]} <= pieces


def test_text_that_is_measured_on_is_refused(folder, tmp_path):
    (tmp_path / "m").symlink_to(folder / "m")
    write_text(tmp_path / "validation.jsonl", 1)
    write_text(tmp_path / "test.jsonl", 2)
    task = {
        "task": "held_out",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
        "test_split": "test",
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml",
        {
            "m": {"folder": "m"},
            "l": {"laser": "m", "rank": {"svd-llm": 3}, "matrices": "all", "calibration": "c"},
        },
        calibration={"c": {"data": ["validation.jsonl"], "split": "validation"}},
        evaluate={"tasks": ["task.yaml"], "models": ["l"]},
    )
    lock = tiny.lock(recipe)
    plans.load(recipe)
    # one document of many, in other white space, is enough
    lines = (tmp_path / "validation.jsonl").read_text().splitlines()
    shared = json.dumps({"other": json.loads(lines[7])["text"].replace(" ", "  ")})
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(shared + "\n")
    with pytest.raises(
        RecipeError, match=r"calibration.c: 1 of its 40 documents .* evaluate.tasks task.yaml"
    ):
        tiny.lock(recipe)
    # also inside a longer text, in JSON of another form, after characters that only look like line ends, or in no JSON
    for content in (
        json.dumps([{"deep": {"er": ["x", "so: " + json.loads(lines[7])["text"] + " end"]}}]),
        '{"text": "a\u2028b"}\n' + shared + "\n",
        "no JSON: " + json.loads(lines[7])["text"],
    ):
        (tmp_path / "test.jsonl").write_text(content)
        with pytest.raises(RecipeError, match="1 of its 40 documents"):
            tiny.lock(recipe)
    # and the plan does not believe a lock that says otherwise
    pinned = lock.calibration["c"].data[0]
    data = lock.tasks["task.yaml"].data[0].model_copy(update={"sha256": pinned.sha256})
    tasks = {"task.yaml": lock.tasks["task.yaml"].model_copy(update={"data": (data,)})}
    locks.write(lock.model_copy(update={"tasks": tasks}), locks.path_for(recipe))
    with pytest.raises(RecipeError, match="must not be measured on text that it was tuned on"):
        plans.load(recipe)


def test_bad_calibration_text_is_named(folder, tmp_path):
    (tmp_path / "m").symlink_to(folder / "m")
    write_text(tmp_path / "validation.jsonl", 1, documents=3)
    with pytest.raises(
        StepError, match=r"calibration.c: its text has 24 windows of 24 tokens; 30 are needed"
    ):
        tiny.build(lasered(tmp_path, rank={"svd-llm": 3}, calibration="c"), tmp_path / "results")
    (tmp_path / "validation.jsonl").write_text('{"text": "w1"}\n{"txt": "w2"}\n')
    with pytest.raises(LockError, match=r"validation.jsonl, line 2: expected a JSON object with 'text'"):
        lasered(tmp_path, rank={"svd-llm": 3}, calibration="c")
    write_text(tmp_path / "validation.jsonl", 1)
    recipe = lasered(tmp_path, rank={"svd-llm": 3}, calibration="c")
    write_text(tmp_path / "validation.jsonl", 2)
    plan = plans.load(recipe)
    with pytest.raises(LockError, match=r"validation.jsonl has changed since it was locked"):
        windows(plan, "c", folder / "m", LayerwiseModel(folder / "m").config, 30)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_matrix_that_is_not_finite_is_named(folder, tmp_path, bad):
    from safetensors.torch import load_file, save_file

    tiny.write_model(tmp_path / "m", layers=1)
    tensors = load_file(tmp_path / "m/model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = bad
    save_file(tensors, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"model.layers.0.mlp.up_proj.weight .*contains NaN or infinite"
    ):
        tiny.build(lasered_plain(tmp_path), tmp_path / "results")


def lasered_plain(folder):
    recipe = tiny.write_recipe(
        folder / "r.yaml", {"m": {"folder": "m"}, "l": {"laser": "m", "rank": 3, "matrices": "all"}}
    )
    tiny.lock(recipe)
    return recipe


def test_a_part_needs_its_search(folder, tmp_path):
    recipe = lasered(folder, "lost", rank={"fraction": 0.5}, select={"by": "snr", "count": 2})
    plan, planned = prepared(recipe, tmp_path)
    part = plan.nodes["l"].parts[0]
    with pytest.raises(StepError, match="is missing or damaged"):
        laser(plan, part)
    plan.layout.search(planned).parent.mkdir(parents=True, exist_ok=True)
    plan.layout.search(planned).write_text(json.dumps({"key": "other", "chosen": {}}))
    with pytest.raises(StepError, match="belongs to another plan"):
        laser(plan, part)
