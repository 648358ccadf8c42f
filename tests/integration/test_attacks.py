"""Attacks on releases: what was tried, and what caught it. The tables are those of docs/verify.md.

A small signed release of a base and a lasered fine-tune, both on a local Hub, is damaged in one way at a time.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from pytest_local_hub import Blob, LocalHub, client
from safetensors.torch import load_file, save_file

from herdbook import hub as reader
from herdbook.errors import SourceError
from herdbook.files import dump_json, sha256_file
from herdbook.hub import failure, transport
from herdbook.layout import (
    BOMS,
    CLAIMS,
    LINEAGE,
    LOCK,
    OUTSIDE_SUMS,
    PUBLIC_KEY,
    RECIPE,
    RECORDS,
    SIGNATURE,
    SUMS,
    WEIGHTS_INDEX,
)
from herdbook.release.finding import Outcome
from herdbook.release.subject import HubSubject
from herdbook.signing import keys
from herdbook.signing.bundle import bundle
from herdbook.signing.oms import manifest
from herdbook.steps.card.step import render_card
from herdbook.verify import equality
from herdbook.verify.levels import LEVELS
from herdbook.weights.checkpoint import read_header
from support import copies, lies, tiny
from support.verification import findings, status

pytestmark = pytest.mark.usefixtures("transformers_here")

DOCS = Path(__file__).parents[2] / "docs/verify.md"
REPO = "herd/Tiny"
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "cut": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "folded": {"adapter": {"hub": "herd/adapter"}, "on": "base"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [
                {"model": "cut", "prompts": ["w1"]},
                {"model": "base", "prompts": ["w2"]},
                {"model": "folded", "prompts": ["w4"]},
            ],
        }
    },
}


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class Stage:
    """The Hub with sources and release, the release's folder, and the key that signed it."""

    def __init__(self, hub, root):
        self.hub, self.root = hub, root
        for seed, name in enumerate(("base", "tuned")):
            tiny.write_model(root / name, seed=seed, shards=2)
            hub.add_repo(f"herd/{name}", files_of(root / name), license="apache-2.0")
        tiny.write_adapter(root / "adapter", root / "base", seed=2)
        hub.add_repo("herd/adapter", files_of(root / "adapter"), license="apache-2.0")
        keys.generate(root / "key")
        self.key = keys.load_private(root / "key")
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS), root / "results")
        render_card(plan, plan.layout.card_folder)
        self.folder = tiny.release(plan, self.key)

    def copy(self, target):
        return shutil.copytree(self.folder, target)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        yield Stage(hub, root)


@pytest.fixture
def forger(stage, tmp_path):
    """A copy of the release whose attacker has no key."""
    return stage.copy(tmp_path / "copy")


# --- what an attacker does ----------------------------------------------------------------------------------------


def flip(name, place=0.5):
    def attack(folder):
        path = next(iter(sorted(folder.glob(name))))
        content = bytearray(path.read_bytes())
        content[int(len(content) * place)] ^= 1
        path.write_bytes(content)

    return attack


