"""Extracting adapters, against PEFT and a full SVD by NumPy."""

import json
import shutil

import numpy as np
import pytest
import torch
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save_file

from herdbook import hub as remotes
from herdbook.cli.main import main
from support import tiny

MATRIX = "model.layers.0.mlp.gate_proj.weight"
EQUAL = ("model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.weight")


def in_layers(name, tensor):
    return ".layers." in name and tensor.dim() == 2


def load(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def tune(base, folder, change, dtype=None):
    """Copy a model, with tensors that a function of name and tensor returns (None: the same)."""
    shutil.copytree(base, folder)
    for path in folder.glob("*.safetensors"):
        tensors = {}
        for name, tensor in load_file(path).items():
            changed = change(name, tensor)
            tensors[name] = (tensor if changed is None else changed).to(dtype or tensor.dtype).contiguous()
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


def noise(name, tensor):
    """Return a matrix of a layer with a change of full rank, whose singular values fall; two stay equal."""
    if not in_layers(name, tensor) or name in EQUAL:
        return None
    drawn = np.random.default_rng(len(name) + sum(map(ord, name)))
    rows, columns = tensor.shape
    left, _ = np.linalg.qr(drawn.normal(size=(rows, min(rows, columns))))
    right, _ = np.linalg.qr(drawn.normal(size=(columns, min(rows, columns))))
    values = 0.2 * (0.7 if "mlp" in name else 0.8) ** np.arange(min(rows, columns))
    return tensor.double() + torch.from_numpy((left * values) @ right.T)


@pytest.fixture
def base(tmp_path):
    return tiny.write_model(tmp_path / "base", seed=1, shards=2, dtype=torch.float32)


@pytest.fixture
def tuned(base, tmp_path):
    return tune(base, tmp_path / "tuned", noise)


def extract(*arguments):
    return main(["extract", *(str(argument) for argument in arguments)])


def merged(base, adapter):
    """Return the tensors of a model into which PEFT has merged an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def test_peft_merges_the_best_approximation(base, tuned, tmp_path):
    assert extract(base, tuned, "-o", tmp_path / "a", "--rank", 5) == 0
    result, before, after = merged(base, tmp_path / "a"), load(base), load(tuned)
    for name, tensor in before.items():
        expected = tensor.double().numpy()
        if in_layers(name, tensor):
            u, s, v = np.linalg.svd(after[name].double().numpy() - expected, full_matrices=False)
            expected = expected + (u[:, :5] * s[:5]) @ v[:5]
        np.testing.assert_allclose(result[name].numpy(), expected, atol=1e-6)
    record = json.loads((tmp_path / "a/extraction.json").read_text())
    assert set(record["matrices"]) == {n for n, t in before.items() if in_layers(n, t)} - set(EQUAL)
    for name, entry in record["matrices"].items():
        difference = after[name].double().numpy() - before[name].double().numpy()
        squares = np.linalg.svd(difference, compute_uv=False) ** 2
        assert entry["energy"] == pytest.approx(squares[:5].sum() / squares.sum(), rel=1e-9)
        assert entry["change"] == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(before[name]))
        assert (entry["rank"], entry["of"]) == (5, min(difference.shape))
    assert record["equal"] == len(before) - len(record["matrices"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_full_rank_gives_the_fine_tune_back(tmp_path, dtype):
    base = tiny.write_model(tmp_path / "base", seed=1, dtype=dtype)
    tuned = tune(base, tmp_path / "tuned", noise)
    assert extract(base, tuned, "-o", tmp_path / "adapter", "--rank", "fraction: 1") == 0
    after = load(tuned)
    for name, tensor in merged(base, tmp_path / "adapter").items():
        torch.testing.assert_close(tensor, after[name].float(), atol=2e-7, rtol=2**-22)
    # as an adapter of a recipe, rounded to the model's dtype
    models = {"base": {"folder": "base"}, "tuned": {"adapter": "adapter", "on": "base"}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    built = load(plan.layout.folder(plan.released))
    assert built.keys() == after.keys()
    for name, tensor in built.items():
        # an entry near zero is finer than float32 is at the size of the others
        torch.testing.assert_close(
            tensor, after[name], atol=2e-7, rtol=2**-22 if dtype == torch.float32 else 0
        )


def test_rank_of_a_lora_is_found(base, tmp_path):
    """Directions that are zero up to rounding are no part of it, even if the rule asks for more."""

    def change(name, tensor):
        if not name.endswith("up_proj.weight"):
            return None
        torch.manual_seed(3)
        return (
            tensor.double() + torch.randn(len(tensor), 3).double() @ torch.randn(3, tensor.shape[1]).double()
        )

    exact = tune(base, tmp_path / "exact", lambda _, tensor: tensor, torch.float64)
    tuned = tune(exact, tmp_path / "tuned", change)
    assert extract(exact, tuned, "-o", tmp_path / "a", "--rank", 16) == 0
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"]) == (3, {})
    assert config["target_modules"] == [f"model.layers.{n}.mlp.up_proj" for n in (0, 1)]
    assert extract(exact, tuned, "-o", tmp_path / "a", "--check") == 0


def test_ranks_of_a_rule_become_patterns(base, tuned, tmp_path):
    assert extract(base, tuned, "-o", tmp_path / "a", "--rank", "energy: 0.9") == 0
    assert extract(base, tuned, "-o", tmp_path / "a", "--check") == 0
    before, after, result = load(base), load(tuned), merged(base, tmp_path / "a")
    ranks = set()
    for name, entry in json.loads((tmp_path / "a/extraction.json").read_text())["matrices"].items():
        u, s, v = np.linalg.svd((after[name].double() - before[name].double()).numpy(), full_matrices=False)
        rank = int((np.cumsum(s**2) / (s**2).sum() < 0.9).sum()) + 1
        assert entry["rank"] == rank
        ranks.add(rank)
        expected = before[name].numpy() + (u[:, :rank] * s[:rank]) @ v[:rank]
        np.testing.assert_allclose(result[name].numpy(), expected, atol=1e-6)
    assert len(ranks) > 1


def test_modules_to_save_and_what_is_left_out(base, tmp_path, capsys):
    def change(name, tensor):
        return (
            tensor + 0.25
            if "norm" in name or "lm_head" in name or "down_proj" in name
            else noise(name, tensor)
        )

    tuned = tune(base, tmp_path / "tuned", change)
    arguments = (base, tuned, "-o", tmp_path / "a")
    assert extract(*arguments, "--rank", 16) == 2
    message = capsys.readouterr().err
    assert "lm_head.weight, model.layers.0.input_layernorm.weight" in message
    assert "--modules-to-save PATTERN" in message
    chosen = ("--modules-to-save", "lm_head", "--modules-to-save", "*norm", "--leave-out", "down_proj")
    assert extract(*arguments, "--rank", 64, *chosen) == 0
    assert "left out, although they differ: model.layers.0.mlp.down_proj.weight" in capsys.readouterr().out
    assert extract(*arguments, "--check") == 0
    before, after = load(base), load(tuned)
    for name, tensor in merged(base, tmp_path / "a").items():
        expected = before[name] if "down_proj" in name else after[name]
        torch.testing.assert_close(tensor, expected, atol=2e-6, rtol=1e-6)
    models = {"base": {"folder": "base"}, "tuned": {"adapter": "a", "on": "base"}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    built = load(plan.layout.folder(plan.released))
    assert built["lm_head.weight"].equal(after["lm_head.weight"])
    assert built["model.layers.1.mlp.down_proj.weight"].equal(before["model.layers.1.mlp.down_proj.weight"])


def test_biases_are_those_of_the_fine_tune(tmp_path):
    base = tiny.write_model(tmp_path / "base", seed=1, model_type="qwen2", dtype=torch.float32)

    def change(name, tensor):
        if name == "model.layers.0.self_attn.k_proj.bias":
            return tensor - 0.5
        return noise(name, tensor) if "layers.1.self_attn.q_proj" in name else None

    tuned = tune(base, tmp_path / "tuned", change)
    assert extract(base, tuned, "-o", tmp_path / "a", "--rank", 64) == 0
    assert extract(base, tuned, "-o", tmp_path / "a", "--check") == 0
    after = load(tuned)
    for name, tensor in merged(base, tmp_path / "a").items():
        torch.testing.assert_close(tensor, after[name], atol=1e-6, rtol=1e-6)
    models = {"base": {"folder": "base"}, "tuned": {"adapter": "a", "on": "base"}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", models), tmp_path / "results")
    built = load(plan.layout.folder(plan.released))
    assert all(built[name].equal(after[name]) for name in after if name.endswith("bias"))


SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
OTHERS = {
    "gpt_neox": {"num_attention_heads": 4},
    "gemma2": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},  # tied by default
    "phi3": {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_linear_layers_of_other_types_are_those_of_transformers(tmp_path, capsys, kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(4)
    config = AutoConfig.for_model(kind, **SMALL, **OTHERS[kind])
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path / "base")
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
    }
    assert len(linear) in {8, 14}

    def change(name, tensor):
        return tensor + torch.randn_like(tensor) / 50 if name in linear or name.endswith("bias") else None

    tuned = tune(tmp_path / "base", tmp_path / "tuned", change)
    arguments = (tmp_path / "base", tuned, "-o", tmp_path / "a")
    assert extract(*arguments, "--rank", 64) == 0
    assert extract(*arguments, "--check") == 0
    assert set(json.loads((tmp_path / "a/extraction.json").read_text())["matrices"]) == linear
    after = load(tuned)
    result = merged(tmp_path / "base", tmp_path / "a")
    renamed = {"embed_out.weight": "lm_head.weight"} if "lm_head.weight" in result else {}
    for name, tensor in after.items():
        torch.testing.assert_close(result[renamed.get(name, name)], tensor, atol=1e-6, rtol=1e-6)
    if kind == "gpt_neox" and renamed:
        assert (
            extract(*arguments[:2], "-o", tmp_path / "b", "--rank", 4, "--modules-to-save", "embed_out") == 2
        )
        assert "embed_out.weight has another name in transformers" in capsys.readouterr().err
    if kind == "gemma2":
        assert (
            extract(*arguments[:2], "-o", tmp_path / "b", "--rank", 4, "--modules-to-save", "embed_tokens")
            == 2
        )
        assert "model.embed_tokens is also the model's output head" in capsys.readouterr().err


def test_mixtures_are_refused(tmp_path, capsys):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, num_local_experts=2)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    assert extract(tmp_path / "base", tmp_path / "base", "-o", tmp_path / "a", "--rank", 4) == 2
    assert "is a mixture of experts (mixtral)" in capsys.readouterr().err


def test_threads_change_no_byte(base, tuned, tmp_path):
    for threads in (1, 3):
        assert extract(base, tuned, "-o", tmp_path / str(threads), "--rank", 4, "--threads", threads) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json", "extraction.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    assert {path.name for path in (tmp_path / "1").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "extraction.json",
    }


def test_models_of_the_hub_are_pinned_and_read_by_ranges(base, tuned, tmp_path, monkeypatch):
    assert extract(base, tuned, "-o", tmp_path / "local", "--rank", 4) == 0
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        for folder in (base, tuned):
            hub.add_repo(f"herd/{folder.name}", {path.name: path.read_bytes() for path in folder.iterdir()})
        assert extract("herd/base", "herd/tuned", "-o", tmp_path / "remote", "--rank", 4, "--dry-run") == 0
        assert not (tmp_path / "remote").exists()
        assert extract("herd/base", "herd/tuned", "-o", tmp_path / "remote", "--rank", 4) == 0
        content = [r for r in hub.requests if r.method == "GET" and r.path.startswith("/lfs/")]
        assert extract("herd/base", "herd/tuned", "-o", tmp_path / "remote", "--check") == 0
        for place in ("herd/base", "herd/tuned"):  # files in the cache are used as a whole
            remote = remotes.resolve(place, None)
            for file in remote.files:
                if file.name.endswith(".safetensors"):
                    remotes.download(place, remote.commit, file)
        before = len(hub.requests)
        assert extract("herd/base", "herd/tuned", "-o", tmp_path / "cached", "--rank", 4) == 0
        pinning = [r for r in hub.requests[before:] if r.method == "GET" and r.path.startswith("/lfs/")]
    assert content
    assert all(request.range for request in content)
    assert {request.range for request in pinning} == {"bytes=0-131071"}  # headers
    assert not all(request.range.startswith("bytes=0-") for request in content)
    weights = "adapter_model.safetensors"
    assert (tmp_path / "remote" / weights).read_bytes() == (tmp_path / "local" / weights).read_bytes()
    config = json.loads((tmp_path / "remote/adapter_config.json").read_text())
    record = json.loads((tmp_path / "remote/extraction.json").read_text())
    assert (tmp_path / "cached" / weights).read_bytes() == (tmp_path / "local" / weights).read_bytes()
    assert merged(base, tmp_path / "remote")[MATRIX].equal(merged(base, tmp_path / "local")[MATRIX])
    assert config["base_model_name_or_path"] == "herd/base"
    assert f"herd/base@{config['revision']}" in record["request"]["base"]["uri"]


def test_an_interrupted_extraction_continues(base, tuned, tmp_path, monkeypatch, capsys):
    from herdbook.extract import factors

    assert extract(base, tuned, "-o", tmp_path / "whole", "--rank", 4) == 0
    made = []

    def factorize(difference, rule, what, device, *, most=5, original=factors.factorize):
        if len(made) == most:
            raise KeyboardInterrupt
        made.append(what)
        return original(difference, rule, what, device)

    monkeypatch.setattr(factors, "factorize", factorize)
    folder = tmp_path / "a"
    assert extract(base, tuned, "-o", folder, "--rank", 4) == 130
    assert not (folder / "adapter_config.json").exists()
    monkeypatch.setattr(factors, "factorize", lambda *rest: factorize(*rest, most=100))
    (folder / ".adapter_config.json.abcdefgh.part").write_text("of a killed process")
    assert extract(base, tuned, "-o", folder, "--rank", 4) == 0
    assert len(made) == len(set(made)) == 12  # none twice
    for path in (tmp_path / "whole").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    capsys.readouterr()
    assert extract(base, tuned, "-o", folder, "--rank", 4) == 0
    assert "is already complete" in capsys.readouterr().out
    assert len(made) == 12


def test_a_model_that_changes_meanwhile_is_noticed(base, tuned, tmp_path, monkeypatch, capsys):
    from herdbook.extract import factors

    def factorize(*arguments, original=factors.factorize):
        tune(base, tmp_path / "next", lambda name, tensor: tensor * 2 if name == MATRIX else None)
        for path in (tmp_path / "next").glob("*.safetensors"):
            path.replace(tuned / path.name)
        shutil.rmtree(tmp_path / "next")
        return original(*arguments)

    monkeypatch.setattr(factors, "factorize", factorize)
    assert extract(base, tuned, "-o", tmp_path / "a", "--rank", 4) == 4
    assert "was changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "a/extraction.json").exists()


def rewrite_weights(adapter, change):
    """Change tensors of an adapter, and state their new digests in its record."""
    from herdbook.weights.checkpoint import digest_shard

    path = adapter / "adapter_model.safetensors"
    save_file({name: change(name, tensor).contiguous() for name, tensor in load_file(path).items()}, path)
    record = json.loads((adapter / "extraction.json").read_text())
    sha256, tensors = digest_shard(path)
    record |= {"tensors": tensors, "file": {"sha256": sha256, "size_bytes": path.stat().st_size}}
    (adapter / "extraction.json").write_text(json.dumps(record))


def state(adapter, change):
    record = json.loads((adapter / "extraction.json").read_text())
    change(record)
    (adapter / "extraction.json").write_text(json.dumps(record))


def first(name, tensor):
    """Replace the first row of a factor."""
    rows = torch.cat([tensor[:1] * 1.01, tensor[1:]])
    return rows if name.endswith("layers.0.mlp.gate_proj.lora_A.weight") else tensor


def edit_settings(adapter):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 8}))


def flip(adapter):
    path = adapter / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def forget_matrix(record):
    del record["matrices"][MATRIX]


LIES = {
    "a flipped bit": (flip, "adapter_model.safetensors: is not the file that extraction.json describes"),
    "settings": (edit_settings, "adapter_config.json: does not follow from extraction.json: lora_alpha"),
    "a factor": (
        lambda adapter: rewrite_weights(adapter, first),
        f"{MATRIX}: the product is 0.",
    ),
    "energy": (
        lambda adapter: state(adapter, lambda record: record["matrices"][MATRIX].update(energy=0.999)),
        f"{MATRIX}: extraction.json states energy 0.999, computed 0.",
    ),
    "change": (
        lambda adapter: state(adapter, lambda record: record["matrices"][MATRIX].update(change=0.1)),
        f"{MATRIX}: extraction.json states change 0.1, computed",
    ),
    "rule": (
        lambda adapter: state(adapter, lambda record: record["request"].update(rank=5)),
        f"{MATRIX}: rank 4 does not follow from the rule",
    ),
    "equal": (
        lambda adapter: state(adapter, lambda record: record.update(equal=3)),
        "extraction.json: states 3 equal tensors, which is not their number",
    ),
    "a module that is left out": (
        lambda adapter: state(
            adapter, lambda record: record["left_out"].update({"model.norm.weight": {"change": 0.5}})
        ),
        "model.norm.weight: extraction.json does not state what became of it",
    ),
    "another model": (
        lambda adapter: state(
            adapter, lambda record: record["request"]["tuned"]["files"].update({"config.json": "0" * 64})
        ),
        "extraction.json: was made with another TUNED than",
    ),
    "a matrix less": (
        lambda adapter: state(adapter, forget_matrix),
        "adapter_config.json: does not follow from extraction.json: target_modules",
    ),
}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    base = tiny.write_model(folder / "base", seed=1, shards=2, dtype=torch.float32)
    tuned = tune(base, folder / "tuned", noise)
    assert extract(base, tuned, "-o", folder / "a", "--rank", 4) == 0
    return folder


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(extracted, tmp_path, capsys, lie):
    tell, message = LIES[lie]
    shutil.copytree(extracted / "a", tmp_path / "a")
    tell(tmp_path / "a")
    assert extract(extracted / "base", extracted / "tuned", "-o", tmp_path / "a", "--check") == 8
    assert message in capsys.readouterr().out


def test_a_fine_tune_that_was_changed_since_is_found(extracted, tmp_path, capsys):
    tuned = tune(
        extracted / "tuned", tmp_path / "other", lambda name, tensor: tensor * 2 if name == MATRIX else None
    )
    assert extract(extracted / "base", tuned, "-o", extracted / "a", "--check") == 8
    assert "was made with another TUNED" in capsys.readouterr().out


def resized(name, tensor):
    return (
        torch.cat([tensor, tensor[:2]]) if name in {"lm_head.weight", "model.embed_tokens.weight"} else None
    )


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_nan(name, tensor):
    return tensor / 0 * 0 if name == MATRIX else None


def quantized(folder, base):
    edit_config(tune(base, folder, noise), quantization_config={"quant_method": "gptq"})


def other(folder, **changes):
    return tiny.write_model(folder, seed=2, dtype=torch.float32, **changes)


def renamed(folder, base, **changes):
    edit_config(tune(base, folder, noise), **changes)


BAD = {
    "an equal model": (
        lambda folder, base: tune(base, folder, lambda *_: None),
        2,
        "t: no matrix of its layers differs from base's, so nothing can be extracted",
    ),
    "NaN": (lambda folder, base: tune(base, folder, with_nan), 6, f"t: {MATRIX}: contains NaN"),
    "a resized vocabulary": (
        lambda folder, base: renamed_after(tune(base, folder, resized), vocab_size=66),
        2,
        "t is not a fine-tune of base: lm_head.weight has shape [66, 32], not [64, 32]. The vocabulary was resized",
    ),
    "another base of rotary embeddings": (
        lambda folder, base: renamed(folder, base, rope_theta=1e6),
        2,
        "t is not a fine-tune of base: it has rotary embeddings of base 1e+06, not base 5000",
    ),
    "more layers": (
        lambda folder, _: other(folder, layers=3),
        2,
        "t is not a fine-tune of base: only it has the tensor model.layers.2.input_layernorm.weight",
    ),
    "another type": (
        lambda folder, _: other(folder, model_type="mistral"),
        2,
        "t is not a fine-tune of base: its model_type is 'mistral', not 'llama'",
    ),
    "tied embeddings": (
        lambda folder, _: other(folder, tie_word_embeddings=True),
        2,
        "t is not a fine-tune of base: only one of them has tied embeddings",
    ),
    "a type that is not known": (
        lambda folder, base: renamed(folder, base, model_type="sheep"),
        2,
        "t: transformers has no language model of type 'sheep'",
    ),
    "no weights of its type": (
        lambda folder, base: renamed(folder, base, num_hidden_layers=3),
        2,
        "t: its config.json implies the tensor model.layers.2.input_layernorm.weight, which it lacks",
    ),
    "a quantized model": (quantized, 4, "t: "),
    "no model": (lambda folder, _: folder.mkdir(), 4, "t: "),
    "an adapter": (tiny.write_adapter, 4, "t: "),
}


def renamed_after(folder, **changes):
    edit_config(folder, **changes)


@pytest.mark.parametrize("kind", BAD)
def test_models_that_do_not_fit_are_refused_by_name(base, monkeypatch, capsys, kind):
    make, status, message = BAD[kind]
    monkeypatch.chdir(base.parent)
    make(base.parent / "t", base)
    assert extract("base", "t", "-o", "a", "--rank", 4) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (base.parent / "a/adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base", "tuned", "-o", "a"], "pass either --rank RULE, to extract, or --check"),
        (["base", "tuned", "-o", "a", "--check", "--rank", "4"], "pass either --rank RULE"),
        (["base", "tuned", "-o", "a", "--check", "--dry-run"], "--check takes everything else"),
        (["base", "tuned", "-o", "a", "--rank", "0"], "'0': expected a number, mp-edge"),
        (["base", "tuned", "-o", "a", "--rank", "energy: 2"], "'energy: 2': expected a number"),
        (["base", "tuned", "-o", "a", "--rank", "svd-llm: 4"], "svd-llm needs calibration text"),
        (["base", "tuned", "-o", "a", "--rank", "[&a x, *a"], "expected a number"),
        (["base", "nowhere", "-o", "a", "--rank", "4"], "nowhere: is neither a folder nor owner/name"),
        (["base", "tuned", "-o", "tuned", "--rank", "4"], "tuned: contains config.json; choose an empty"),
        (["base", "tuned", "-o", "base/config.json", "--rank", "4"], "config.json"),
        (
            ["base", "tuned", "-o", "a", "--rank", "4", "--leave-out", "dwn_proj"],
            "--leave-out dwn_proj: no module of base has such a name; did you mean 'down_proj'?",
        ),
        (
            [
                "base",
                "tuned",
                "-o",
                "a",
                "--rank",
                "4",
                "--leave-out",
                "mlp.*",
                "--modules-to-save",
                "up_proj",
            ],
            "model.layers.0.mlp.up_proj: both --modules-to-save and --leave-out name it",
        ),
    ],
)
def test_bad_arguments(base, tuned, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(base.parent)
    assert extract(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (base.parent / "a").exists()


def test_another_adapter_is_not_overwritten(extracted, tmp_path, capsys):
    shutil.copytree(extracted / "a", tmp_path / "a")
    arguments = (extracted / "base", extracted / "tuned", "-o", tmp_path / "a")
    assert extract(*arguments, "--rank", 5) == 2
    assert "contains an adapter of other models, of another rank" in capsys.readouterr().err
    (tmp_path / "a/extraction.json").write_text("[[[")
    for more in (["--rank", 4], ["--check"]):
        assert extract(*arguments, *more) == 4
        assert "extraction.json is damaged" in capsys.readouterr().err
    (tmp_path / "a/extraction.json").unlink()
    assert extract(*arguments, "--rank", 4) == 2
    assert "contains adapter_config.json" in capsys.readouterr().err
    assert extract(*arguments, "--check") == 4
    assert "contains no extraction.json" in capsys.readouterr().err


def test_embeddings_that_are_also_the_head_cannot_be_saved(tmp_path, capsys):
    base = tiny.write_model(tmp_path / "base", seed=1, tie_word_embeddings=True)
    tuned = tune(
        base, tmp_path / "tuned", lambda name, tensor: tensor + 1 if "embed" in name else noise(name, tensor)
    )
    arguments = (base, tuned, "-o", tmp_path / "a", "--rank", 4)
    assert extract(*arguments, "--modules-to-save", "embed_tokens") == 2
    assert "model.embed_tokens is also the model's output head" in capsys.readouterr().err
    assert extract(*arguments, "--leave-out", "embed_tokens") == 0
