"""Plans: which keys a change changes, what is refused, and sums against naive ones."""

import copy
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from herdbook import lock as locks
from herdbook import needs
from herdbook import plan as plans
from herdbook import recipe as recipes
from herdbook.errors import RecipeError
from herdbook.lock import Lock, LockedFile, LockedSource, LockedTensor
from herdbook.needs import disk
from herdbook.plan import code as codes
from support import tiny

MODELS = {
    "base": {"folder": "base"},
    "other": {"folder": "other"},
    "tuned": {"adapter": "adapter", "on": "base"},
    "base-laser": {
        "laser": "base",
        "rank": {"fraction": 0.5},
        "matrices": ["mlp.down_proj"],
        "layers": "1-1",
    },
    "mix": {
        "moe": {
            "base": "base-laser",
            "experts": [{"model": "tuned", "prompts": ["w1"]}, {"model": "other", "prompts": ["w2"]}],
        }
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    tiny.write_model(folder / "base", seed=1, shards=2)
    tiny.write_model(folder / "other", seed=2)
    tiny.write_adapter(folder / "adapter", folder / "base", seed=3)
    return folder


def make(folder, models=None, name="r.yaml", **sections):
    path = tiny.write_recipe(folder / name, models or MODELS, **sections)
    tiny.lock(path)
    return plans.load(path)


def edited(edit):
    models = copy.deepcopy(MODELS)
    edit(models)
    return models


def labels(plan):
    return {f"{part.model}.{part.label}": part.key for part in plan.parts.values()}


def changed(before, after):
    old, new = labels(before), labels(after)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def experts(models):
    return models["mix"]["moe"]["experts"]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda m: experts(m).reverse(), {"mix.expert1-1", "mix.expert2-1", "mix.routers"}),
        (lambda m: experts(m)[0].update(prompts=["w3"]), {"mix.routers"}),
        (lambda m: experts(m)[0].update(negative_prompts=["w3"]), {"mix.routers"}),
        (lambda m: m["mix"]["moe"].update(gate="cheap_embed"), {"mix.routers"}),
        (lambda m: m["mix"]["moe"].update(experts_per_token=1), set()),
        (
            lambda m: experts(m)[0].update(model="base"),
            {"mix.expert1-1", "tuned.1"},
        ),  # nothing needs tuned then
        (
            lambda m: m["mix"]["moe"].update(base="base"),
            {"base-laser.1", "mix.base-1", "mix.routers"},
        ),
        (
            lambda m: m["base-laser"].update(rank={"fraction": 0.4}),
            {"base-laser.1", "mix.base-1", "mix.routers"},
        ),
        (lambda m: m["base-laser"].update(layers="0-1"), {"base-laser.1", "mix.base-1", "mix.routers"}),
        (lambda m: m["base-laser"].update(layers=[1]), set()),
    ],
)
def test_a_change_changes_the_keys_of_what_depends_on_it(folder, edit, expected):
    before, after = make(folder), make(folder, edited(edit))
    assert changed(before, after) == expected


def test_node_key_tells_what_its_parts_do_not(folder):
    before = make(folder)
    after = make(folder, edited(lambda m: m["mix"]["moe"].update(experts_per_token=1)))
    assert before.released.key != after.released.key
    assert before.nodes["tuned"].key == after.nodes["tuned"].key


def test_quotation_is_in_no_key(folder):
    before, after = make(folder), make(folder, release={"quote": {"text": "x"}})
    assert changed(before, after) == set()
    assert before.released.key == after.released.key