def resum(folder):
    """Write the checksums anew."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / SUMS).write_text(
        "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names if name not in OUTSIDE_SUMS)
    )


def sign_again(folder):
    """Write checksums and model signature anew, with another key, and put that key beside them."""
    resum(folder)
    key = keys.PrivateKey(keys.ec.generate_private_key(keys.ec.SECP256R1()))
    (folder / PUBLIC_KEY).write_text(key.public.pem)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    digests = {name: sha256_file(folder / name) for name in names}
    (folder / SIGNATURE).write_bytes(bundle(manifest("Tiny", digests), key))
    lines = []
    for line in (folder / CLAIMS).read_bytes().splitlines():
        from herdbook.signing.bundle import read

        lines.append(bundle(read(line, "").statement, key) + b"\n")
    (folder / CLAIMS).write_bytes(b"".join(lines))


def add(folder):
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def remove(folder):
    (folder / "tokenizer.json").unlink()


def rename(folder):
    (folder / "config.json").rename(folder / "configs.json")


def swap_files(folder):
    one, other = sorted(folder.glob("model-*.safetensors"))[:2]
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def swap_tensors(folder):
    path = next(
        path
        for path in sorted(folder.glob("model-*.safetensors"))
        if any("experts.0" in t for t in read_header(path))
    )
    spans = [span for name, span in read_header(path).items() if name.endswith(("w1.weight", "w3.weight"))][
        :2
    ]
    content = bytearray(path.read_bytes())
    one, other = (content[span.start : span.end] for span in spans)
    for span, data in zip(spans, (other, one), strict=True):
        content[span.start : span.end] = data
    path.write_bytes(content)


def swap_tensors_and_resum(folder):
    swap_tensors(folder)
    resum(folder)


def index_elsewhere(folder):
    data = json.loads((folder / WEIGHTS_INDEX).read_text())
    names = sorted(set(data["weight_map"].values()))
    first = next(iter(data["weight_map"]))
    data["weight_map"][first] = names[-1] if data["weight_map"][first] != names[-1] else names[0]
    (folder / WEIGHTS_INDEX).write_text(json.dumps(data))
    resum(folder)


def edit(name, change):
    def attack(folder):
        path = next(iter(sorted(folder.glob(name))))
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        resum(folder)

    return attack


def lie_of_rank(record):
    tensor = next(entry for entry in record["tensors"].values() if entry["action"] == "laser")
    tensor["rank"] = tensor["rank"] + 1


def lie_of_origin(record):
    entry = next(entry for entry in record["tensors"].values() if entry["action"] == "copy")
    entry["from"][0]["sha256"] = "0" * 64


def circle(folder):
    """Let the record of a source cite a tensor that was copied from it."""
    path = next(folder.glob("provenance/records/mix.expert2*.json"))
    copy = json.loads(path.read_text())
    name, entry = next(iter(copy["tensors"].items()))
    (cited,) = entry["from"]

    def cite(record):
        if record["key"] == cited["key"]:
            here = {"key": copy["key"], "tensor": name, "sha256": entry["sha256"]}
            record["tensors"][cited["tensor"]]["from"] = [here]

    for record in folder.glob("provenance/records/base.*.json"):
        edit(record.relative_to(folder).as_posix(), cite)(folder)


def lie_of_parameters(record):
    record["parameters"]["file"] = "0" * 64


def without_a_tensor(folder):
    """Remove a tensor from the weights and from all that mentions it, and sign everything again."""
    tensor = "model.layers.1.block_sparse_moe.experts.0.w3.weight"
    index = json.loads((folder / WEIGHTS_INDEX).read_text())
    path = folder / index["weight_map"].pop(tensor)
    (folder / WEIGHTS_INDEX).write_text(json.dumps(index))
    digest = sha256_file(path)
    held = load_file(path)
    del held[tensor]
    save_file(held, path, metadata={"format": "pt"})
    [record] = [one for one in (folder / RECORDS).glob("*.json") if digest in one.read_text()]
    content = json.loads(record.read_text().replace(digest, sha256_file(path)))
    del content["tensors"][tensor]
    record.write_text(json.dumps(content))
    sign_again(folder)


def configured(**changes):
    """Return an attack that changes the configuration and signs everything again."""

    def attack(folder):
        edit("config.json", lambda config: config.update(changes))(folder)
        sign_again(folder)

    return attack


def lying(lie, recipe=None):
    """Return an attack of a builder who lies in the lock, and derives all else from that.

    Args:
        lie: Changes the lock, as JSON.
        recipe: Changes the recipe's text, if that is changed, too.
    """

    def attack(folder):
        with lies.told(folder):
            lock = json.loads((folder / LOCK).read_text())
            lie(lock)
            (folder / LOCK).write_text(json.dumps(lock))
            if recipe:
                (folder / RECIPE).write_text(recipe((folder / RECIPE).read_text()))

    return attack


def other_repository(lock):
    lock["sources"]["base"]["uri"] = lock["sources"]["base"]["uri"].replace("herd/base", "evil/copy")


def said_of_sources(**fields):
    """Return an attack that changes what the lock says of all sources; of their configuration, some entries."""

    def lie(lock):
        for source in lock["sources"].values():
            source |= {**fields, "config": {**source["config"], **fields.get("config", {})}}

    return lying(lie)


def rewritten(name, change):
    """Return an attack of a builder who changes a file beside the weights, and derives all else from that."""

    def attack(folder):
        with lies.told(folder):
            content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
            change(content)
            (folder / name).write_text(dump_json(content))

    return attack


def recorded(model, change):
    """Return an attack of a builder who lies in the records of a model, and derives all else from that.

    Args:
        model: The model.
        change: Changes the entry of a tensor that LASER reduced.
    """

    def attack(folder):
        with lies.told(folder):
            for path in folder.glob(f"{RECORDS}/{model}.*.json"):
                record = json.loads(path.read_text())
                for entry in record["tensors"].values():
                    if entry["action"] == "laser":
                        change(entry)
                path.write_text(json.dumps(record))

    return attack


def noise(**said):
    """Return an attack of a builder whose LASER writes noise, and whose record says something to excuse it."""
    tensor = "model.layers.1.block_sparse_moe.experts.0.w2.weight"

    def attack(folder):
        path = folder / json.loads((folder / WEIGHTS_INDEX).read_text())["weight_map"][tensor]
        before = sha256_file(path)
        span, content = read_header(path)[tensor], bytearray(path.read_bytes())
        true = hashlib.sha256(content[span.start : span.end]).hexdigest()
        content[span.start : span.end] = (torch.randn(span.shape) * 0.1).to(torch.bfloat16).view(
            torch.uint8
        ).numpy().tobytes()  # fmt: skip
        path.write_bytes(content)
        drawn = hashlib.sha256(content[span.start : span.end]).hexdigest()
        recorded("cut", lambda entry: entry.update(said))(folder)
        with lies.told(folder):
            for record in folder.glob(f"{RECORDS}/*.json"):
                text = record.read_text().replace(before, sha256_file(path)).replace(true, drawn)
                record.write_text(text)

    return attack


def code_of_a_tokenizer(folder):
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | {"auto_map": {"AutoTokenizer": ["evil/code--tokenizer.T", None]}}))
    sign_again(folder)


def other_prompt(folder):
    path = folder / RECIPE
    path.write_text(path.read_text().replace("- w2", "- w3"))
    resum(folder)


def claim_removed(folder):
    lines = (folder / CLAIMS).read_bytes().splitlines(keepends=True)
    (folder / CLAIMS).write_bytes(b"".join(lines[:-1]))


def claims_gone(folder):
    (folder / CLAIMS).unlink()


def unsigned(folder):
    (folder / SIGNATURE).unlink()


def lineage_short(folder):
    lines = (folder / LINEAGE).read_text().splitlines(keepends=True)
    (folder / LINEAGE).write_text("".join(lines[:-1]))
    resum(folder)


def terabytes(folder):
    path = min(folder.glob("model-*.safetensors"))
    path.write_bytes((1 << 42).to_bytes(8, "little") + path.read_bytes()[8:])
    resum(folder)


def deep_header(folder):
    path = min(folder.glob("model-*.safetensors"))
    head = b"[" * 100_000
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    resum(folder)


def climb(name):
    def attack(folder):
        with (folder / SUMS).open("a") as file:
            file.write(f"{'0' * 64}  {name}\n")

    return attack


def link_out(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc")


def pipe(folder):
    os.mkfifo(folder / "pipe.json")


def replaced_by(name, lead):
    """Put a link, or a pipe if it leads nowhere, in the place of a file."""

    def attack(folder):
        (folder / name).unlink()
        if lead:
            (folder / name).symlink_to(lead)
        else:
            os.mkfifo(folder / name)

    return attack


def beside(name, content=b"x", *, clone=True):
    """Put a file into a folder that is a clone, and was downloaded and copied on desktops besides."""

    def attack(folder):
        if clone:
            copies.leave(folder)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    return attack


def linked(name, target, *, clone=True):
    def attack(folder):
        if clone:
            copies.leave(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)

    return attack


def pointer(folder):
    (folder / "config.json").write_bytes(POINTER)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
KEY = {"with_key": True}
# What is done, how, what catches it (level, check, and what the subject holds), options.
ATTACKS = [
    ("one bit of the weights", flip("model-*.safetensors"), ("files", "sums", "model-"), {}),
    ("one bit of the index", flip(WEIGHTS_INDEX), ("files", "sums", WEIGHTS_INDEX), {}),
    ("one bit of the configuration", flip("config.json"), ("files", "sums", "config.json"), {}),
    ("one bit of the tokenizer", flip("tokenizer.json"), ("files", "sums", "tokenizer.json"), {}),
    ("one bit of the card", flip("README.md"), ("files", "sums", "README.md"), {}),
    ("one bit of a figure", flip("figures/*.svg"), ("files", "sums", "figures/"), {}),
    ("one bit of the recipe", flip(RECIPE), ("files", "sums", RECIPE), {}),
    ("one bit of the lock", flip(LOCK), ("files", "sums", LOCK), {}),
    ("one bit of a record", flip("provenance/records/*.json"), ("files", "sums", "provenance/records/"), {}),
    ("one bit of the lineage", flip(LINEAGE), ("files", "sums", LINEAGE), {}),
    ("one bit of a bill of materials", flip(BOMS["1.7"]), ("files", "sums", BOMS["1.7"]), {}),
    ("one bit of a digest in the checksums", flip(SUMS, 0.001), ("files", "sums", ""), {}),
    ("one bit of a claim's payload", flip(CLAIMS, 0.2), ("claims", "", ""), {}),
    ("one bit of the model's signature", flip(SIGNATURE, 0.5), ("claims", "", ""), {}),
    ("a file added: a pickle", add, ("files", "unlisted", "pytorch_model.bin"), {}),
    ("a file removed", remove, ("files", "sums", "tokenizer.json"), {}),
    ("a file renamed", rename, ("files", "sums", "config.json"), {}),
    ("two shards with their names swapped", swap_files, ("files", "sums", "model-"), {}),
    ("two tensors swapped", swap_tensors, ("files", "sums", "model-"), {}),
    ("the same, with new checksums", swap_tensors_and_resum, ("files", "records", "model-"), {}),
    (
        "an index that points elsewhere, with new checksums",
        index_elsewhere,
        ("files", "index", WEIGHTS_INDEX),
        {},
    ),
    (
        "a record with a false rank",
        edit("provenance/records/cut.*.json", lie_of_rank),
        ("claims", "lineage", LINEAGE),
        {},
    ),
    (
        "a record with a false origin",
        edit("provenance/records/mix.expert1*.json", lie_of_origin),
        ("claims", "origins", "record"),
        {},
    ),
    (
        "two records that cite each other",
        circle,
        ("claims", "steps", "base"),
        {},
    ),
    (
        "a record with a false source file",
        edit("provenance/records/base.*.json", lie_of_parameters),
        ("claims", "steps", "base"),
        {},
    ),
    (
        "a tensor removed from weights, index and record, everything re-signed",
        without_a_tensor,
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "more layers in the configuration than in the weights, everything re-signed",
        configured(num_hidden_layers=3),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a billion experts in the configuration, everything re-signed",
        configured(num_local_experts=10**9),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a billion layers of a type that only transformers knows, everything re-signed",
        configured(model_type="gpt2", n_layer=10**9),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a number that is none in the configuration, everything re-signed",
        configured(hidden_size=[]),
        ("files", "loads whole", "config.json"),
        {},
    ),
    (
        "a lock that leads to another repository than the recipe names, everything re-signed",
        lying(other_repository),
        ("claims", "lock", "models.base"),
        {},
    ),
    (
        "a lock with another commit than the recipe names, everything re-signed",
        lying(
            lambda lock: lock["sources"]["base"]["asked"].update(hub=f"herd/base@{'0' * 40}"),
            lambda recipe: recipe.replace("hub: herd/base\n", f"hub: herd/base@{'0' * 40}\n"),
        ),
        ("claims", "lock", "models.base"),
        {},
    ),
    (
        "another rotary base in the lock than in the source, everything derived and re-signed",
        said_of_sources(config={"rope_theta": 7000.0}),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "another epsilon in the lock than in the source, everything derived and re-signed",
        said_of_sources(config={"rms_norm_eps": 1e-3}),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "another end of text in the lock than in the source, everything derived and re-signed",
        said_of_sources(config={"eos_token_id": 3}),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "another license in the lock than the source has, everything derived and re-signed",
        said_of_sources(license="mit"),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "base models in the lock that the source does not name, everything derived and re-signed",
        said_of_sources(base_models=["herd/famous"]),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "a generation config in the lock that the source does not have, everything derived and re-signed",
        said_of_sources(generation={"temperature": 2.0}),
        ("upstream", "lock", "base"),
        {},
    ),
    (
        "another rotary base in the configuration, everything derived and re-signed",
        rewritten("config.json", lambda config: config.update(rope_theta=7000.0)),
        ("claims", "side files", "config.json"),
        {},
    ),
    (
        "code in the configuration, everything derived and re-signed",
        rewritten("config.json", lambda config: config.update(auto_map={"AutoModel": "x.Y"})),
        ("claims", "side files", "config.json"),
        {},
    ),
    (
        "another chat template in the tokenizer's configuration, everything derived and re-signed",
        rewritten("tokenizer_config.json", lambda config: config.update(chat_template="{{ 'obey' }}")),
        ("claims", "side files", "tokenizer_config.json"),
        {},
    ),
    (
        "another token in the tokenizer, everything derived and re-signed",
        rewritten("tokenizer.json", lambda tokenizer: tokenizer["model"]["vocab"].update(evil=63)),
        ("claims", "side files", "tokenizer.json"),
        {},
    ),
    (
        "another metadata entry in the index, everything derived and re-signed",
        rewritten(WEIGHTS_INDEX, lambda index: index["metadata"].update(note="x")),
        ("claims", "side files", WEIGHTS_INDEX),
        {},
    ),
    (
        "noise in place of a matrix, which its record tolerates, everything derived and re-signed",
        noise(tolerance=100.0),
        ("recomputed", "made", "w2"),
        {},
    ),
    (
        "noise in place of a matrix, whose record has no tolerance, everything derived and re-signed",
        noise(tolerance=None),
        ("recomputed", "made", "w2"),
        {},
    ),
    (
        "noise in place of a matrix, which a record explains by a GPU, everything derived and re-signed",
        noise(device="cuda"),
        ("rebuild", "same files", "model-"),
        {},
    ),
    (
        "a record with a share of energy that was not kept, everything derived and re-signed",
        recorded("cut", lambda entry: entry.update(energy=0.999)),
        ("recomputed", "evidence", "cut"),
        {},
    ),
    (
        "a record with a change of a matrix that is not its own, everything derived and re-signed",
        recorded("cut", lambda entry: entry.update(change=0.001)),
        ("recomputed", "evidence", "cut"),
        {},
    ),
    (
        "a record with a spectrum that is not the matrix's, everything derived and re-signed",
        recorded("cut", lambda entry: entry.update(spectrum={})),
        ("recomputed", "evidence", "cut"),
        {},
    ),
    (
        "a record with a tolerance that was not computed, everything derived and re-signed",
        recorded("cut", lambda entry: entry.update(tolerance=100.0)),
        ("recomputed", "evidence", "cut"),
        {},
    ),
    (
        "a record that calls a reduced matrix zeros, everything derived and re-signed",
        recorded("cut", lambda entry: entry.update(action="zeros")),
        ("claims", "steps", "cut"),
        {},
    ),
    ("another prompt in the recipe", other_prompt, ("claims", "keys", "mix"), {}),
    ("a lineage without one of the tensors", lineage_short, ("claims", "lineage", LINEAGE), {}),
    ("a claim removed", claim_removed, ("claims", "claims", "https://cyclonedx.org/bom"), {}),
    ("all claims removed", claims_gone, ("claims", "level", ""), {}),
    ("the model's signature removed", unsigned, ("claims", "signature", SIGNATURE), {}),
    ("everything re-signed with another key", sign_again, ("claims", "signature", SIGNATURE), KEY),
    ("a header that declares terabytes", terabytes, ("files", "records", "model-"), {}),
    ("a header of a hundred thousand brackets", deep_header, ("files", "records", "model-"), {}),
    ("a path that leaves the folder", climb("../../secret"), ("files", "release", ""), {}),
    ("an absolute path", climb("/etc/passwd"), ("files", "release", ""), {}),
    ("a file listed twice", climb("config.json"), ("files", "release", ""), {}),
    ("a link to a folder outside", link_out, ("files", "unlisted", "config.json"), {}),
    (
        "a link to a file beside it",
        replaced_by("config.json", RECIPE),
        ("files", "unlisted", "config.json"),
        {},
    ),
    ("a pipe that never ends", pipe, ("files", "unlisted", "pipe.json"), {}),
    *(
        (what, replaced_by(name, lead), ("files", "unlisted", name), {})
        for what, name, lead in (
            ("a signature that is a link to a private key", SIGNATURE, "../key"),
            ("a public key that is a device", PUBLIC_KEY, "/dev/zero"),
            ("claims that are a pipe", CLAIMS, None),
        )
    ),
    *(
        (what, attack, ("files", "unlisted", name), {})
        for what, name, attack in (
            ("a hook in a clone's `.git`", ".git/hooks/", beside(".git/hooks/post-checkout")),
            (
                "a hook of Git LFS with one more command",
                ".git/hooks/",
                beside(".git/hooks/post-checkout", copies.HOOK_OF_LFS + b"./run\n"),
            ),
            ("weights in a clone's `.git`", ".git/x.safetensors", beside(".git/x.safetensors")),
            (
                "a setting in a clone's `.git` that runs a program",
                ".git/config",
                beside(".git/config", b"[core]\n\tfsmonitor = ./run\n"),
            ),
            (
                "a filter in a clone's `.git` that is not Git LFS's",
                ".git/config",
                beside(".git/config", copies.CONFIG_OF_GIT.replace(b"git-lfs clean", b"./run")),
            ),
            ("a link in a clone's `.git`", ".git/refs/heads/x", linked(".git/refs/heads/x", "../../config")),
            ("a `.git` that is a link", ".git", linked(".git", "/etc", clone=False)),
            ("a `.git` that is a file", ".git", beside(".git", b"gitdir: /tmp/x", clone=False)),
            ("a `.git` that git did not make", ".git/index", beside(".git/index", clone=False)),
            ("a `.GIT`", ".GIT/HEAD", beside(".GIT/HEAD", clone=False)),
            (
                "code in the cache of a download",
                ".cache/huggingface/download/x.py",
                beside(".cache/huggingface/download/x.py"),
            ),
            (
                "weights under the name of metadata",
                ".cache/huggingface/download/x.metadata",
                beside(".cache/huggingface/download/x.metadata", bytes(70_000)),
            ),
            (
                "weights under the name of a branch in a clone's `.git`",
                ".git/refs/heads/x.safetensors",
                beside(".git/refs/heads/x.safetensors"),
            ),
            (
                "weights in the cache of a download",
                ".cache/huggingface/model.safetensors",
                beside(".cache/huggingface/model.safetensors"),
            ),
            ("another file named as one of macOS", "._x.safetensors", beside("._x.safetensors")),
            *(
                (f"a `{name}`", name, beside(name, clone=False))
                for name in (
                    "LICENSE.safetensors",
                    "LICENSE.gguf",
                    "LICENSE.bin",
                    "LICENSE.py",
                    "LICENSE.PY",
                    "NOTICE.safetensors",
                    ".gguf",
                    ".bin",
                    ".eval_results/x.py",
                    "figures/x.png.safetensors",
                )
            ),
        )
    ),
    (
        "code named in the configuration, everything re-signed",
        configured(auto_map={"AutoModelForCausalLM": "evil/code--model.Model"}),
        ("files", "remote code", "config.json"),
        {},
    ),
    (
        "code named in the tokenizer's configuration, everything re-signed",
        code_of_a_tokenizer,
        ("files", "remote code", "tokenizer_config.json"),
        {},
    ),
    ("a pointer of Git LFS in place of a file", pointer, ("files", "sums", "config.json"), {}),
]


def caught(found, by):
    return [
        one
        for one in found
        if one.outcome is Outcome.FAILED
        and (one.level, one.check) in {(by[0], by[1]), (by[0], by[1] or one.check)}
        and by[2] in one.subject
    ]


def test_the_release_itself_passes_all_levels(stage):
    for place in (stage.folder, REPO):
        if place == REPO:
            stage.hub.add_repo(REPO, files_of(stage.folder))
        found = findings(place, "equality", key=stage.root / "key.pub", seed=1)
        assert [one for one in found if one.outcome is not Outcome.PASSED] == []
    assert [
        one
        for one in findings(stage.folder, "equality", sample_bytes=None)
        if one.outcome is not Outcome.PASSED
    ] == []


@pytest.mark.parametrize(("what", "attack", "by", "options"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_attack_on_a_folder(stage, forger, what, attack, by, options):
    attack(forger)
    level = by[0] if list(LEVELS).index(by[0]) > list(LEVELS).index("claims") else "claims"
    found = findings(forger, level, **({"key": stage.root / "key.pub"} if options else {}))
    assert status(found) == 8
    assert caught(found, by), [
        (one.level, one.check, one.subject) for one in found if one.outcome is not Outcome.PASSED
    ]


def test_whether_a_model_loads_is_unverified_where_transformers_does_not_have_its_type(forger):
    configured(model_type="of next year")(forger)
    [found] = [one for one in findings(forger) if one.check == "loads whole"]
    assert found.outcome is Outcome.UNVERIFIED
    assert found.detail == "transformers has no language model of type 'of next year'"


def test_what_clones_downloads_and_desktops_leave_is_ignored_in_one_line_each(stage, forger):
    copies.leave(forger)
    found = findings(forger, key=stage.root / "key.pub")
    assert [one for one in found if one.outcome is not Outcome.PASSED] == []
    assert [one.subject for one in found if one.check == "unlisted"] == [
        ".cache/huggingface", ".git", ".gitattributes", "files of macOS and Windows",
    ]  # fmt: skip


def test_a_clone_by_git_itself_is_ignored(stage, tmp_path):
    def git(*arguments):
        subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@a", *arguments), check=True)

    git("init", "-q", str(stage.copy(tmp_path / "origin")))
    git("-C", str(tmp_path / "origin"), "add", "-A")
    git("-C", str(tmp_path / "origin"), "commit", "-qm", "Release")
    git("clone", "-q", f"file://{tmp_path}/origin", str(tmp_path / "clone"))
    assert status(findings(tmp_path / "clone", key=stage.root / "key.pub")) == 0


def test_a_pointer_of_git_lfs_comes_with_advice(forger):
    path = next(forger.glob("model-*.safetensors"))
    path.unlink()
    path.write_bytes(POINTER)
    assert any(
        one.file == path.name and one.check == "sums" and "git lfs pull" in one.detail
        for one in findings(forger, "files")
    )


# --- on the Hub ---------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A stage of a test's own, whose release lies on its Hub."""
    monkeypatch.setattr(failure, "WAITS_S", (0.01,) * len(failure.WAITS_S))
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        made = Stage(hub, tmp_path)
        hub.add_repo(REPO, files_of(made.folder))
        made.set_time_limit = partial(monkeypatch.setattr, transport, "ANSWER_S")
        yield made


