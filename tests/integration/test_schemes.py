"""Formats for GPU servers and Macs: a build makes a release of each, published and verified beside the one of full width."""

import hashlib
import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch
import yaml
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from herdbook.cli.main import main
from herdbook.files import dump_json
from herdbook.inference.text import windows
from herdbook.layout import CONFIG, LOSSES, RECORDS, SUMS, WEIGHTS
from herdbook.plan.edition import Edition
from herdbook.quantization.compressed_tensors import KEY
from herdbook.quantization.schemes import SCHEMES
from herdbook.release.finding import Outcome
from herdbook.release.sums import parse_sums
from herdbook.steps.card.step import card_texts, render_card
from herdbook.steps.compress.encode import decode, encode
from herdbook.weights.checkpoint import digest_shard
from support import lies, tiny
from support.publishing import at
from support.sampled import sampled
from support.verification import findings, status

SIZES = {"head_dim": 32, "hidden": 128, "intermediate": 128}
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [{"model": "base", "prompts": ["w1"]}, {"model": "tuned", "prompts": ["w2"]}],
        }
    },
}
SECTIONS = {
    "release": {"repo": "keeper/Tiny"},
    "quantize": {"schemes": ["FP8_DYNAMIC", "W4A16", "MLX_6BIT"], "loss": {"texts": ["held"]}},
    "calibration": {"held": {"data": ["held.jsonl"], "split": "validation", "windows": 30, "tokens": 8}},
    "publish": {
        "tag": "v1",
        "scheme_repos": {
            "FP8_DYNAMIC": "keeper/Tiny-FP8",
            "W4A16": "keeper/Tiny-W4A16",
            "MLX_6BIT": "keeper/Tiny-6bit",
        },
    },
    "shard_size": "400KB",
}
EXPERT = "model.layers.1.block_sparse_moe.experts.1.w2"
STACKED = "model.layers.1.block_sparse_moe.switch_mlp.down_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The plan of a build with all releases, and the Hub of its sources."""
    root = tmp_path_factory.mktemp("schemes")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch, hub.token)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(root / name, seed=seed, **SIZES)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        line = json.dumps({"text": " ".join(f"w{n % 9}" for n in range(400))})
        (root / "held.jsonl").write_text(f"{line}\n{line}\n")
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS, **SECTIONS), root / "results")
        for one in plan.editions:
            render_card(one, one.layout.card_folder)
            tiny.release(one, lies.KEY)
        yield plan, hub


