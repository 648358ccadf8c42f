"""The loss by quantization: against naive loops over what transformers computes; the gates, each with its fault planted."""

import json
import math
import re
import shutil
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from pytest_local_hub import LocalHub, client
from transformers import AutoModelForCausalLM

from herdbook import recipe as recipes
from herdbook.comparison.losses import missed
from herdbook.errors import CheckpointError, RecipeError, SourceError, StepError
from herdbook.inference.forward import LayerwiseModel
from herdbook.inference.text import windows
from herdbook.plan.loss import unreadable
from herdbook.steps.card.step import render_card
from herdbook.steps.loss import step
from herdbook.steps.quantize.dequantize import load_dequantized
from herdbook.steps.release.step import release
from herdbook.weights.gguf_file import header, padded, read_gguf
from herdbook.weights.gguf_restored import RestoredTensors
from support import quantized, tiny

TEXT = {"split": "validation", "windows": 30, "tokens": 12}
MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "mix": {
        "moe": {
            "base": "base",
            "gate": "random",
            "experts": [{"model": "base"}, {"model": "other"}],
        }
    },
}
SEQUENCES = [[1, *range(3, 40)], [1, 9, 9, 4]]


def write(root, **sections):
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(root / name, seed=seed, head_dim=8)
    for name, factor in (("words", 7), ("more", 5)):
        lines = (" ".join(f"w{(factor * n + i * i) % 40}" for i in range(40)) for n in range(1, 13))
        (root / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8"
        )
    texts = {name: {"data": [f"{name}.jsonl"], **TEXT} for name in ("words", "more")}
    loss = {"texts": ["words", "more"], **sections.pop("loss", {})}
    methods = sections.pop("methods", ["Q8_0", "Q4_0"])
    return tiny.write_recipe(
        root / "r.yaml",
        MODELS,
        calibration=texts,
        quantize={"methods": methods, "evaluate": False, "loss": loss},
        **sections,
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    made = tiny.build(write(tmp_path_factory.mktemp("loss")), tmp_path_factory.mktemp("results"))
    quantized.add_to(made, quantized.size_label(experts=2))
    return made


def record(plan, item):
    return json.loads(plan.layout.loss(item).read_text(encoding="utf-8"))


def naive(reference, model, sequences):
    """Return what is found token by token: the divergence, both losses, and whether the best token is the same."""
    rows = []
    for ids in sequences:
        with torch.no_grad():
            full, own = (one(torch.tensor([ids])).logits[0].double().tolist() for one in (reference, model))
        for place, following in enumerate(ids[1:]):
            odds = []
            for logits in (full[place], own[place]):
                total = sum(math.exp(value) for value in logits)
                odds.append([math.exp(value) / total for value in logits])
            divergence = sum(p * math.log(p / q) for p, q in zip(*odds, strict=True))
            best = [max(range(len(one)), key=one.__getitem__) for one in odds]
            rows.append(
                (divergence, -math.log(odds[1][following]), -math.log(odds[0][following]), best[0] == best[1])
            )
    return rows


def quantile(values, share):
    """Return a quantile as llama.cpp computes it: between the two nearest of the sorted values."""
    place = share * (len(values) - 1)
    low = int(place)
    ranked = sorted(values)
    return ranked[low] + (place - low) * (ranked[min(low + 1, len(values) - 1)] - ranked[low])


def error(values):
    mean = sum(values) / len(values)
    return math.sqrt((sum(value * value for value in values) / len(values) - mean**2) / (len(values) - 1))


def test_a_loss_is_that_of_naive_loops_over_what_transformers_computes(plan):
    folder = plan.layout.folder(plan.released)
    reference = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    texts = {name: windows(plan, name, folder, reference.config, 30) for name in ("words", "more")}
    item = plan.losses[1]
    found = record(plan, item)
    model = load_dequantized(plan.layout.quantized(item.quantized), folder)
    rows = {name: naive(reference, model, drawn) for name, drawn in texts.items()}
    for measured, own in (
        (found["total"], [*rows["words"], *rows["more"]]),
        (found["texts"]["more"], rows["more"]),
    ):
        divergence, surprise, expected, same = ([row[column] for row in own] for column in range(4))
        assert measured["tokens"] == len(own)
        about = measured["kl_divergence"]
        assert about["value"] == pytest.approx(sum(divergence) / len(own), rel=1e-3)
        assert about["stderr"] == pytest.approx(error(divergence), rel=1e-3)
        for name, share in (("median", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
            assert about[name] == pytest.approx(quantile(divergence, share), rel=1e-3)
        differences = [one - two for one, two in zip(surprise, expected, strict=True)]
        ratio = math.exp(sum(differences) / len(own))
        assert measured["perplexity_ratio"]["value"] == pytest.approx(ratio, rel=1e-5)
        assert measured["perplexity_ratio"]["stderr"] == pytest.approx(ratio * error(differences), rel=1e-3)
        assert measured["perplexity"]["value"] == pytest.approx(math.exp(sum(surprise) / len(own)), rel=1e-5)
        share = sum(same) / len(same)
        assert measured["same_top"]["value"] == pytest.approx(share)
        assert measured["same_top"]["stderr"] == pytest.approx(
            math.sqrt(share * (1 - share) / (len(own) - 1)), abs=1e-9
        )


def test_the_wider_file_loses_less_and_both_less_than_the_control(plan):
    kept = json.loads(plan.layout.reference_record(plan.reference).read_text(encoding="utf-8"))
    values = [record(plan, item)["total"]["kl_divergence"]["value"] for item in plan.losses]
    assert 0 < values[0] < values[1] < kept["control"]["kl_divergence"]["value"]
    file = plan.layout.quantized(plan.losses[0].quantized)
    bits = [8 * tensor.size_bytes for tensor in read_gguf(file).tensors.values()]
    weights = [tensor.parameters for tensor in read_gguf(file).tensors.values()]
    assert record(plan, plan.losses[0])["bits_per_weight"] == round(sum(bits) / sum(weights), 3)


def test_threads_change_no_byte(plan):
    item = plan.losses[0]
    before = plan.layout.loss(item).read_bytes(), plan.layout.reference(plan.reference).read_bytes()
    step.reference(plan, plan.reference, 2)
    step.loss(plan, item, 2)
    assert before == (plan.layout.loss(item).read_bytes(), plan.layout.reference(plan.reference).read_bytes())


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
def test_the_types_that_are_read_by_layers_are_read_as_transformers_reads_them(tmp_path, kind):
    changes = {"qwen3": {"head_dim": 8}, "smollm3": {"pad_token_id": 0}}.get(kind, {})
    tiny.write_model(tmp_path / kind, seed=3, model_type=kind, layers=4, **changes)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / kind, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model = LayerwiseModel(tmp_path / kind)
    for ids, states in zip(SEQUENCES, model.normed(model.read(SEQUENCES)), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).logits[0]
        torch.testing.assert_close(states @ model.head().T, expected, rtol=1e-4, atol=1e-5)


def rewritten(plan, item, change):
    """Write a quantized file with other bytes of some tensors; return its path."""
    path = plan.layout.quantized(item.quantized)
    file = read_gguf(path)
    parts = [header(file.metadata, file.tensors.values())]
    for tensor in file.tensors.values():
        data = change(tensor, file.read_rows(tensor, 0, tensor.rows)).tobytes()
        parts.append(data + bytes(padded(len(data)) - len(data)))
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture
def copy(plan, tmp_path):
    """Give the plan with results of its own."""
    from herdbook import plan as plans

    shutil.copytree(plan.recipe_path.parent, tmp_path / "recipe")
    shutil.copytree(plan.layout.root, tmp_path / "results", symlinks=False)
    return plans.load(tmp_path / "recipe" / "r.yaml", tmp_path / "results")


def test_a_file_whose_experts_are_lost_is_not_released(copy):
    """As a reader leaves them that fills up what it does not find: random, of the same size."""
    draw = np.random.default_rng(0)

    def change(tensor, rows):
        if "_exps" not in tensor.name:
            return rows
        values = gguf.quants.dequantize(rows, tensor.type)
        return gguf.quants.quantize(draw.permuted(values, axis=0), tensor.type)

    item = copy.losses[0]
    rewritten(copy, item, change)
    step.loss(copy, item)
    with pytest.raises(StepError, match=r"quantize\.loss: Tiny\.Q8_0\.gguf: .*experts are as good as lost"):
        release(copy)


def test_a_file_that_computes_no_numbers_is_refused(copy):
    def change(tensor, rows):
        broken = rows.copy()
        if tensor.name == "output_norm.weight":
            broken[:] = np.frombuffer(np.float32(np.nan).tobytes() * tensor.parameters, np.uint8)
        return broken

    rewritten(copy, copy.losses[0], change)
    with pytest.raises(StepError, match="not all numbers"):
        step.loss(copy, copy.losses[0])


def test_a_file_above_the_ceiling_is_not_released(copy):
    found = record(copy, copy.losses[1])["total"]["kl_divergence"]["value"]
    text = copy.recipe_path.read_text(encoding="utf-8")
    from herdbook import plan as plans

    for ceiling, expected in ((found / 2, ["Tiny.Q4_0.gguf"]), (found * 2, []), ({"Q8_0": 1e-12}, ["Q8_0"])):
        changed = text.replace("  loss:\n", f"  loss:\n    ceiling: {json.dumps(ceiling)}\n")
        copy.recipe_path.write_text(changed, encoding="utf-8")
        again = plans.load(copy.recipe_path, copy.layout.root)
        assert [one.key for one in again.losses] == [one.key for one in copy.losses]
        names = {f"provenance/losses/{one.id}.json": again.layout.loss(one) for one in again.losses}
        names[f"provenance/losses/{again.reference.id}.json"] = again.layout.reference_record(again.reference)
        problems = list(missed(again, lambda name: json.loads(names[name].read_text())))  # noqa: B023
        assert len(problems) == len(expected)
        for problem, name in zip(problems, expected, strict=True):
            assert name in problem
            assert "above the" in problem
    with pytest.raises(StepError, match="ceiling"):
        release(again)


def test_files_of_other_publishers_are_pinned_and_measured(plan, tmp_path, monkeypatch):
    theirs = plan.layout.quantized(plan.losses[1].quantized).read_bytes()
    with LocalHub() as hub:
        client.use(hub, tmp_path / "cache", monkeypatch)
        commit = hub.add_repo("them/Mix-GGUF", {"Mix-Q4_0.gguf": theirs, "README.md": b"# GGUF\n"})
        entry = {"hub": "them/Mix-GGUF", "file": "Mix-Q4_0.gguf"}
        (tmp_path / "recipe").mkdir()
        path = write(tmp_path / "recipe", loss={"others": {"theirs": entry}}, methods=["Q4_0"])
        made = tiny.build(path, tmp_path / "results")
        locked = made.lock.others["theirs"]
        assert (locked.revision, locked.file.name) == (commit, "Mix-Q4_0.gguf")
        quantized.add_to(made, quantized.size_label(experts=2))
        ours, other = (record(made, item) for item in made.losses)
        assert other["total"] == ours["total"]
        assert other["file"] == ours["file"]
        render_card(made, made.layout.card_folder)
        card = (made.layout.card_folder / "README.md").read_text(encoding="utf-8")
        value = (
            f"{ours['total']['kl_divergence']['value']:.4f} ± {ours['total']['kl_divergence']['stderr']:.4f}"
        )
        assert [
            line.partition("|")[2].partition("|")[0].strip() for line in card.splitlines() if value in line
        ] == [
            "Q4\\_0",
            "theirs of them/Mix-GGUF",
        ]
        release(made)
        released = {one.name for one in made.layout.release_folder.rglob("*") if one.is_file()}
        assert "Tiny.Q4_0.gguf" in released
        assert "Mix-Q4_0.gguf" not in released
        (tmp_path / "recipe2").mkdir()
        wrong = write(
            tmp_path / "recipe2",
            loss={"others": {"theirs": {**entry, "file": "Mix-Q4_1.gguf"}}},
            methods=["Q4_0"],
        )
        with pytest.raises(SourceError, match=r"has no file 'Mix-Q4_1\.gguf'; did you mean 'Mix-Q4_0\.gguf'"):
            tiny.lock(wrong)


def test_a_file_of_another_model_is_refused(plan, tmp_path):
    folder = plan.layout.folder(plan.released)
    tiny.write_model(tmp_path / "wide", hidden=64, head_dim=16)
    head = plan.layout.header(plan.conversion)
    quantized.quantize_folder(tmp_path / "wide", head, tmp_path / "wide.gguf", "Q8_0")
    with pytest.raises(CheckpointError, match="tensors are missing"):
        RestoredTensors(tmp_path / "wide.gguf", step._config(folder), "x")
    other = read_gguf(plan.layout.quantized(plan.losses[0].quantized))
    tensor = other.tensors["token_embd.weight"]
    changed = {**other.tensors, tensor.name: type(tensor)(tensor.name, (65, 32), tensor.type, tensor.start)}
    with pytest.raises(
        CheckpointError, match=r"token_embd\.weight has shape \[65, 32\], the model's has \[64, 32\]"
    ):
        step._check_shapes(type(other)(other.path, other.metadata, changed, other.size_bytes), folder)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({"data": ["words.jsonl"]}, "reads words.jsonl, of which models.cut is made"),
        ({"data": ["words.jsonl"], "split": "train"}, "is of a training split, which is not held out"),
        (
            {"data": ["same.jsonl"]},
            "12 of the 12 documents of 'held' are also in 'words', of which models.cut is made",
        ),
    ],
)
def test_text_that_models_are_made_of_is_not_held_out(tmp_path, held, expected):
    tiny.write_model(tmp_path / "base")
    lines = [json.dumps({"text": f"w{number} w{number}"}) for number in range(12)]
    (tmp_path / "words.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "same.jsonl").write_text(
        "\n".join(reversed(lines)).upper().replace("TEXT", "text"), encoding="utf-8"
    )
    cut = {
        "laser": "base",
        "rank": {"svd-llm": {"fraction": 0.5}},
        "matrices": ["mlp.down_proj"],
        "calibration": "words",
    }
    path = tiny.write_recipe(
        tmp_path / "r.yaml",
        {"base": {"folder": "base"}, "cut": cut},
        calibration={"words": {"data": ["words.jsonl"], **TEXT}, "held": {**TEXT, **held}},
        quantize={"methods": ["Q8_0"], "loss": {"texts": ["held"]}},
    )
    with pytest.raises(RecipeError, match=re.escape(expected)):
        tiny.lock(path)


def test_text_of_the_importance_matrix_is_not_held_out():
    text = (
        "models: {base: {folder: base}}\nrelease: {model: base, name: Tiny, license: mit}\n"
        "calibration: {t: {data: [t.jsonl], split: validation}}\n"
        "quantize: {methods: [Q8_0], imatrix: {texts: [t]}, loss: {texts: [t]}}\n"
    )
    with pytest.raises(RecipeError, match=r"reads t\.jsonl, of which quantize\.imatrix is made"):
        recipes.parse(text, "r.yaml")


def test_types_that_are_not_read_by_layers_are_refused_by_the_plan(tmp_path):
    tiny.write_model(tmp_path / "base", model_type="gemma2", head_dim=8, query_pre_attn_scalar=8)
    config = json.loads((tmp_path / "base/config.json").read_text(encoding="utf-8"))
    node = SimpleNamespace(config=config, name="base")
    recipe = recipes.parse(
        "models: {base: {folder: base}}\nrelease: {model: base, name: Tiny, license: mit}\n"
        "calibration: {t: {data: [t.jsonl], split: validation}}\nquantize: {methods: [Q8_0], loss: {texts: [t]}}\n",
        "r.yaml",
    )
    assert "is of type 'gemma2', which is not read layer by layer" in unreadable(recipe, node)
    assert unreadable(recipe, SimpleNamespace(config={"model_type": "mixtral"}, name="mix")) is None
