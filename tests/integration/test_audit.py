"""Strangers' merges on a local Hub: mixtures written by a loop in mergekit's layouts, in what they can be wrong."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import gguf
import libgguf
import numpy as np
import pytest
import torch
import yaml
from gguf.constants import GGMLQuantizationType as Kind
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save_file

from herdbook.audit.audit import Audit
from herdbook.audit.gguf import FACTOR
from herdbook.cli.main import main
from herdbook.errors import SourceError, StepError, WrongAnswerError
from herdbook.hub import failure
from herdbook.release.finding import Options, Outcome
from herdbook.release.subject import HubSubject
from herdbook.tools.external import Tool
from herdbook.verify.equality import BLOCK_BYTES
from support import tiny
from support.verification import status

MERGEKIT_MOE = Tool("mergekit", "0.1.5", "mergekit-moe", "mergekit.scripts.moe")
DOCS = Path(__file__).parents[2] / "docs/audit.md"
MODELS = ("base", "tuned", "other")
LAYERS = 2
OLD = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


# --- mixtures as mergekit lays them out, written by a loop


def mixture(sources, experts, layout="mixtral", seed=7):
    """Return the tensors of a mixture of ``experts`` on the base; routers are rows of length 1."""
    tensors = {name: one for name, one in sources["base"].items() if ".mlp." not in name}
    generator = torch.Generator().manual_seed(seed)
    for layer in range(LAYERS):
        block = f"model.layers.{layer}." + ("block_sparse_moe" if layout == "mixtral" else "mlp")
        hidden = sources["base"]["model.norm.weight"].shape[0]
        rows = torch.randn(len(experts), hidden, generator=generator)
        tensors[f"{block}.gate.weight"] = (rows / rows.norm(dim=1, keepdim=True)).to(torch.bfloat16)

        def of(expert, matrix, layer=layer):
            return sources[expert][f"model.layers.{layer}.mlp.{matrix}.weight"]

        if layout == "fused":
            both = [torch.cat([of(one, "gate_proj"), of(one, "up_proj")]) for one in experts]
            tensors[f"{block}.experts.gate_up_proj"] = torch.stack(both)
            tensors[f"{block}.experts.down_proj"] = torch.stack([of(one, "down_proj") for one in experts])
            continue
        for place, one in enumerate(experts):
            for matrix, old in OLD.items():
                called = old if layout == "mixtral" else matrix
                tensors[f"{block}.experts.{place}.{called}.weight"] = of(one, matrix).clone()
    return tensors


def config_of(experts=("tuned", "other"), base="herd/base", **changes):
    return {
        "base_model": base,
        "gate_mode": "hidden",
        "dtype": "bfloat16",
        "experts": [
            {"source_model": f"herd/{one}", "positive_prompts": [f"w{place}"]}
            for place, one in enumerate(experts)
        ],
        **changes,
    }


def card(config):
    return f"---\nlicense: apache-2.0\n---\n# A mixture\n\n```yaml\n{yaml.safe_dump(config)}```\n".encode()


def model_config(folder, **changes):
    return json.loads((folder / "config.json").read_text()) | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        **changes,
    }


class Stage:
    def __init__(self, hub, root):
        self.hub, self.root, self.count = hub, root, 0
        self.herd = root / "herd"
        self.sources = {}
        for seed, name in enumerate(MODELS):
            folder = tiny.write_model(self.herd / name, seed=seed, shards=2 if name == "tuned" else 1)
            self.add(f"herd/{name}", folder)
            self.sources[name] = {
                key: one for path in folder.glob("*.safetensors") for key, one in load_file(path).items()
            }

    def add(self, name, folder):
        return self.hub.add_repo(name, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})

    def write(self, tensors, config=None, model=None, *, files=None, base="base"):
        """Write a merge into a folder, and its configuration beside the sources' folder; return the folder."""
        self.count += 1
        folder, config = self.root / f"merge{self.count}", config_of() if config is None else config
        folder.mkdir()
        held = {key: one.contiguous() for key, one in tensors.items()}
        save_file(held, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(model or model_config(self.herd / base)))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((self.herd / base / file).read_bytes())
        (folder / "README.md").write_bytes(card(config))
        for file, content in (files or {}).items():
            (folder / file).write_bytes(content)
        folder.with_suffix(".yml").write_text(yaml.safe_dump(config))
        return folder

    def merge(self, *arguments, name=None, **options):
        """Put a merge on the Hub; return its name."""
        folder = self.write(*arguments, **options)
        name = name or f"herd/{folder.name}"
        self.add(name, folder)
        return name


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        yield Stage(hub, root)


def verify(name, config=None, ggufs=(), **options):
    options = {"sample_bytes": None, **options}
    if isinstance(name, Path) and config is None:
        config = name.with_suffix(".yml")
    return Audit(str(name), config, ggufs, Options(**options)).run(lambda _: None).findings


def of(findings, check, outcome=None):
    return [one for one in findings if one.check == check and outcome in {None, one.outcome}]


def failed(findings):
    return [(one.check, one.subject) for one in findings if one.outcome is Outcome.FAILED]


def unproven(findings):
    return {one.subject for one in of(findings, "unproven")}


# --- mixtures that are what they say


