"""The command, its reports, and what docs/audit.md shows of them."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from gguf.constants import GGMLQuantizationType as Kind
from safetensors.torch import load_file

from herdbook.audit.audit import Audit
from herdbook.cli.main import main
from herdbook.release.finding import Options, Outcome
from herdbook.release.hub_subject import HubSubject
from herdbook.verify.equality import BLOCK_BYTES
from support import tiny
from support.gguf_files import write_gguf
from support.strangers import MODELS, config_of, cut_ranks, mixture, model_config

DOCS = Path(__file__).parents[3] / "docs/audit.md"


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
    commit = stage.hub.repos[name].branches["main"]
    compared = "is compared with the models that its own mergekit configuration names"
    assert lines[0] == f"audit: {name}@{commit} {compared}"
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


def test_docs_tell_every_check():
    """docs/audit.md has a row for each check that there is."""
    text = DOCS.read_text(encoding="utf-8")
    for path in (DOCS.parents[1] / "src/herdbook/audit").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "= Check(LEVEL, " in line:
                name = line.split('"')[1]
                assert f"| `{name}` |" in text, name
