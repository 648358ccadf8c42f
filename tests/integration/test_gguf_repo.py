"""Quantized files in a repository of their own: made, published and verified beside the release that they were made from."""

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import pytest
import yaml
from huggingface_hub import HfApi
from pytest_local_hub import LocalHub, client

from herdbook.cli.main import main
from herdbook.errors import StepError
from herdbook.export.archive import pack
from herdbook.layout import SUMS
from herdbook.plan.edition import Edition
from herdbook.release.finding import Outcome
from herdbook.release.subject import FolderSubject
from herdbook.release.sums import parse_sums
from herdbook.steps.card.step import render_card
from support import lies, quantized, tiny
from support.publishing import at, snapshot, titles
from support.verification import findings, status

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
TEXT = {"windows": 30, "tokens": 8}
SECTIONS = {
    "release": {"repo": "keeper/Tiny"},
    "quantize": {
        "methods": ["Q8_0", "Q4_K_M"],
        "imatrix": {"texts": ["seen"], "floor": 1, "below": "mean"},
        "loss": {"texts": ["held"]},
    },
    "calibration": {
        "seen": {"data": ["seen.jsonl"], "split": "train", **TEXT},
        "held": {"data": ["held.jsonl"], "split": "validation", **TEXT},
    },
    "publish": {"tag": "v1", "gguf_repo": "keeper/Tiny-GGUF"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The plan of a build with both releases, and the Hub of its sources."""
    root = tmp_path_factory.mktemp("gguf-repo")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch, hub.token)
        for seed, name in enumerate(("base", "tuned")):
            folder = tiny.write_model(root / name, seed=seed, head_dim=8)
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
            hub.add_repo(f"herd/{name}", files, license="apache-2.0")
        for seed, name in enumerate(("seen", "held")):
            lines = [json.dumps({"text": " ".join(f"w{seed + n % 9}" for n in range(400))})] * 2
            (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        recipe = tiny.write_recipe(root / "r.yaml", MODELS, **SECTIONS)
        patch.setattr("herdbook.steps.quantize.vocabulary.check_vocabulary", lambda _: None)
        plan = tiny.build(recipe, root / "results")
        quantized.add_to(plan, quantized.size_label(experts=2))
        for one in plan.editions:
            render_card(one, one.layout.card_folder)
            tiny.release(one, lies.KEY)
        yield plan, hub


def names(plan):
    return set(parse_sums((plan.layout.release_folder / SUMS).read_text(), SUMS))


def test_each_release_has_its_files_and_both_are_verified(made):
    weights, gguf = made[0].editions
    assert gguf.layout.release_folder == weights.layout.root / "Tiny-GGUF/release"
    large = {name for name in names(gguf) if name.endswith((".gguf", ".safetensors"))}
    assert large == {"Tiny.Q8_0.gguf", "Tiny.Q4_K_M.gguf", "Tiny.imatrix.gguf"}
    assert not [name for name in names(weights) if "gguf" in name or "losses" in name]
    for one in (weights, gguf):
        found = findings(one.layout.release_folder)
        assert status(found) == 0, [each for each in found if each.outcome is not Outcome.PASSED]


def test_its_card_leads_to_the_weights_and_has_its_own_commands(made):
    weights, gguf = made[0].editions
    card = (gguf.layout.release_folder / "README.md").read_text()
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["base_model"] == "keeper/Tiny"
    assert data["base_model_relation"] == "quantized"
    assert data["quantized_by"] == "keeper"
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "text-generation"
    assert {"gguf", "imatrix"} <= set(data["tags"])
    for file in ("Tiny.Q8_0.gguf", "Tiny.Q4_K_M.gguf"):
        (row,) = [line for line in card.splitlines() if line.startswith("| [") and f"({file})" in line]
        assert "±" in row
    for command in (
        "llama-server -hf keeper/Tiny-GGUF:Q8_0",  # the larger one, since it is small enough
        "ollama run hf.co/keeper/Tiny-GGUF:Q8_0",
        'hf download keeper/Tiny-GGUF --include "*Q8_0*"',
    ):
        assert command in card
    other = (weights.layout.release_folder / "README.md").read_text()
    assert "[keeper/Tiny-GGUF](<https://huggingface.co/keeper/Tiny-GGUF>)" in other
    assert "llama-server" not in other
    assert "Tiny.Q4_K_M.gguf" not in other


class Killed(BaseException):
    """What ends a process at once."""


def run(plan, *arguments):
    """The exit status and the output of `herdbook publish`."""
    words = ["publish", "--recipe", plan.recipe_path, "--results", plan.layout.root, *arguments]
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main([str(word) for word in words])
    return code, output.getvalue()


@pytest.fixture(scope="module")
def published(made):
    """What a dry run showed; both releases are published, by a run that is killed between the two and one after it."""
    plan, hub = made
    shown = run(plan, "--dry-run")
    assert not {one.repo for one in plan.editions} & hub.repos.keys()
    real = HfApi.create_commit

    def create_commit(self, repo_id, *arguments, **options):
        if repo_id == "keeper/Tiny-GGUF":
            raise Killed
        return real(self, repo_id, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(HfApi, "create_commit", create_commit)
        run(plan)
    assert titles(hub, "keeper/Tiny")[-1].startswith("Claim")
    assert titles(hub, "keeper/Tiny-GGUF") == ["initial commit"]
    done = run(plan)
    assert done[0] == 0, done[1]
    return shown


def test_both_are_shown_then_published_once(made, published):
    plan, hub = made
    code, text = published
    assert code == 0, text
    for one in plan.editions:
        assert f"{hub.url}/{one.repo} (public, to be created)" in text
        held = at(hub, "v1", one.repo)
        del held[".gitattributes"]
        folder = one.layout.release_folder
        assert held == {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        note = json.loads(one.layout.publication.read_text())
        assert (note["repo"], note["commit"]) == (one.repo, hub.repos[one.repo].tags["v1"])
        assert titles(hub, one.repo)[1] == f"Release {one.title} v1"
    before = snapshot(hub)
    code, text = run(plan)
    assert code == 0
    assert text.count("already contains the release") == 2
    assert snapshot(hub) == before
    assert titles(hub, "keeper/Tiny")[1:] == [
        "Release Tiny v1",
        f"Claim: published as {hub.repos['keeper/Tiny'].tags['v1']}",
    ]


@pytest.mark.slow
def test_published_files_are_verified_against_the_published_weights(made, published):
    found = findings("keeper/Tiny-GGUF")
    assert status(found) == 0, [one for one in found if one.outcome is not Outcome.PASSED]
    for sample in (None, 10_000):
        found = findings("keeper/Tiny-GGUF", "recomputed", sample_bytes=sample)
        derived = [one for one in found if one.check == "gguf"]
        assert [one.outcome for one in derived] == [Outcome.PASSED] * 2, derived
        rest = {(one.level, one.check) for one in found if one.outcome is not Outcome.PASSED}
        assert rest == {("equality", "equal"), ("recomputed", "made")}
    assert status(findings("keeper/Tiny", "recomputed", sample_bytes=None)) == 0


def test_an_altered_file_is_found_by_the_published_weights(made, published, tmp_path):
    """A builder who alters a byte, and derives all else from that, is found by those who derive the file."""
    folder = shutil.copytree(made[0].of(Edition.GGUF).layout.release_folder, tmp_path / "copy")

    def change(path):
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.unlink()
        path.write_bytes(content)

    quantized.told(folder, change)
    found = findings(folder, "recomputed", sample_bytes=None)
    wrong = {(one.check, one.subject) for one in found if one.outcome is Outcome.FAILED}
    assert ("gguf", "Tiny.Q8_0.gguf") in wrong, wrong


def test_a_file_that_is_left_out_or_added_is_found(made, tmp_path):
    gguf = made[0].of(Edition.GGUF).layout.release_folder
    folder = shutil.copytree(gguf, tmp_path / "copy")
    (folder / "Tiny.Q8_0.gguf").unlink()
    (folder / "config.bin").write_bytes(b"1")
    lies.sign(folder, made[0].of(Edition.GGUF))
    wrong = {one.subject for one in findings(folder) if one.check == "contents"}
    assert wrong == {"Tiny.Q8_0.gguf", "config.bin"}


def test_no_crate_is_made_of_quantized_files_alone(made, tmp_path):
    folder = made[0].of(Edition.GGUF).layout.release_folder
    with pytest.raises(StepError, match="export the release that they were made from: keeper/Tiny"):
        pack(FolderSubject(folder), tmp_path / "crate", "2026-01-01")


def test_one_of_two_releases_is_published_elsewhere_by_its_folder_only(made, tmp_path):
    code, text = run(made[0], "--to", str(tmp_path / "copy"))
    assert code == 2
    assert "name one with --release" in text
    folder = made[0].of(Edition.GGUF).layout.release_folder
    code, text = run(made[0], "--release", str(folder), "--to", str(tmp_path / "copy"))
    assert code == 0, text
    assert (tmp_path / "copy/Tiny.Q8_0.gguf").exists()