def weights(folder):
    """All tensors of a folder."""
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same(one, other):
    """Whether two tensors have the same dtype, shape and bits."""
    bits = [tensor.contiguous().view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def test_each_release_is_what_follows_from_the_one_of_full_width(made):
    main_plan, *others = made[0].editions
    assert [one.title for one in made[0].editions] == ["Tiny", "Tiny-FP8", "Tiny-W4A16", "Tiny-6bit"]
    full = weights(main_plan.layout.release_folder)
    for one in others[:2]:
        scheme = SCHEMES[one.edition.scheme]
        folder = one.layout.release_folder
        found, expected = weights(folder), {}
        for name, tensor in full.items():
            if ".layers." in name and tensor.dim() == 2 and not name.endswith("block_sparse_moe.gate.weight"):
                stored = encode(tensor, scheme)
                expected |= {f"{name.removesuffix('weight')}{part}": made for part, made in stored.items()}
            else:
                expected[name] = tensor
        assert found.keys() == expected.keys()
        assert [name for name, tensor in expected.items() if not same(found[name], tensor)] == []
        config = json.loads((folder / CONFIG).read_text())
        settings = config.pop(KEY)
        assert config == json.loads((main_plan.layout.release_folder / CONFIG).read_text())
        gates = [f"model.layers.{layer}.block_sparse_moe.gate" for layer in range(2)]
        assert settings["ignore"] == [*gates, "lm_head"]


def test_the_release_for_macs_has_the_experts_stacked_and_all_but_routers_and_norms_encoded(made):
    full = weights(made[0].layout.folder(made[0].released))
    plan, scheme = made[0].of(Edition.MLX_6BIT), SCHEMES["MLX_6BIT"]
    folder = plan.layout.release_folder
    expected = {}
    for name, tensor in full.items():
        module = name.removesuffix(".weight")
        if tensor.dim() == 1 or name.endswith("block_sparse_moe.gate.weight"):
            expected[name] = tensor
        elif ".experts." not in name:
            expected |= {f"{module}.{part}": made for part, made in encode(tensor, scheme).items()}
    for layer in range(2):
        inside = f"model.layers.{layer}.block_sparse_moe"
        for own, dense in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
            experts = [encode(full[f"{inside}.experts.{place}.{own}.weight"], scheme) for place in range(2)]
            for part in ("weight", "scales", "biases"):
                rows = torch.stack([stored[part] for stored in experts])
                expected[f"{inside}.switch_mlp.{dense}.{part}"] = rows
    found = weights(folder)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if tensor.dtype == torch.int32:
            assert found[name].dtype == torch.uint32
            assert torch.equal(found[name].view(torch.int32), tensor), name
        else:
            assert same(found[name], tensor), name
    for path in folder.glob("model*.safetensors"):
        head = path.read_bytes()
        header = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
        assert header["__metadata__"] == {"format": "mlx"}
    config = json.loads((folder / CONFIG).read_text())
    settings = {"bits": 6, "group_size": 64, "mode": "affine"}
    assert [config.pop(key) for key in ("quantization", "quantization_config")] == [settings, settings]
    own = json.loads((made[0].editions[0].layout.release_folder / CONFIG).read_text())
    assert {key: value for key, value in config.items() if own.get(key) != value} == {}


def test_every_level_passes(made):
    for one in made[0].editions:
        found = findings(one.layout.release_folder, "rebuild", sample_bytes=None)
        left = [each for each in found if each.outcome is not Outcome.PASSED]
        scheme = one.edition.scheme  # the loss is taken as recorded, since the texts are not in the release
        assert [each.subject for each in left] == ([f"loss of {scheme}"] if scheme else []), left
        (routers,) = (each for each in found if (each.level, each.check) == ("recomputed", "routers"))
        assert routers.subject == "2 of 2 routers"
    assert {each.check for each in found} >= {"loads whole", "lineage", "equal", "made"}


def test_the_release_of_full_width_is_the_same_without_other_formats(made):
    """What belongs to another release is in none of its files but the recipe, and those that name its digest."""
    plan = made[0].editions[0]
    names = set(parse_sums((plan.layout.release_folder / SUMS).read_text(), SUMS))
    assert not [name for name in names if "FP8" in name or "W4A16" in name or "bit" in name.lower()]
    assert not [node for node in plan.nodes if "FP8" in node]
    claims = (plan.layout.release_folder / "claims.jsonl").read_text()
    assert "herdbook.steps.compress" not in claims


def test_its_card_leads_to_the_weights(made):
    main_plan, fp8, _, mac = made[0].editions
    card = (fp8.layout.release_folder / "README.md").read_text()
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["base_model"] == "keeper/Tiny"
    assert data["base_model_relation"] == "quantized"
    assert data["quantized_by"] == "keeper"
    assert data["tags"] == ["compressed-tensors", "fp8", "herdbook"]
    assert "vllm serve keeper/Tiny-FP8" in card
    assert "FP8_DYNAMIC" in card
    other = (main_plan.layout.release_folder / "README.md").read_text()
    assert "The largest that fits" not in other  # 8 GB hold all of it
    assert "[keeper/Tiny-FP8](<https://huggingface.co/keeper/Tiny-FP8>)" in other
    assert "\n- Macs: [keeper/Tiny-6bit](<https://huggingface.co/keeper/Tiny-6bit>), in `MLX_6BIT`\n" in other
    card = (mac.layout.release_folder / "README.md").read_text()
    data = yaml.safe_load(card.split("---\n")[1])
    assert (data["library_name"], data["tags"]) == ("mlx", ["mlx", "6-bit", "herdbook"])
    assert (data["pipeline_tag"], data["base_model"]) == ("text-generation", "keeper/Tiny")
    assert "mlx_lm.generate --model keeper/Tiny-6bit" in card
    assert "mlx_lm.server --model keeper/Tiny-6bit" in card
    assert not [word for word in ("vllm", "compressed-tensors", "transformers") if word in card]
    sizes = [
        sum(tensor.nbytes for tensor in weights(one.layout.folder(one.released)).values())
        for one in (mac, main_plan)
    ]
    assert f": {100 * sizes[0] / sizes[1]:.0f} % of full width, " in card
    assert "The recipe names no signer." in card


def test_all_are_published(made):
    plan, hub = made
    words = ["publish", "--recipe", str(plan.recipe_path), "--results", str(plan.layout.root)]
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(words)
    assert code == 0, output.getvalue()
    for one in plan.editions:
        held = at(hub, "v1", one.repo)
        assert held.keys() - {".gitattributes"} == {
            path.relative_to(one.layout.release_folder).as_posix()
            for path in one.layout.release_folder.rglob("*")
            if path.is_file()
        }
    assert status(findings("keeper/Tiny-FP8", "recomputed", sample_bytes=None)) == 0


def test_a_sliding_window_that_mlx_lm_does_not_have_is_a_warning_and_on_the_card(tmp_path):
    tiny.write_model(tmp_path / "base", model_type="mistral", sliding_window=64, **SIZES)
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml",
        {"base": {"folder": "base"}},
        quantize={"schemes": ["W4A16", "MLX_4BIT"]},
    )
    plan = tiny.build(recipe, tmp_path / "results")
    words = "mlx-lm has no sliding window for mistral: texts of more than 64 tokens are computed with full attention"
    assert [warning for warning in plan.warnings if words in warning] == [
        f"quantize.schemes: MLX_4BIT: {words}"
    ]
    cards = {one.edition: "".join(map(str, card_texts(one, None).values())) for one in plan.editions}
    assert words in cards[Edition.MLX_4BIT]
    assert not [edition for edition in (Edition.MAIN, Edition.W4A16) if words in cards[edition]]


