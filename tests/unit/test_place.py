"""Models on devices: measured and routed elsewhere, spread over GPUs, and what a rebuild makes of it. No GPU is needed:
``cpu:0`` takes the way of one, and where layers go is decided without it."""

import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from herdbook import plan as plans
from herdbook.comparison.samples import check_value, terms, unpack
from herdbook.errors import StepError
from herdbook.inference.devices import dispatch, layers_by_device
from herdbook.layout import BOMS, CARD, EVALUATIONS, LINEAGE, LOCK, RECIPE, RECORDS, WEIGHTS_INDEX
from herdbook.steps.evaluate.step import evaluate
from herdbook.steps.routing.step import routing
from herdbook.verify.rebuild.devices import Devices
from support import tiny


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A mixture, measured on a text that its routers are reported on, too."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(folder / name, seed)
    words = " ".join(f"w{(7 * number) % 50}" for number in range(400))
    (folder / "c.jsonl").write_text(json.dumps({"text": f"c {words}"}) + "\n", encoding="utf-8")
    tiny.write_task(folder / "task.yaml", [f"t {words}"])
    experts = [{"model": "base", "prompts": ["w1 w2"]}, {"model": "other", "prompts": ["w3"]}]
    models = {"base": {"folder": "base"}, "other": {"folder": "other"}}
    recipe = tiny.write_recipe(
        folder / "r.yaml",
        {**models, "mix": {"moe": {"base": "base", "experts": experts}}},
        evaluate={"tasks": ["task.yaml"], "models": ["mix"]},
        calibration={"words": {"data": ["c.jsonl"], "split": "validation", "windows": 30, "tokens": 10}},
        routing={"texts": ["words"]},
    )
    return tiny.build(recipe, folder / "results")


def test_what_another_device_measures_is_told_and_near(plan):
    (item,) = plan.evaluations
    evaluate(plan, item, 1)
    ours = json.loads(plan.layout.evaluation(item).read_text())
    kept = unpack(plan.layout.samples(item).read_bytes(), ours["samples"]["sha256"])["held_out"]
    assert [len(sample.sha256) for sample in kept] == [64]
    own = ours["tasks"]["held_out"]["metrics"]["bits_per_byte"]
    parts = terms(kept, "bits_per_byte", own["aggregation"])
    check_value(parts, own["aggregation"], Decimal(str(own["value"])), "bits_per_byte")
    evaluate(plan, item, 1, ["cpu:0"])
    theirs = json.loads(plan.layout.evaluation(item).read_text())
    assert "device" not in ours
    assert theirs.pop("device") == "cpu"  # of a GPU it would be cuda: the kind, without its number
    told = [found.pop("samples")["sha256"] for found in (ours, theirs)]
    assert all(len(digest) == 64 for digest in told)  # those of another device differ in the last digits
    values = [found.pop("tasks")["held_out"]["metrics"]["bits_per_byte"]["value"] for found in (ours, theirs)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert ours == theirs


def test_routers_choose_the_same_on_another_device(plan):
    path = plan.layout.report(plan.report)
    ours = json.loads(path.read_text())
    routing(plan, plan.report, 1, "cpu:0")
    theirs = json.loads(path.read_text())
    assert "device" not in ours
    assert theirs.pop("device") == "cpu"
    for one, other in zip(ours.pop("layers"), theirs.pop("layers"), strict=True):
        assert one["words"]["share"] == pytest.approx(other["words"]["share"], abs=1e-3)
    assert ours.keys() == theirs.keys()
    assert ours["texts"]["words"]["loss"] == pytest.approx(theirs["texts"]["words"]["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def model(plan):
    return AutoModelForCausalLM.from_pretrained(str(plan.layout.folder(plan.released)), dtype=torch.float32)


def size_of(module):
    return sum(4 * parameter.numel() for parameter in module.parameters())


def test_layers_go_to_gpus_in_their_order_and_none_is_cut(model):
    whole, layer = size_of(model), size_of(model.model.layers[0])
    embeddings = size_of(model.model.embed_tokens)
    assert layers_by_device(model, {0: 2 * whole}) == {"": 0}
    two = layers_by_device(model, {2: embeddings + 2 * layer + 1, 3: whole})
    assert two["model.embed_tokens"] == two["model.layers.0"] == 2
    assert two["model.layers.1"] == two["lm_head"] == 3
    rest = layers_by_device(model, {0: embeddings + 2 * layer + 1})  # one stays free for those that come
    assert rest["model.layers.0"] == 0
    assert rest["model.layers.1"] == rest["lm_head"] == "cpu"


def test_a_gpu_without_room_for_the_embeddings_is_refused(model):
    with pytest.raises(StepError, match="the model.s embeddings and one layer do not fit"):
        dispatch(model, {0: 1000})


class Told:
    """A release's small results, of which some name a device."""

    def __init__(self, named):
        self.subject = SimpleNamespace(json=lambda name: {"device": named[name]} if name in named else {})


def test_a_gpu_explains_what_the_plan_lets_one_compute_and_what_is_made_from_it(tmp_path):
    for seed, name in enumerate(("base", "other")):
        tiny.write_model(tmp_path / name, seed)
    models = {
        "base": {"folder": "base"},
        "other": {"folder": "other"},
        "cut": {"laser": "other", "rank": 4, "matrices": ["mlp.up_proj"]},
        "mix": {
            "moe": {
                "base": "base",
                "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "cut", "prompts": ["w2"]}],
            }
        },
    }
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models)
    tiny.lock(recipe)
    plan = plans.load(recipe)
    records = {part.id: f"{RECORDS}/{part.id}.json" for part in plan.parts.values()}
    cut = [name for part, name in records.items() if part.startswith("cut")]
    # a record of anything else may say what it likes
    assert Devices(plan, Told({name: "cuda" for name in records.values() if name not in cut})).by_file() == {}
    found = Devices(plan, Told(dict.fromkeys(cut, "cuda"))).by_file()
    assert set().union(*found.values()) == {"cuda"}
    shards = dict(zip(plan.released.parts, plan.released.shard_names, strict=True))
    from_cut = {name for part, name in shards.items() if part.label.startswith("expert2")}
    assert from_cut
    assert found.keys() & shards.values() == from_cut
    # the routers are from the base, which no GPU made
    assert {name.split("/")[-1].split(".")[0] for name in found if name.startswith(RECORDS)} == {"cut", "mix"}
    assert {CARD, LINEAGE, *BOMS.values()} <= found.keys()
    assert not found.keys() & {"config.json", "tokenizer.json", WEIGHTS_INDEX, RECIPE, LOCK}


def test_a_gpu_explains_a_measurement_where_it_stands(plan):
    (name,) = {f"{EVALUATIONS}/{item.id}.json" for item in plan.evaluations if item.name == "mix"}
    found = Devices(plan, Told({name: "xpu"})).by_file()
    assert found[name] == found[CARD] == {"xpu"}
    assert LINEAGE not in found
    assert not any(each.startswith(RECORDS) or each.endswith(".safetensors") for each in found)