def altered(blob):
    content = bytearray(blob.content)
    content[-1] ^= 1
    return Blob(bytes(content), lfs=True)


def weights_in(stage, repo):
    files = stage.hub.repos[repo].commits[stage.hub.repos[repo].branches["main"]].files
    return {name: blob.sha256 for name, blob in files.items() if name.endswith(".safetensors")}


def source_altered(stage):
    for sha256 in weights_in(stage, "herd/base").values():
        stage.hub.lfs[sha256] = altered(stage.hub.lfs[sha256])


def release_altered(stage):
    base = {digest for name in ("herd/base", "herd/tuned") for digest in weights_in(stage, name).values()}
    for sha256 in weights_in(stage, REPO).values():
        if sha256 not in base:
            stage.hub.lfs[sha256] = altered(stage.hub.lfs[sha256])


def squashed(stage):
    stage.hub.commit("herd/base", {"config.json": b"{}"})
    stage.hub.repos["herd/base"].squash()


def only_proposed(stage):
    """Let nothing but a pull request lead to the commit that the release is made from."""
    repo = stage.hub.repos["herd/base"]
    repo.pull_requests["1"] = repo.branches["main"]
    squashed(stage)


def merged_long_ago(stage):
    stage.hub.page_size = 2
    for number in range(5):
        stage.hub.commit("herd/base", {"notes.md": str(number).encode()})