@pytest.mark.parametrize("layout", ["mixtral", "fused"])
@pytest.mark.parametrize("sample", [None, 40_000])
def test_a_true_mixture_is_proven_but_for_its_routers(stage, layout, sample):
    name = stage.merge(mixture(stage.sources, ("tuned", "other"), layout))
    found = verify(name, sample_bytes=sample, seed=1)
    assert not failed(found)
    assert {one.subject: one.outcome for one in of(found, "equal")} == dict.fromkeys(
        ("expert 1", "expert 2", "base"), Outcome.PASSED
    )
    assert unproven(found) == {"routers"}
    assert status(found) == 9
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == [
        f"herd/{one}" for one in ("base", "tuned", "other")
    ]
    assert all("names no commit" in one.detail for one in of(found, "source"))
    compared = of(found, "sample")[0]
    # all but two routers of 2 x 32 numbers of two bytes
    every = (
        sum(one.numel() * 2 for one in mixture(stage.sources, ("tuned", "other")).values()) - 2 * 2 * 32 * 2
    )
    assert f"of {every:,} bytes" in compared.detail
    if sample is None:
        assert f"{every:,} of {every:,}" in compared.detail


FAMILIES = {
    "qwen2": ("qwen2", "qwen2_moe", "shared_expert", {}),
    "qwen2 of a llama": ("llama", "qwen2_moe", "shared_expert", {}),
    "qwen3": ("qwen3", "qwen3_moe", None, {"head_dim": 8}),
    "deepseek": ("llama", "deepseek", "shared_experts", {"attention_bias": True}),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("altered", [False, True])
def test_other_families(stage, family, altered):
    kind, made, shared, changes = FAMILIES[family]
    names = [f"{family.replace(' ', '-')}-{one}-{altered}" for one in MODELS]
    for seed, one in enumerate(names):
        tiny.write_model(stage.herd / one, seed=seed, model_type=kind, **changes)
    sources = {
        key: load_file(stage.herd / one / "model.safetensors") for key, one in zip(MODELS, names, strict=True)
    }
    tensors = mixture(sources, ("tuned", "other"), "per expert")
    config = config_of(names[1:], f"herd/{names[0]}")
    for layer in range(LAYERS if shared else 0):
        config["shared_experts"] = [{"source_model": f"herd/{names[1]}", "positive_prompts": ["w9"]}]
        block = f"model.layers.{layer}.mlp"
        for matrix in OLD:
            tensors[f"{block}.{shared}.{matrix}.weight"] = sources["tuned"][
                f"{block}.{matrix}.weight"
            ].clone()
        if made == "qwen2_moe":
            tensors[f"{block}.shared_expert_gate.weight"] = torch.ones(1, 32, dtype=torch.bfloat16) / 32**0.5
            for projection, rows in (("q_proj", 32), ("k_proj", 16), ("v_proj", 16)):
                bias = f"model.layers.{layer}.self_attn.{projection}.bias"
                tensors.setdefault(bias, torch.zeros(rows, dtype=torch.bfloat16))
    if altered:
        victim = (
            f"model.layers.1.mlp.{shared}.up_proj.weight"
            if shared
            else "model.layers.1.self_attn.q_norm.weight"
        )
        tensors[victim] = tensors[victim] * 2
    count = {"deepseek": "n_routed_experts"}.get(made, "num_experts")
    model = model_config(stage.herd / names[0], model_type=made, num_local_experts=2, **{count: 2})
    found = verify(stage.write(tensors, config, model, base=names[0]))
    part = "shared expert" if shared else "base"
    assert failed(found) == ([("equal", part)] if altered else [])
    assert len(of(found, "equal", Outcome.PASSED)) == (4 if shared else 3) - altered
    assert unproven(found) == {"routers"}


# --- mixtures that are not


def test_experts_in_another_order_are_told_from_altered_ones(stage):
    found = verify(stage.merge(mixture(stage.sources, ("other", "tuned"))))
    assert failed(found) == [("equal", "expert 1"), ("equal", "expert 2")]
    first, second = of(found, "equal", Outcome.FAILED)
    assert "equal to herd/other, which the configuration names for expert 2 (swapped)" in first.detail
    assert "equal to herd/tuned, which the configuration names for expert 1 (swapped)" in second.detail


def test_an_expert_that_is_the_base(stage):
    found = verify(stage.write(mixture(stage.sources, ("tuned", "base"))))
    assert failed(found) == [("equal", "expert 2")]
    assert "equal to herd/base" in of(found, "equal", Outcome.FAILED)[0].detail


@pytest.mark.parametrize("layout", ["mixtral", "fused"])
def test_one_altered_bit_is_found_and_placed(stage, layout):
    tensors = mixture(stage.sources, ("tuned", "other"), layout)
    name = f"model.layers.1.{'mlp.experts.down_proj' if layout == 'fused' else 'block_sparse_moe.experts.1.w2.weight'}"
    bits = tensors[name].clone().view(torch.int16)
    bits.reshape(-1)[-1] ^= 1  # of the last expert's down_proj, in both layouts
    tensors[name] = bits.view(torch.bfloat16)
    found = verify(stage.merge(tensors))
    assert failed(found) == [("equal", "expert 2")]
    told = of(found, "equal", Outcome.FAILED)[0]
    assert "1 of 6 blocks differ, in mlp.down_proj of layer 1" in told.detail
    assert told.tensor == name


def test_a_lasered_expert_is_no_copy_of_its_source(stage):
    """All matrices of one expert are cut to half their ranks, as cards say that it was done before merging."""
    sources = stage.sources | {"cut": dict(stage.sources["tuned"])}
    for name, one in sources["cut"].items():
        if ".mlp." in name:
            sources["cut"][name] = cut_ranks(one, 0.5)
    found = verify(stage.write(mixture(sources, ("cut", "other"))))
    assert failed(found) == [("equal", "expert 1")]
    detail = of(found, "equal", Outcome.FAILED)[0].detail
    assert "nor another named model: 6 of 6 blocks differ" in detail
    assert "lasered or trained" in detail


def test_a_source_that_moved_and_one_that_is_pinned(stage):
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    old = stage.add("herd/moved", stage.herd / "tuned")
    stage.hub.commit(
        "herd/moved",
        {path.name: path.read_bytes() for path in sorted((stage.herd / "base").iterdir())}
        | {"model.safetensors.index.json": None},
    )
    for reference, wrong in ((f"herd/moved@{old}", []), ("herd/moved", [("equal", "expert 1")])):
        config = config_of()
        config["experts"][0]["source_model"] = reference
        found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), config))
        assert failed(found) == wrong
    assert old in of(verify(name, config_file(stage, f"herd/moved@{old}")), "source")[1].detail