@pytest.mark.parametrize(
    ("edition", "tensor", "piece"),
    sampled(
        [
            ("FP8_DYNAMIC", f"{EXPERT}.weight", None),
            ("FP8_DYNAMIC", f"{EXPERT}.weight_scale", None),
            ("MLX_6BIT", f"{STACKED}.weight", f"{EXPERT}.weight"),
            ("MLX_6BIT", f"{STACKED}.biases", f"{EXPERT}.biases"),
            ("MLX_6BIT", "model.embed_tokens.scales", None),
        ],
        every=3,
    ),
)
def test_an_altered_number_is_found_although_all_else_follows_from_it(made, tmp_path, edition, tensor, piece):
    plan = made[0].of(Edition(edition))
    folder = shutil.copytree(plan.layout.release_folder, tmp_path / "copy")
    holder, planned = plan.released.tensors[tensor]
    file = folder / plan.released.shard_names[plan.released.parts.index(holder)]
    record = folder / f"{RECORDS}/{holder.id}.json"
    with lies.told(folder):
        start = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        header = json.loads(file.read_bytes()[8:start])
        content = bytearray(file.read_bytes())
        first, end = (start + offset for offset in header[tensor]["data_offsets"])
        if piece:  # the second of two experts
            first = (first + end) // 2
        content[first] ^= 1
        file.unlink()
        file.write_bytes(content)
        found = json.loads(record.read_text())
        found["file"]["sha256"], entries = digest_shard(file)
        for name, entry in entries.items():
            found["tensors"][name]["sha256"] = entry["sha256"]
        if piece:
            assert planned.slices[1] == piece
            digest = hashlib.sha256(content[first:end]).hexdigest()
            found["tensors"][tensor]["slices"][1]["sha256"] = digest
        record.write_text(dump_json(found))
        (loss,) = (path for path in (folder / LOSSES).glob("*.json") if edition in path.name)
        measured = json.loads(loss.read_text())
        measured["file"]["weights"][file.name] = found["file"]["sha256"]
        loss.write_text(dump_json(measured))
    assert status(findings(folder)) == 0
    wrong = [
        one for one in findings(folder, "recomputed", sample_bytes=None) if one.outcome is Outcome.FAILED
    ]
    assert {(one.subject, one.tensor) for one in wrong if one.check == "made"} == {(piece or tensor, tensor)}