def moved_on(stage):
    stage.hub.commit("herd/base", {"config.json": b"{}"})


def renamed(stage):
    repo = stage.hub.repos.pop("herd/base")
    repo.name = "herd/base-2"
    stage.hub.repos["herd/base-2"] = repo
    stage.hub.moved["herd/base"] = "herd/base-2"


def deleted(stage):
    del stage.hub.repos["herd/base"]


def adapter_deleted(stage):
    del stage.hub.repos["herd/adapter"]


def adapter_squashed(stage):
    stage.hub.commit("herd/adapter", {"adapter_config.json": b"{}"})
    stage.hub.repos["herd/adapter"].squash()


def adapter_altered(stage):
    """The commit stays, and the Hub's description of it is another one."""
    repo = stage.hub.repos["herd/adapter"]
    files = repo.commits[repo.branches["main"]].files
    files["adapter_model.safetensors"] = altered(files["adapter_model.safetensors"])


def gated(stage):
    stage.hub.repos["herd/base"].gated = "manual"


def lying_sizes(stage):
    digest = next(iter(weights_in(stage, REPO).values()))
    content = stage.hub.lfs[digest].content
    stage.hub.lfs[digest] = Blob(content + b"more", lfs=True)


def nothing(stage):
    pass


def fault(kind, times=1000, **more):
    def attack(stage):
        stage.hub.fault("GET", r"/lfs/|/resolve/", kind, times, **more)

    return attack