def config_file(stage, first):
    config = config_of()
    config["experts"][0]["source_model"] = first
    path = stage.root / "named.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_missing_and_surplus_tensors(stage):
    tensors = mixture(stage.sources, ("tuned", "other"))
    del tensors["model.layers.0.block_sparse_moe.experts.0.w1.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(32)
    found = of(verify(stage.write(tensors)), "layout", Outcome.FAILED)
    assert [one.tensor for one in found] == [
        "model.layers.0.block_sparse_moe.experts.0.w1.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ]


def test_numbers_of_the_configuration_that_are_others(stage):
    model = model_config(stage.herd / "base", rope_theta=1e6, num_experts_per_tok=1)
    found = verify(stage.write(mixture(stage.sources, ("tuned", "other")), model=model))
    assert failed(found) == [("config", "config.json")] * 2
    assert {(one.expected, one.found) for one in of(found, "config")} == {("5000.0", "1000000.0"), ("2", "1")}


# --- dtypes


@pytest.mark.parametrize(
    ("said", "made", "explained"),
    [
        ("float16", torch.float16, True),
        ("float32", torch.float32, True),
        (None, torch.float16, False),
        ("bfloat16", torch.float16, False),
    ],
)
def test_casts_are_made_again_if_the_configuration_says_so(stage, said, made, explained):
    tensors = {name: one.to(made) for name, one in mixture(stage.sources, ("tuned", "other")).items()}
    found = verify(stage.write(tensors, config_of(dtype=said)))
    assert failed(found) == ([] if explained else [("dtype", of(found, "dtype")[0].subject)])
    assert len(of(found, "equal", Outcome.PASSED)) == 3
    assert "rounding" in of(found, "dtype")[0].detail or not explained


def test_wide_sources_are_rounded_to_nearest(stage):
    wide = tiny.write_model(stage.herd / "wide", seed=1, dtype=torch.float32)
    stage.add("herd/wide", wide)
    sources = stage.sources | {"wide": load_file(wide / "model.safetensors")}
    tensors = {name: one.to(torch.bfloat16) for name, one in mixture(sources, ("wide", "other")).items()}
    found = verify(stage.write(tensors, config_of(("wide", "other"))))
    assert not failed(found)
    name = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    cut = (sources["wide"]["model.layers.0.mlp.gate_proj.weight"].view(torch.int32) >> 16).to(torch.int16)
    found = verify(stage.write(tensors | {name: cut.view(torch.bfloat16)}, config_of(("wide", "other"))))
    assert failed(found) == [("equal", "expert 1")]  # cut off instead of rounded


def test_residual_scale_is_made_again_and_noise_is_not(stage):
    config = config_of()
    config["experts"][0]["residual_scale"] = 0.5
    config["experts"][1]["noise_scale"] = 0.1
    tensors = mixture(stage.sources, ("tuned", "other"))
    for layer in range(LAYERS):
        tensors[f"model.layers.{layer}.block_sparse_moe.experts.0.w2.weight"] *= 0.5
        tensors[f"model.layers.{layer}.block_sparse_moe.experts.1.w1.weight"] += 0.1
    found = verify(stage.write(tensors, config))
    assert not failed(found)
    assert [one.subject for one in of(found, "equal")] == ["expert 1", "base"]
    assert unproven(found) == {"routers", "noise"}


# --- routers


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("equal", "all rows are equal"),
        ("zero", "all rows are zero"),
        ("long", "`gate_mode: hidden` makes 0.98 to 1.02"),
    ],
)
def test_routers_that_cannot_be_what_is_said(stage, how, word):
    tensors = mixture(stage.sources, ("tuned", "other"))
    for name in [one for one in tensors if one.endswith(".gate.weight")]:
        rows = tensors[name]
        tensors[name] = {"equal": rows[:1].repeat(2, 1), "zero": rows * 0, "long": rows * 2}[how]
    found = verify(stage.write(tensors))
    assert {one.check for one in found if one.outcome is Outcome.FAILED} == {
        "gate" if how == "long" else "routers"
    }
    assert any(word in one.detail for one in found if one.outcome is Outcome.FAILED)