def test_keys_do_not_tell_where_a_recipe_lies(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert labels(make(folder)) == labels(make(moved))


def test_code_of_laser_is_in_what_it_computed_only(folder, monkeypatch):
    before = make(folder)
    real = codes.Code.describe

    def other(self):
        described = real(self)
        modules = {name: "other" if ".laser." in name else value for name, value in described.modules.items()}
        return replace(described, modules=modules)

    monkeypatch.setattr(codes.Code, "describe", other)
    after = make(folder)
    assert "base-laser.1" in changed(before, after)
    assert not changed(before, after) & {"tuned.1", "other.1", "base.1", "mix.expert1-1", "mix.expert2-1"}


def test_prompts_are_not_run_together(folder):
    one = make(folder, edited(lambda m: experts(m)[0].update(prompts=["w1", "w2"])))
    two = make(folder, edited(lambda m: experts(m)[0].update(prompts=["w1 w2"])))
    assert changed(one, two) == {"mix.routers"}


@pytest.mark.parametrize("size", ["10KB", "20KB", "1GB"])
def test_shards_are_no_larger_than_asked_and_whole(folder, size):
    plan = make(folder, shard_size=size)
    limit = plan.recipe.shard_bytes
    for node in plan.nodes.values():
        names = [tensor.name for part in node.parts for tensor in part.tensors]
        assert len(names) == len(set(names))
        for part in node.parts:
            if part.rule != "fetch":
                assert part.size_bytes <= limit or len(part.tensors) == 1
    assert plan.released.parameters == make(folder).released.parameters
    if size == "1GB":
        assert len(plan.nodes["tuned"].parts) == 1


def test_sums_are_those_of_the_tensors(folder):
    plan = make(folder)
    per_layer_mlp = 3 * 32 * 64
    base = sum(torch.Size(shape).numel() for shape in tiny.shapes(plan.nodes["base"].config).values())
    expected = base + 2 * per_layer_mlp + 2 * 2 * 32  # one more expert's MLPs, and two routers, in two layers
    assert plan.released.parameters == expected
    assert plan.released.size_bytes == 2 * expected
    on_disk = sum(path.stat().st_size for name in ("base", "other") for path in (folder / name).iterdir())
    index = (folder / "base/model.safetensors.index.json").stat().st_size
    assert needs.fetch_bytes(plan) == on_disk - index
    written = plan.nodes["tuned"].size_bytes + plan.nodes["base-laser"].size_bytes + plan.released.size_bytes
    vectors = 8 * sum(
        min(tensor.shape) ** 2
        for part in plan.nodes["base-laser"].parts
        for tensor in part.tensors
        if tensor.action == "laser"
    )
    copied = (
        plan.nodes["base"].size_bytes + plan.nodes["other"].size_bytes
    )  # a folder's shards are not linked
    assert needs.write_bytes(plan) == copied + written + vectors


def test_disk_that_is_too_small_is_told_before_anything_is_made(folder, monkeypatch):
    plan = make(folder)
    needs.check_disk(plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RecipeError, match=r"not enough disk space: [0-9.]+ kB are still to be written"):
        needs.check_disk(plan)


def test_copies_that_share_blocks_need_no_space(folder, monkeypatch):
    plan = make(folder)
    copied = sum(plan.nodes[name].size_bytes for name in ("base", "other"))
    tried = []

    def clone(source, target):
        assert target.read() == b""  # a file of its own
        tried.append(Path(source.name).parent.name)
        return True

    for free, refused in (
        (needs.missing_bytes(plan) - copied, False),
        (needs.missing_bytes(plan) - copied - 1, True),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(10, 9, free))
        with monkeypatch.context() as shared:
            shared.setattr(disk, "clone", clone)
            with pytest.raises(RecipeError, match="not enough") if refused else nullcontext():
                needs.check_disk(plan)
        assert set(tried) == {"base", "other"}
        with monkeypatch.context() as apart:
            apart.setattr(disk, "clone", lambda *_: False)
            with pytest.raises(RecipeError, match="not enough disk space"):
                needs.check_disk(plan)


def refused(folder, models):
    with pytest.raises(RecipeError) as caught:
        make(folder, models)
    return caught.value.problems


def test_all_misfits_of_a_mixture_are_named(folder):
    tiny.write_model(folder / "wide", seed=4, intermediate=96)
    tiny.write_model(folder / "deep", seed=4, layers=3)
    tiny.write_model(folder / "foreign", seed=4, vocab=64 + 1025)
    models = {name: {"folder": name} for name in ("base", "wide", "deep", "foreign")}
    chosen = [{"model": name, "prompts": [name]} for name in ("wide", "deep", "foreign", "base")]
    models["mix"] = {"moe": {"base": "base", "experts": chosen}}
    wide, deep, foreign = refused(folder, models)
    assert wide.startswith(
        "models.mix.moe.experts.0: 'wide': model.layers.0.mlp.down_proj.weight is of shape [32, 96]"
    )
    assert "in the base of shape [32, 64] (6 tensors differ)" in wide
    assert deep == "models.mix.moe.experts.1: 'deep' has 3 layers, the base 2"
    assert "models.mix.moe.experts.2: 'foreign' has a vocabulary of 1089, the base of 64" in foreign


def test_few_added_tokens_are_a_warning(folder):
    tiny.write_model(folder / "added", seed=4, vocab=66)
    models = edited(lambda m: m["other"].update(folder="added"))
    plan = make(folder, models)
    assert plan.warnings == (
        "models.mix.moe.experts.1: 'other' has 2 tokens more than the base; the merge keeps the base's",
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layers": "1-2"}, "models.base-laser.layers: layer 2 does not exist; the last is 1"),
        ({"layers": "1-0"}, "models.base-laser.layers: the range 1-0 is empty"),
    ],
)
def test_layers_that_do_not_exist(folder, changes, expected):
    (problem,) = refused(folder, edited(lambda m: m["base-laser"].update(changes)))
    assert problem == expected


def test_adapter_that_does_not_fit(folder):
    tiny.write_model(folder / "narrow", seed=4, hidden=16)
    problems = refused(folder, edited(lambda m: m["base"].update(folder="narrow")))
    assert any(
        "do not fit" in problem and "models.tuned.adapter: adapter: " in problem for problem in problems
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["norm"]}, "its modules_to_save include"),
    ],
)
def test_adapter_that_cannot_be_folded_exactly(folder, tmp_path, changes, expected):
    place = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((place / "adapter/adapter_config.json").read_text())
    (place / "adapter/adapter_config.json").write_text(json.dumps(config | changes))
    assert any(expected in problem for problem in refused(place, MODELS))


