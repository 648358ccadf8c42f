"""Builders who lie: in a record, the lock, the recipe or a file beside the weights; most derive all else from that."""

import hashlib
import json

import torch

from herdbook.files import dump_json, sha256_file
from herdbook.layout import LINEAGE, LOCK, RECIPE, RECORDS, WEIGHTS_INDEX
from herdbook.weights.checkpoint import read_header
from support import lies
from support.attacks.forging import edit, sign_again


def lie_of_rank(record):
    tensor = next(entry for entry in record["tensors"].values() if entry["action"] == "laser")
    tensor["rank"] = tensor["rank"] + 1


def lie_of_origin(record):
    entry = next(entry for entry in record["tensors"].values() if entry["action"] == "copy")
    entry["from"][0]["sha256"] = "0" * 64


def audited_copy(record):
    next(entry for entry in record["tensors"].values() if entry["action"] == "copy")["audited"] = True


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


def twice(name, key):
    """Return an attack that lists a key of a JSON file twice; some programs read the first value, others the last."""

    def attack(folder):
        path = next(iter(sorted(folder.glob(name))))
        path.write_text(path.read_text().replace("{", f'{{"{key}": "else",', 1))

    return attack


def signed_again(attack):
    """Return the same attack, with checksums and signatures that fit."""

    def forged(folder):
        attack(folder)
        sign_again(folder)

    return forged


def other_prompt(folder):
    path = folder / RECIPE
    path.write_text(path.read_text().replace("- w2", "- w3"))
    lies.write_sums(folder)


def lineage_short(folder):
    lines = (folder / LINEAGE).read_text().splitlines(keepends=True)
    (folder / LINEAGE).write_text("".join(lines[:-1]))
    lies.write_sums(folder)


CASES = [
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
        "a record with an entry that no step writes, everything signed again",
        signed_again(edit("provenance/records/cut.*.json", lambda record: record.update(audited=True))),
        ("claims", "steps", "cut"),
        {},
    ),
    (
        "a copied tensor with an entry that no step writes, everything signed again",
        signed_again(edit("provenance/records/mix.expert1*.json", audited_copy)),
        ("claims", "steps", "mix"),
        {},
    ),
    (
        "a key twice in one object of a record, everything signed again",
        signed_again(twice("provenance/records/cut.*.json", "operation")),
        ("files", "records", ""),
        {},
    ),
    (
        "a key twice in one object of the lock, everything signed again",
        signed_again(twice(LOCK, "sources")),
        ("claims", "lock", ""),
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
]