@pytest.mark.parametrize(
    ("gate", "draw"),
    [
        ("random", torch.randn),
        ("uniform_random", lambda shape: (torch.rand(shape) * 2 - 1) / 32**0.5),
    ],
)
def test_drawn_routers(stage, gate, draw):
    torch.manual_seed(3)
    for seeming, outcome in ((gate, Outcome.PASSED), ("hidden", Outcome.FAILED)):
        tensors = mixture(stage.sources, ("tuned", "other"))
        routers = [one for one in tensors if one.endswith(".gate.weight")]
        tensors |= {name: draw((2, 32)).to(torch.bfloat16) for name in routers}
        found = verify(stage.write(tensors, config_of(gate_mode=seeming)))
        assert [one.outcome for one in of(found, "gate")] == [outcome]
        assert ("draws them at random" in of(found, "unproven")[0].detail) == (seeming == gate)


def test_the_same_router_in_every_layer(stage):
    tensors = mixture(stage.sources, ("tuned", "other"))
    first = tensors["model.layers.0.block_sparse_moe.gate.weight"]
    same = tensors | {"model.layers.1.block_sparse_moe.gate.weight": first.clone()}
    for gate, held, wrong in (
        ("cheap_embed", same, False),
        ("cheap_embed", tensors, True),
        ("hidden", same, True),
        ("hidden", tensors, False),
    ):
        found = verify(stage.write(held, config_of(gate_mode=gate)))
        assert bool(of(found, "routers", Outcome.FAILED)) is wrong, gate


# --- sources that cannot be read


def test_a_gone_and_a_gated_source_leave_the_others_provable(stage, monkeypatch):
    stage.hub.add_repo(
        "herd/secret",
        {path.name: path.read_bytes() for path in sorted((stage.herd / "tuned").iterdir())},
        gated="manual",
    )
    name = stage.merge(
        mixture(stage.sources, ("tuned", "other")),
        config_of(("secret", "other")) | {"base_model": "herd/withdrawn"},
    )
    monkeypatch.setenv("HF_TOKEN", stage.hub.stranger)
    found = verify(name)
    assert not failed(found)
    assert [one.subject for one in of(found, "source", Outcome.UNVERIFIED)] == [
        "herd/withdrawn",
        "herd/secret",
    ]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 2"]
    assert unproven(found) == {"routers", "herd/withdrawn", "herd/secret"}
    assert status(found) == 9
    assert stage.hub.stranger not in repr(found)


def test_a_source_that_answers_wrongly_is_not_one_that_cannot_be_read(stage, monkeypatch):
    monkeypatch.setattr(failure, "WAITS_S", (0.01,))
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    weights = stage.hub.repos["herd/tuned"].find("main").files
    digests = "|".join(blob.sha256 for blob in weights.values() if blob.lfs)
    for kind, outcome in (("short", Outcome.FAILED), ("drop", Outcome.UNVERIFIED)):
        stage.hub.fault("GET", f"/lfs/({digests})", kind, 1000)
        found = verify(name)
        stage.hub.faults.clear()
        assert [one.subject for one in of(found, "source", outcome)] == ["herd/tuned"]


@pytest.mark.parametrize(
    ("error", "outcome"), [(WrongAnswerError, Outcome.FAILED), (SourceError, Outcome.UNVERIFIED)]
)
def test_blocks_that_could_not_be_compared(stage, monkeypatch, error, outcome):
    name = stage.merge(mixture(stage.sources, ("tuned", "other")))
    read = HubSubject.read_range

    def fail(subject, file, start, stop):
        if start and subject.repo == "herd/tuned":
            raise error("so it is")
        return read(subject, file, start, stop)

    monkeypatch.setattr(HubSubject, "read_range", fail)
    [one] = [one for one in of(verify(name), "equal") if "so it is" in one.detail]
    assert one.outcome is outcome


# --- what strangers write


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB + "base_model: *z\nexperts: *l\n", "undefined alias"),
        (BOMB + "base_model: *l\nexperts: *l\n", "expands to more than"),
        ("experts: " + "[" * 1500 + "]" * 1500, "nested too deeply"),
        ("experts: &x [*x]\nbase_model: a/b", "expands to more than"),
        ("experts: [1, 2]\nbase_model: herd/base", "is not a mergekit configuration"),
        ("experts: {}\nbase_model: herd/base", "a list"),
        ("experts: [{source_model: 3}]\nbase_model: herd/base", "does not name a model"),
        (
            "experts: [{source_model: 'a/b\\x1b[2J'}]\nbase_model: !!python/object/apply:os.system ['id']",
            "YAML|constructor",
        ),
        ("experts: [{}]\nbase_model: herd/base", "source_model"),
        ("experts: [{source_model: a/b}]\nbase_model: herd/base\ndtype: int4", "dtype"),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a/b, layer_range: [0, 9999999]}]}]",
            "is not a range of layers",
        ),
        ("merge_method: [x]\nmodels: [{model: a/b}]", "is not a text"),
        ("merge_method: a b\nmodels: [{model: a/b}]", "plain word"),
        ("x: 2024-99-99\nexperts: []", "not YAML"),
        ("nothing: here", "contains no configuration"),
        ("`" * 150_000 + "\n" + "x\n" * 150_000, "contains no configuration"),
        ("\0", "YAML|special characters"),
        ("x" * 1_000_001, "more than the 1000000 bytes"),
    ],
)
def test_a_configuration_that_is_none_ends_with_one_message(stage, text, word):
    name = stage.merge({"model.norm.weight": torch.ones(4)}, files={"mergekit_moe_config.yml": text.encode()})
    found = verify(name)
    said = [one for one in found if one.outcome is not Outcome.PASSED and one.check != "unproven"]
    assert len(said) == 1
    assert re.search(word, said[0].detail), said[0].detail
    assert len(said[0].detail) < 600
    assert status(found) == 9


