"""Attacks by builders who lie in results, bills, headers and evidence, and sign everything. The table is in docs/verify.md.

The release has every part (``support.whole``); everything else is derived from the lie by the tool's own code.
"""

import json
import shutil
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client

from herdbook.files import dump_json
from herdbook.layout import BOMS, EVALUATIONS, GENERATION_CONFIG, LOCK, RECORDS, ROUTING, SEARCHES
from herdbook.release.finding import Outcome
from support import fields, lies, whole
from support.verification import findings

pytestmark = pytest.mark.slow  # the fast tests take a sample of all such lies: test_mutations
DOCS = Path(__file__).parents[2] / "docs/verify.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        whole.write_sources(root, hub)
        yield whole.build(root, lies.KEY, **whole.SECTIONS)


def saying(name, change):
    """Return an attack that changes the first file of a name, and derives all else from that."""

    def attack(folder):
        with lies.told(folder):
            path = min(folder.glob(name))
            content = json.loads(path.read_text())
            change(content)
            path.write_text(dump_json(content))

    return attack


def other_device(record):
    for entry in record["tensors"].values():
        if entry["action"] == "laser":
            entry["device"] = "cuda"


def template_and_device(folder):
    """Change the chat template, and let a record name a GPU, which explains no template."""
    saying(f"{RECORDS}/cut.*.json", other_device)(folder)
    with lies.told(folder):
        (folder / "chat_template.jinja").write_text("{{ evil }}")


def bill(folder):
    path = folder / BOMS["1.7"]
    content = json.loads(path.read_text())
    del content["components"][0]
    path.write_text(dump_json(content))
    lies.sign(folder, fields.plan_of(folder))


def header(folder):
    """Let the header of a shard say that the weights are of another framework."""
    name = next(folder.glob("model-00001-of-*.safetensors")).name
    fields.change(folder, fields.Field(name, ("header",), ("header",)), None)


ROWS = (
    ("a bill of materials without a source", bill, ("claims", "bills")),
    ("another framework in the header of a shard", header, ("claims", "side files")),
    (
        "a measurement with other settings than the recipe's",
        saying(f"{EVALUATIONS}/*.json", lambda result: result["settings"].update(limit=400)),
        ("claims", "results"),
    ),
    (
        "a measurement of other weights",
        saying(
            f"{EVALUATIONS}/*.json",
            lambda result: result["weights"].update({min(result["weights"]): "0" * 64}),
        ),
        ("claims", "results"),
    ),
    (
        "a search that chose what its trials do not show",
        saying(f"{SEARCHES}/*.json", lambda result: result["trials"][0].update(kept=False)),
        ("recomputed", "results"),
    ),
    (
        "a report on routers that hides a problem",
        saying(f"{ROUTING}/*.json", lambda report: report["rows"][0].update(cosine=0.0)),
        ("recomputed", "results"),
    ),
    (
        "a record that says less of a GGUF than follows",
        saying(f"{RECORDS}/*.gguf.json", lambda record: record.update(bits_per_weight=16.0)),
        ("claims", "results"),
    ),
    (
        "a record that says something else of a tensor of a GGUF than comes out",
        saying(f"{RECORDS}/*.gguf.json", lambda record: record["tensors"][0].update(sources=["x"])),
        ("recomputed", "gguf"),
    ),
    (
        "another scale of an adapter in the lock than in its repository",
        saying(LOCK, lambda lock: lock["adapters"]["folded"]["config"].update(lora_alpha=64)),
        ("upstream", "lock"),
    ),
    (
        "another generation config than the source has",
        saying(GENERATION_CONFIG, lambda config: config.update(temperature=2.0)),
        ("claims", "side files"),
    ),
    ("another chat template, and a record that names a GPU", template_and_device, ("claims", "side files")),
)


@pytest.mark.parametrize(("what", "attack", "by"), ROWS, ids=[row[0] for row in ROWS])
def test_attack(made, tmp_path, what, attack, by):
    folder = shutil.copytree(made, tmp_path / "copy")
    attack(folder)
    found = [one for one in findings(folder, by[0], sample_bytes=None) if one.outcome is Outcome.FAILED]
    assert found, what
    assert (found[0].level, found[0].check) == by, found


def table():
    rows = [
        f"| {what}, everything derived and re-signed | {level}: {check} |" for what, _, (level, check) in ROWS
    ]
    return "\n".join(["| lie in results, bills, headers and evidence | caught by |", "| --- | --- |", *rows])


def test_the_documentation_has_this_table():
    assert table() in DOCS.read_text(encoding="utf-8")