def endless(stage):
    stage.set_time_limit(0.5)  # here alone: a slow machine is not to look like an attack
    fault("endless")(stage)


def source_fault(kind, **more):
    """Of the source, only what comes of its weights is wrong, or does not come."""

    def attack(stage):
        weights = "|".join(weights_in(stage, "herd/base").values())
        stage.hub.fault("GET", f"/lfs/({weights})", kind, 1000, **more)

    return attack


def source_wrong_then_silent(stage):
    """One request gets a wrong answer; all others, and its own further tries, get none."""
    weights = "|".join(weights_in(stage, "herd/base").values())
    stage.hub.fault("GET", f"/lfs/({weights})", "short", 1)
    source_fault("drop")(stage)


OTHER_RANGE = {"Content-Range": "bytes 8-15/16"}
WRONG = ("equality", "equal", "")
# What is done; how; to which level it is verified; the exit status; what says so.
ON_THE_HUB = [
    ("nothing", nothing, "equality", 0, None),
    ("a source with a newer commit", moved_on, "equality", 0, None),
    ("a source with many newer commits", merged_long_ago, "upstream", 0, None),
    (
        "a source whose commit is in a pull request that nobody merged",
        only_proposed,
        "upstream",
        8,
        ("upstream", "history", "base"),
    ),
    ("a source that was renamed", renamed, "equality", 0, None),
    ("a source whose history was squashed", squashed, "upstream", 8, ("upstream", "pinned", "base")),
    ("a source that was deleted", deleted, "upstream", 9, ("upstream", "pinned", "base")),
    (
        "an adapter that was deleted",
        adapter_deleted,
        "upstream",
        9,
        ("upstream", "pinned", "adapter of folded"),
    ),
    (
        "an adapter whose history was squashed",
        adapter_squashed,
        "upstream",
        8,
        ("upstream", "pinned", "adapter of folded"),
    ),
    (
        "an adapter with other weights",
        adapter_altered,
        "upstream",
        8,
        ("upstream", "pinned", "adapter of folded"),
    ),
    ("a source that has become gated", gated, "equality", 9, ("equality", "equal", "")),
    (
        "a source that serves other bytes than it describes",
        source_altered,
        "equality",
        8,
        ("equality", "equal", ""),
    ),
    ("a source that changes a byte of each answer", source_fault("corrupt"), "equality", 8, WRONG),
    ("a source that sends less than was asked for", source_fault("short"), "equality", 8, WRONG),
    ("a source that sends more than was asked for", source_fault("long"), "equality", 8, WRONG),
    ("a source that sends another range", source_fault("header", headers=OTHER_RANGE), "equality", 8, WRONG),
    ("a source whose answers are no HTTP", source_fault("garbage"), "equality", 8, WRONG),
    ("a source that answers wrongly once, then no more", source_wrong_then_silent, "equality", 8, WRONG),
    ("a source that cuts every answer", source_fault("cut"), "equality", 9, WRONG),
    ("a source that does not answer", source_fault("drop"), "equality", 9, WRONG),
    (
        "a release that serves other bytes than it describes",
        release_altered,
        "equality",
        8,
        ("equality", "equal", ""),
    ),
    ("a server that reports false sizes", lying_sizes, "files", 8, ("files", "records", "model-")),
    ("a server that corrupts what it sends", fault("corrupt"), "claims", 8, ("files", "release", "")),
    ("a server that cuts every response", fault("cut"), "claims", 9, ("files", "release", "")),
    ("a server whose responses never end", endless, "claims", 9, ("files", "release", "")),
    ("a server that is overloaded", fault(503), "claims", 9, ("files", "release", "")),
]