@pytest.mark.parametrize("path", ["../tuned", "/etc", "./tuned", "herd/..", "herd/tuned/../../x", "tuned"])
def test_a_remote_card_leads_to_no_folder(stage, path, monkeypatch):
    monkeypatch.chdir(stage.herd)  # where a folder of such a name is
    config = config_of() | {"base_model": path}
    found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), config))
    assert [one.subject for one in of(found, "source", Outcome.UNVERIFIED)] == [path]
    assert not failed(found)


def test_folders_are_read_inside_of_what_was_named_alone(stage, tmp_path):
    """A merge in a folder, with its sources in it, beside it, and behind a link."""
    merge = tmp_path / "work/merge"
    merge.mkdir(parents=True)
    save_file(mixture(stage.sources, ("tuned", "other")), merge / "model.safetensors", {"format": "pt"})
    (merge / "config.json").write_text(json.dumps(model_config(stage.herd / "base")))
    (merge / "inside").mkdir()
    for name in ("config.json", "model.safetensors"):
        (merge / "inside" / name).write_bytes((stage.herd / "base" / name).read_bytes())
    (merge / "link").symlink_to(stage.herd / "tuned")
    config = config_of() | {"base_model": "inside"}
    for place, reference in enumerate(("link", str(stage.herd / "other"))):
        config["experts"][place]["source_model"] = reference
    (merge / "mergekit_moe_config.yml").write_text(yaml.safe_dump(config))
    found = verify(str(merge))
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == ["inside"]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["base"]
    assert not failed(found)
    named = tmp_path / "work" / "named.yml"
    (tmp_path / "work/tuned").symlink_to(stage.herd / "tuned")
    (tmp_path / "work/base").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "work/base" / name).write_bytes((stage.herd / "base" / name).read_bytes())
    config = config_of() | {"base_model": "./base"}
    config["experts"][0]["source_model"] = "tuned"
    named.write_text(yaml.safe_dump(config))
    found = verify(merge, named)
    assert [one.subject for one in of(found, "source", Outcome.PASSED)] == ["./base", "herd/other"]
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 2", "base"]


@pytest.mark.parametrize("shape", [(10**9, 0, 5), (2, 0, 32), (3, 7, 4)])
def test_fused_tensors_of_impossible_shapes(stage, shape):
    size = int(np.prod([float(one) for one in shape])) * 2
    head = json.dumps(
        {
            "model.layers.0.mlp.experts.gate_up_proj": {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [0, size],
            }
        }
    ).encode()
    content = len(head).to_bytes(8, "little") + head + bytes(size)
    found = verify(stage.write({}, files={"model.safetensors": content}))
    assert failed(found) == [("merge", found[0].subject)]
    assert "is not a shape of fused experts" in found[0].detail


# --- dense merges


def test_a_passthrough_merge_is_compared_layer_by_layer(stage):
    config = {
        "merge_method": "passthrough",
        "dtype": "bfloat16",
        "slices": [
            {"sources": [{"model": "herd/base", "layer_range": [0, 2]}]},
            {"sources": [{"model": "herd/tuned", "layer_range": [1, 2]}]},
        ],
    }
    base, tuned = stage.sources["base"], stage.sources["tuned"]
    tensors = {name: one for name, one in base.items() if "layers" in name or "embed" in name}
    tensors |= {name: tuned[name] for name in ("model.norm.weight", "lm_head.weight")}
    tensors |= {
        name.replace("layers.1", "layers.2"): one.clone() for name, one in tuned.items() if "layers.1" in name
    }
    model = json.loads((stage.herd / "base/config.json").read_text()) | {"num_hidden_layers": 3}
    found = verify(stage.merge(tensors, config, model))
    assert status(found) == 0
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["ends", "layers 0-1", "layers 2-2"]
    wrong = tensors | {"model.layers.2.mlp.up_proj.weight": base["model.layers.1.mlp.up_proj.weight"].clone()}
    found = verify(stage.merge(wrong, config, model))
    assert failed(found) == [("equal", "layers 2-2")]
    assert "equal to herd/base" in of(found, "equal", Outcome.FAILED)[0].detail


def test_of_other_dense_merges_nothing_is_proven_and_that_is_said(stage):
    config = {
        "merge_method": "slerp",
        "base_model": "herd/base",
        "parameters": {"t": 0.5},
        "slices": [
            {"sources": [{"model": f"herd/{one}", "layer_range": [0, 2]} for one in ("base", "tuned")]}
        ],
    }
    found = verify(
        stage.merge(stage.sources["base"], config, json.loads((stage.herd / "base/config.json").read_text()))
    )
    assert not failed(found)
    assert not of(found, "equal")
    assert unproven(found) == {"weights"}
    assert "slerp" in of(found, "unproven")[0].detail


# --- GGUF


HEADS, KV = 4, 2