def test_a_release_in_the_place_of_another_is_found(made, tmp_path):
    """The format that a configuration describes decides what a release is compared with, and nothing else."""
    fp8, w4a16 = made[0].of(Edition.FP8_DYNAMIC), made[0].of(Edition.W4A16)
    folder = shutil.copytree(fp8.layout.release_folder, tmp_path / "copy")
    shutil.copyfile(w4a16.layout.release_folder / CONFIG, folder / CONFIG)
    lies.write_sums(folder)
    found = {one.check for one in findings(folder) if one.outcome is Outcome.FAILED}
    assert found


def test_the_loss_of_a_format_is_that_of_its_decoded_weights_in_transformers(made, tmp_path):
    """Measured by transformers itself, on the decoded weights in a folder of full width."""
    plan, _ = made
    full = AutoModelForCausalLM.from_pretrained(plan.layout.folder(plan.released), dtype=torch.float32)
    source = weights(plan.layout.folder(plan.released))
    texts = windows(plan, "held", plan.layout.folder(plan.released), full.config, 30)
    ids = torch.tensor(texts)
    with torch.no_grad():
        expected = torch.log_softmax(full(ids).logits[:, :-1].double(), -1)
        found = {}
        for scheme in (SCHEMES[item.label] for item in plan.losses):
            folder = tmp_path / scheme.name
            folder.mkdir()
            tensors = {name: decoded(tensor, name, scheme) for name, tensor in source.items()}
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
            shutil.copyfile(plan.layout.folder(plan.released) / CONFIG, folder / CONFIG)
            other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            own = torch.log_softmax(other(ids).logits[:, :-1].double(), -1)
            found[scheme.name] = float((expected.exp() * (expected - own)).sum(-1).mean())
    for item in plan.losses:
        measured = json.loads(plan.layout.loss(item).read_text())
        assert measured["total"]["kl_divergence"]["value"] == pytest.approx(found[item.label], rel=1e-3)
        assert measured["file"]["weights"].keys() == set(item.encoded.shard_names)
    bits = [json.loads(plan.layout.loss(item).read_text())["bits_per_weight"] for item in plan.losses]
    assert bits[0] > bits[2] > bits[1] > 4
    folder = made[0].of(Edition.MLX_6BIT).layout.release_folder
    size = sum(tensor.nbytes for tensor in weights(folder).values())
    parameters = sum(tensor.numel() for tensor in source.values())
    assert bits[2] == round(8 * size / parameters, 3)


def decoded(tensor, name, scheme):
    """A tensor as a server or a Mac has it, in float32."""
    if scheme.library == "mlx":
        is_kept = tensor.dim() != 2 or name.endswith("block_sparse_moe.gate.weight")
        return tensor.float() if is_kept else decode(encode(tensor, scheme), scheme)
    if ".layers." not in name or tensor.dim() != 2 or name.endswith("block_sparse_moe.gate.weight"):
        return tensor.float()
    stored = encode(tensor, scheme)
    if scheme.is_packed:
        return decode(stored, scheme).float()
    return stored["weight"].float() * stored["weight_scale"].float()