@pytest.mark.parametrize(
    ("what", "attack", "level", "expected", "by"), ON_THE_HUB, ids=[row[0] for row in ON_THE_HUB]
)
def test_attack_on_the_hub(published, what, attack, level, expected, by):
    attack(published)
    found = findings(REPO, level, sample_bytes=None)
    assert status(found) == expected, [one for one in found if one.outcome is not Outcome.PASSED]
    if by:
        bad = [one for one in found if one.outcome is not Outcome.PASSED and (one.level, one.check) == by[:2]]
        assert any(by[2] in one.subject for one in bad), bad


def test_a_squashed_source_s_weights_are_found_where_they_are_still(published):
    squashed(published)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert "still has all pinned weights, byte for byte" in bad.detail


def test_a_description_of_another_commit_fails_and_no_description_does_not(published, monkeypatch):
    other = published.hub.repos["herd/tuned"].find("main")
    find = type(published.hub.repos["herd/base"]).find

    def lie(repo, revision):
        return other if repo.name == "herd/base" else find(repo, revision)

    monkeypatch.setattr("pytest_local_hub.store.Repo.find", lie)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert (bad.check, bad.subject, bad.outcome) == ("pinned", "base", Outcome.FAILED)
    monkeypatch.setattr("pytest_local_hub.store.Repo.find", find)
    published.hub.fault("GET", "/api/models/herd/base", "drop", 1000)
    [bad] = [one for one in findings(REPO, "upstream") if one.outcome is not Outcome.PASSED]
    assert (bad.check, bad.subject, bad.outcome) == ("pinned", "base", Outcome.UNVERIFIED)