def gguf_names(experts):
    yield "token_embd.weight", ["model.embed_tokens.weight"]
    yield "output_norm.weight", ["model.norm.weight"]
    yield "output.weight", ["lm_head.weight"]
    for layer in range(LAYERS):
        theirs = f"model.layers.{layer}"
        yield f"blk.{layer}.attn_norm.weight", [f"{theirs}.input_layernorm.weight"]
        yield f"blk.{layer}.ffn_norm.weight", [f"{theirs}.post_attention_layernorm.weight"]
        for ours, name in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
            yield f"blk.{layer}.attn_{ours}.weight", [f"{theirs}.self_attn.{name}_proj.weight"]
        yield f"blk.{layer}.ffn_gate_inp.weight", [f"{theirs}.block_sparse_moe.gate.weight"]
        for ours, name in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            yield (
                f"blk.{layer}.ffn_{ours}_exps.weight",
                [f"{theirs}.block_sparse_moe.experts.{one}.{name}.weight" for one in range(experts)],
            )


def side_by_side(rows, heads):
    """Put the rows of each head's two halves next to each other, one by one."""
    out, half = np.empty_like(rows), len(rows) // heads // 2
    for head in range(heads):
        for place in range(half):
            out[head * 2 * half + 2 * place] = rows[head * 2 * half + place]
            out[head * 2 * half + 2 * place + 1] = rows[head * 2 * half + half + place]
    return out