def test_what_nothing_needs_is_not_built(folder):
    plan = make(folder, MODELS | {"spare": {"folder": "other"}}, release={"model": "mix"})
    assert "spare" not in plan.nodes
    assert plan.warnings == ("models: spare: not needed, so not built",)


@pytest.mark.parametrize(
    ("kind", "window", "warned"),
    [("mistral", 64, True), ("mistral", 128, False), ("mistral", None, False), ("llama", None, False)],
)
def test_a_sliding_window_that_a_gguf_lacks_is_a_warning(tmp_path, kind, window, warned):
    tiny.write_model(tmp_path / "base", model_type=kind, sliding_window=window)  # of 128 positions
    plan = make(tmp_path, {"base": {"folder": "base"}}, quantize={"methods": ["Q8_0"]})
    expected = (
        "quantize: llama.cpp ignores the sliding window of 64 tokens, so it computes longer texts differently"
    )
    assert plan.warnings == ((expected,) if warned else ())


def test_a_release_without_a_tokenizer_is_a_warning(tmp_path):
    tiny.write_model(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).unlink()
    (warning,) = make(tmp_path, {"base": {"folder": "base"}}).warnings
    assert warning.startswith("release: 'base' has no tokenizer (tokenizer.json, tokenizer.model")
    assert warning.endswith("cannot be used with text; add one to the source")


@pytest.mark.parametrize(("window", "told"), [(64, True), (128, False), (None, False)])
def test_a_window_left_in_the_configuration_of_a_type_without_one_is_a_warning(tmp_path, window, told):
    """By the configuration's window, not the model's, transformers cuts its cache: a text is continued otherwise with it."""
    from transformers import AutoModelForCausalLM

    tiny.write_model(tmp_path / "base", sliding_window=window and window // 8, max_position_embeddings=16)
    plan = make(tmp_path, {"base": {"folder": "base"}})
    assert [warning.partition(",")[0] for warning in plan.warnings] == (
        ["release: config.json of 'base' has sliding_window 8"] if told else []
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        whole = model(ids).logits[0, -1]
        cache = model(ids[:, :-1], use_cache=True).past_key_values
        step = model(ids[:, -1:], past_key_values=cache).logits[0, -1]
    assert torch.allclose(whole, step, atol=1e-2) != told


def mistral_7b():
    """Return the lock of a Mistral 7B in two files, with the real shapes."""
    config = {
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    }
    tensors = tuple(
        LockedTensor(
            name=name, dtype="BF16", shape=shape, file=f"model-{1 + index % 2:05d}-of-00002.safetensors"
        )
        for index, (name, shape) in enumerate(tiny.shapes(config).items())
    )
    return config, tensors


def test_plan_of_4x7b():
    config, tensors = mistral_7b()
    files = tuple(
        LockedFile(name=f"model-{n:05d}-of-00002.safetensors", size_bytes=7 * 10**9, sha256=f"{n}" * 64)
        for n in (1, 2)
    )
    names = ("westlake", "samantha", "triunvirato")
    sources = {
        name: LockedSource(
            asked={"hub": f"someone/{name}"},
            uri=f"pkg:huggingface/someone/{name}@{place:040d}",
            revision=f"{place:040d}",
            weights="safetensors",
            files=tuple(file.model_copy(update={"sha256": f"{place}{file.sha256[1:]}"}) for file in files),
            members=(),
            tensors=tensors,
            config=config,
        )
        for place, name in enumerate(names)
    }
    models = {name: {"hub": f"someone/{name}"} for name in names}
    models |= {f"{name}-laser": {"laser": name, "rank": "mp-edge", "matrices": "all"} for name in names}
    order = ("westlake", "samantha", "westlake", "triunvirato")
    chosen = [{"model": f"{name}-laser", "prompts": [f"{place}"]} for place, name in enumerate(order)]
    models["buttercup"] = {"moe": {"base": "westlake-laser", "experts": chosen}}
    text = yaml.safe_dump(
        {"models": models, "release": {"model": "buttercup", "name": "B", "license": "apache-2.0"}}
    )
    plan = plans.make(recipes.parse(text), Lock(sources=sources), Path("b.yaml"))
    assert plan.released.parameters == 24_153_690_112  # what Mixtral 4x7B of these widths has
    # the base's files, and of each other expert the three matrices of 32 layers in bfloat16
    assert needs.fetch_bytes(plan) == 14 * 10**9 + 2 * 32 * 3 * 4096 * 14336 * 2
    assert all(part.size_bytes <= 2 * 10**9 for part in plan.released.parts)
    assert len(plan.released.tensors) == 3 + 32 * (6 + 4 * 3 + 1)
    # LASER holds matrices, not models: well below the 14.5 GB of one of them
    assert max(needs.memory_bytes(plan, part) for part in plan.nodes["westlake-laser"].parts) < 5 * 10**9
    assert locks.render(plan.lock).count("\n") > 3 * len(tensors)


def test_experts_of_one_model_are_parts_of_their_own(folder):
    plan = make(folder, edited(lambda m: experts(m).append({"model": "other", "prompts": ["w3"]})))
    keys = [part.key for part in plan.released.parts]
    assert len(set(keys)) == len(keys) == 5