def test_what_differs_is_named_with_both_digests(published):
    source_altered(published)
    found = [one for one in findings(REPO, "equality", sample_bytes=None) if one.outcome is Outcome.FAILED]
    # the last tensor of each of base's two files, wherever the release holds it
    assert {one.source.partition("#")[2].partition(":")[0] for one in found} == set(
        weights_in(published, "herd/base")
    )
    for one in found:
        assert re.fullmatch("[0-9a-f]{64}", one.expected)
        assert re.fullmatch("[0-9a-f]{64}", one.found)
        assert one.file in weights_in(published, REPO)
        assert one.tensor


def test_bytes_that_differ_are_told_where_others_of_their_tensor_cannot_be_had(published, monkeypatch):
    name = min(weights_in(published, "herd/base"))
    largest = max(
        read_header(published.root / "base" / name).values(), key=lambda span: span.end - span.start
    )
    assert largest.end - largest.start > 2048
    content = bytearray((published.root / "base" / name).read_bytes())
    content[largest.end - 1] ^= 1
    published.hub.lfs[weights_in(published, "herd/base")[name]] = Blob(bytes(content), lfs=True)
    read = HubSubject.read_range

    def without_the_first(subject, name, start, stop):
        first = start and start in {span.start for span in subject.header(name).values()}
        if subject.repo == "herd/base" and first:
            raise SourceError("not now")
        return read(subject, name, start, stop)

    monkeypatch.setattr(HubSubject, "read_range", without_the_first)
    monkeypatch.setattr(equality, "PIECE_BYTES", 1024)
    found = findings(REPO, "equality", sample_bytes=None)
    assert status(found) == 8
    assert any("differ" in one.detail for one in found if one.outcome is Outcome.FAILED)
    assert any("not now" in one.detail for one in found if one.outcome is Outcome.UNVERIFIED)