def write_gguf(path, tensors, kind, config, *, imatrix=False, theta=5000.0):
    """Write a GGUF with the gguf library, encoded by it or, where it cannot, by ggml's own quantizers."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_expert_count(2)
    writer.add_expert_used_count(2)
    writer.add_vocab_size(config["vocab_size"])
    for name, sources in gguf_names(2):
        arrays = [tensors[one].float().numpy() for one in sources]
        values = np.stack(arrays) if "exps" in name else arrays[0]
        if "attn_q" in name or "attn_k" in name:
            values = side_by_side(values, HEADS if "attn_q" in name else KV)
        if values.ndim == 1 or "gate_inp" in name:
            writer.add_tensor(name, values)
        elif kind in {Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0}:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            weights = np.linspace(0.5, 2, values.shape[-1], dtype=np.float32) if imatrix else None
            rows = libgguf.quantize_rows(values.reshape(-1, values.shape[-1]), int(kind), weights)
            rows = np.asarray(rows).view(np.uint8).reshape(*values.shape[:-1], -1)
            writer.add_tensor(name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def wide(stage):
    """A mixture with rows of 256 numbers, which K-types need: its tensors, and its config.json."""
    names = [f"wide-{one}" for one in MODELS]
    for seed, name in enumerate(names):
        folder = tiny.write_model(stage.herd / name, seed=seed, hidden=256, intermediate=512)
        stage.add(f"herd/{name}", folder)
    sources = {
        key: load_file(stage.herd / one / "model.safetensors") for key, one in zip(MODELS, names, strict=True)
    }
    config = config_of(names[1:], "herd/wide-base")
    return mixture(sources, ("tuned", "other")), mixture(sources, ("tuned", "other"), "fused"), config


@pytest.mark.parametrize(
    ("kind", "sample"),
    [(Kind.F16, None), (Kind.BF16, None), (Kind.Q8_0, None), (Kind.Q4_K, None), (Kind.Q6_K, 300_000)],
)
def test_gguf_files_are_what_the_weights_give(stage, wide, tmp_path, kind, sample):
    tensors, fused, config = wide
    model = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, kind, model)
    held = fused if kind in {Kind.Q4_K, Kind.BF16} else tensors
    name = stage.write(held, config, model, files={"x.gguf": path.read_bytes()}, base="wide-base")
    found = verify(name, sample_bytes=sample, seed=2)
    assert not failed(found)
    assert unproven(found) == {"routers"}
    (told,) = of(found, "gguf")
    if sample is None:
        assert told.detail.startswith(
            f"{len(list(gguf_names(2)))} tensors equal those made from the full-width weights, byte"
        )


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[-5] ^= 1
    elif how == "cut":
        del content[-200:]
    elif how == "magic":
        content[0] ^= 1
    elif how == "endless":
        content[8:24] = (2**60).to_bytes(8, "little") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("bit", "made from other weights"),
        ("cut", "cut off"),
        ("magic", "no GGUF|does not start"),
        ("endless", "header|cut off"),
    ],
)
def test_damaged_gguf_files(stage, wide, tmp_path, how, word):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.F16, model)
    name = stage.merge(tensors, config, model, files={"x.gguf": damaged(path, how)}, base="wide-base")
    (told,) = of(verify(name), "gguf", Outcome.FAILED)
    assert re.search(word, told.detail), told.detail


def test_an_importance_matrix_is_near_and_other_weights_are_not(stage, wide, tmp_path):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    files = {"near.gguf": write_gguf(tmp_path / "near.gguf", tensors, Kind.Q4_K, model, imatrix=True)}
    victim = "model.layers.0.block_sparse_moe.experts.1.w3.weight"
    swapped = tensors | {victim: tensors[victim.replace("experts.1", "experts.0")]}
    files["other.gguf"] = write_gguf(tmp_path / "other.gguf", swapped, Kind.Q4_K, model, imatrix=True)
    name = stage.write(
        tensors,
        config,
        model,
        files={one: path.read_bytes() for one, path in files.items()},
        base="wide-base",
    )
    found = verify(name)
    assert [(one.file, one.tensor) for one in of(found, "gguf", Outcome.FAILED)] == [
        ("other.gguf", "blk.0.ffn_up_exps.weight")
    ]
    assert "times as far" in of(found, "gguf", Outcome.FAILED)[0].detail
    assert "quantized weights" in unproven(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "2"},
        {"num_local_experts": 10**9},
        {"num_attention_heads": [4]},
        {"rope_parameters": "none"},
        {"architectures": {"x": 1}},
        {"architectures": ["NewForCausalLM"]},
        {"model_type": ["mixtral"]},
        {"torch_dtype": {"x": []}, "dtype": [], "head_dim": {}},
    ],
)
def test_configurations_of_models_that_are_none(stage, wide, tmp_path, wrong):
    tensors, _, config = wide
    good = model_config(stage.herd / "wide-base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.Q4_0, good)
    model = good | wrong
    found = verify(stage.write(tensors, config, model, files={"x.gguf": path.read_bytes()}, base="wide-base"))
    assert not [one for one in found if one.outcome is Outcome.BROKEN]
    assert status(found) in {8, 9}


def test_files_with_other_weights_are_told(stage):
    files = {"pytorch_model.bin": b"x", "consolidated.safetensors": b"y"}
    found = verify(stage.merge(mixture(stage.sources, ("tuned", "other")), files=files))
    assert not failed(found)
    assert unproven(found) == {"routers", "other files"}


def test_gguf_files_in_another_place_and_another_rope(stage, wide, tmp_path):
    tensors, _, config = wide
    model = model_config(stage.herd / "wide-base")
    (tmp_path / "files").mkdir()
    write_gguf(tmp_path / "files/x.gguf", tensors, Kind.Q8_0, model, theta=1e6)
    name = stage.merge(tensors, config, model, base="wide-base")
    stage.add("herd/gguf", tmp_path / "files")
    for place in ("herd/gguf", str(tmp_path / "files")):
        found = verify(name, ggufs=[place])
        assert failed(found) == [("gguf", "x.gguf")]
        assert of(found, "gguf", Outcome.FAILED)[0].found == "1000000.0"
        assert of(found, "gguf", Outcome.PASSED)


def rms(values):
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


@pytest.mark.slow
def test_the_table_of_distances_in_the_docs():
    """Measured again as the page says: what an importance matrix costs, and how far other weights are."""
    chance = np.random.default_rng(0)
    weights, other = (chance.standard_t(5, size=(512, 2048)).astype(np.float32) for _ in range(2))
    noise = chance.normal(size=weights.shape).astype(np.float32) * 0.3 * rms(weights)
    importance = np.exp(3 * chance.normal(size=2048)).astype(np.float32)
    u, s, v = np.linalg.svd(weights.astype(np.float64), full_matrices=False)
    kept = int(0.7 * len(s))
    cut = ((u[:, :kept] * s[:kept]) @ v[:kept]).astype(np.float32)
    rows, rounded = slice(0, 64), []
    table = re.findall(r"^\| ([A-Z0-9_]+) \|(.*)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(table) == 8
    for name, cells in table:
        kind = Kind[name]

        def distance(values, matrix, kind=kind):
            encoded = np.asarray(libgguf.quantize_rows(values[rows], int(kind), matrix)).view(np.uint8)
            return rms(gguf.quants.dequantize(encoded, kind) - weights[rows])

        least = distance(weights, None)
        measured = [distance(one, importance) / least for one in (weights, weights + noise, cut, other)]
        rounded.append(f"| {name} | {' | '.join(f'{one:.3g}' for one in measured)} |")
        told = [float(cell) for cell in cells.split("|")]
        assert measured == pytest.approx(told, rel=0.03), "\n".join(rounded)
        assert measured[0] < FACTOR < measured[3]


# --- the command


def run(capsys, *arguments):
    """Return exit status, standard output and standard error of the command."""
    status = main(["verify", "--foreign", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_the_command_and_its_reports(stage, tmp_path, capsys):
    name = stage.merge(mixture(stage.sources, ("other", "tuned")))
    outputs = [tmp_path / one for one in ("r.json", "r.xml", "r.md")]
    stage.hub.forget()
    status, text, _ = run(
        capsys,
        name,
        "--seed",
        5,
        "--sample",
        "20KB",
        "--json",
        outputs[0],
        "--junit",
        outputs[1],
        "--summary",
        outputs[2],
    )
    assert status == 8
    lines = text.splitlines()
    assert lines[0].startswith("audit: ")
    assert any(line.startswith("FAIL       equal     expert 1: is not herd/tuned") for line in lines)
    assert any(
        line.startswith("  - The rows of the 2 routers")
        for line in lines[lines.index("What remains unproven:") :]
    )
    said = json.loads(outputs[0].read_text())
    assert (said["outcome"], said["seed"], said["sample_bytes"]) == ("failed", 5, 20_000)
    findings = said["levels"][0]["findings"]
    assert findings[-1]["check"] == "unproven"
    suite = ET.parse(outputs[1]).getroot()[0]
    assert int(suite.get("tests")) == len(findings)
    assert int(suite.get("failures")) == sum(one["outcome"] == "failed" for one in findings)
    assert "audit/equal" in outputs[2].read_text()
    weights = [one for one in stage.hub.requests if "safetensors" in one.path and one.method == "GET"]
    assert weights
    assert all(one.range for one in weights if one.status == 206)
    assert any(one.status == 206 for one in weights)
    assert said["levels"][0]["read_bytes"] > 20_000


def test_options_that_do_not_belong_together(capsys):
    for arguments, word in (
        (["herd/base", "--config", "nowhere.yml"], "'nowhere.yml' does not exist"),
        (["herd/base", "--vsa", "x.json"], "No such option '--vsa'"),
    ):
        status, _, text = run(capsys, *arguments)
        assert (status, word in text) == (2, True)


@pytest.mark.parametrize(("place", "expected"), [("herd/nothing", 9), ("nothing at all", 2), ("../x", 2)])
def test_nothing_to_verify(stage, capsys, place, expected):
    status, text, error = run(capsys, place)
    assert status == expected, text
    assert "Traceback" not in text + error


def test_a_sample_reads_little_of_large_models(stage):
    """Models of 12 MB, of which 1 MB is asked for: what is read is a few times that, headers included."""
    for seed, one in enumerate(MODELS):
        folder = tiny.write_model(
            stage.herd / f"large-{one}", seed=seed, hidden=512, intermediate=2048, vocab=256
        )
        stage.add(f"herd/large-{one}", folder)
    sources = {one: load_file(stage.herd / f"large-{one}/model.safetensors") for one in MODELS}
    config = config_of(("large-tuned", "large-other"), "herd/large-base")
    model = model_config(stage.herd / "large-base")
    name = stage.merge(mixture(sources, ("tuned", "other")), config, model, base="large-base")
    ran = Audit(name, None, [], Options(sample_bytes=4 * BLOCK_BYTES, seed=3)).run(lambda _: None)
    size = sum(entry.size_bytes for entry in HubSubject(name).files.values())
    assert size > 24_000_000
    assert 8 * BLOCK_BYTES * 0.5 < ran.read_bytes < 8 * BLOCK_BYTES + 4 * (1 << 17) + 600_000
    assert not [one for one in ran.findings if one.outcome is Outcome.FAILED]


def cut_ranks(tensor, share):
    u, s, v = torch.linalg.svd(tensor.double(), full_matrices=False)
    kept = int(len(s) * share)
    return (u[:, :kept] * s[:kept] @ v[:kept]).to(tensor.dtype)


def test_the_transcript_in_the_docs(stage, tmp_path, capsys):
    """It is what the command prints of a mixture whose second expert was lasered in one layer, with a GGUF of it."""
    tensors = mixture(stage.sources, ("tuned", "other"))
    for name in [one for one in tensors if ".layers.1." in one and ".experts.1." in one]:
        tensors[name] = cut_ranks(tensors[name], 0.5)
    model = model_config(stage.herd / "base")
    path = write_gguf(tmp_path / "x.gguf", tensors, Kind.Q8_0, model)
    files = {"Duet-2x1M.Q8_0.gguf": path.read_bytes()}
    name = stage.merge(tensors, files=files, name="herd/Duet-2x1M")
    status, text, _ = run(capsys, name, "--sample", "60KB", "--seed", 7)
    assert status == 8

    def comparable(printed):
        lines = [
            re.sub(r"[0-9a-f]{40}|[0-9.]+ [kM]B read in [0-9.]+ s", "...", one)
            for one in printed.splitlines()
        ]
        return "\n".join(lines).strip()

    blocks = re.findall(r"^```text\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert comparable(text) in [comparable(block.partition("\n")[2]) for block in blocks], text


# --- the real mergekit


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["hidden", "cheap_embed", "random", "uniform_random"])
def test_what_the_real_mergekit_makes(stage, tmp_path, gate):
    try:
        MERGEKIT_MOE.find()
    except StepError as error:
        pytest.skip(str(error))
    config = config_of(gate_mode=gate) | {"base_model": str(stage.herd / "base")}
    for expert, name in zip(config["experts"], ("tuned", "other"), strict=True):
        expert["source_model"] = str(stage.herd / name)
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    MERGEKIT_MOE.run([str(tmp_path / "config.yml"), str(tmp_path / "out")], tmp_path)
    named = stage.root / f"{gate}.yml"
    named.write_text(yaml.safe_dump(config))
    found = verify(tmp_path / "out", named)
    assert not failed(found)
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 1", "expert 2", "base"]
    assert of(found, "gate", Outcome.PASSED)
    assert unproven(found) <= {"routers", "tokenizer"}
    path = next(iter((tmp_path / "out").glob("*.safetensors")))
    content = bytearray(path.read_bytes())
    at = int.from_bytes(content[:8], "little") + 8
    header = json.loads(content[8:at])
    start, _ = header["model.layers.1.mlp.experts.gate_up_proj"]["data_offsets"]
    content[at + start] ^= 1  # of the first expert's gate
    path.write_bytes(content)
    assert failed(verify(tmp_path / "out", named)) == [("equal", "expert 1")]


def test_docs_tell_every_check():
    """docs/audit.md has a row for each check that there is."""
    text = DOCS.read_text(encoding="utf-8")
    for path in (DOCS.parents[1] / "src/herdbook/audit").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "= Check(LEVEL, " in line:
                name = line.split('"')[1]
                assert f"| `{name}` |" in text, name