def test_no_token_in_anything_that_is_written(published, monkeypatch, tmp_path, capsys):
    from herdbook.cli.main import main

    monkeypatch.setenv("HF_TOKEN", published.hub.token)
    gated(published)
    published.hub.fault("GET", "/lfs/", 403, 3, message="no, {token}")
    outputs = [tmp_path / f"found.{kind}" for kind in ("json", "junit", "summary", "vsa")]
    options = [part for path in outputs for part in (f"--{path.suffix[1:]}", str(path))]
    main(["verify", REPO, "--level", "equality", *options])
    seen = capsys.readouterr()
    for text in (seen.out, seen.err, *(path.read_text() for path in outputs)):
        assert published.hub.token not in text


def test_no_weights_are_downloaded_up_to_upstream(published):
    published.hub.forget()
    assert status(findings(REPO, "upstream")) == 0
    sent = sum(r.bytes_sent for r in published.hub.requests if r.path.startswith("/lfs/") and r.range)
    shards = [weights_in(published, repo) for repo in (REPO, "herd/base", "herd/tuned", "herd/adapter")]
    weights = sum(len(published.hub.lfs[digest].content) for shard in shards for digest in shard.values())
    headers = sum(map(len, shards)) * reader.FIRST_BYTES
    assert sent <= min(headers, weights)  # these tiny files are within what is asked of a header


def tables():
    """Return the documentation's tables."""
    lines = ["| change to a folder | caught by |", "| --- | --- |"]
    lines += [
        f"| {what}{' (with `--key`)' if options else ''} | {by[0]}{f': {by[1]}' if by[1] else ''} |"
        for what, _, by, options in ATTACKS
    ]
    lines += [
        "",
        "| change on the Hub | level | exit status | reported by |",
        "| --- | --- | ---: | --- |",
    ]
    lines += [
        f"| {what} | {level} | {expected} | {f'{by[0]}: {by[1]}' if by else ''} |"
        for what, _, level, expected, by in ON_THE_HUB
    ]
    return "\n".join(lines)


def test_the_documentation_has_these_tables():
    assert tables() in DOCS.read_text(encoding="utf-8")
