"""Who signs is a setting: signed once, and again only when another signs or something else is signed."""

import json

import pytest

from herdbook.release.finding import Outcome
from herdbook.signing import keys
from herdbook.signing.keyless import CONFIG_VARIABLE
from support import local_sigstore, tiny
from support.project import Project
from support.verification import findings, status

SIGNS = {"attest", "verify"}


def run(project, signer):
    """Build, and return which rules ran."""
    return {rule for rule, _ in project.run("--config", f"signing_key={signer}")}


def verification(project):
    report = json.loads((project.results / "Tiny/verification.json").read_text())
    assert report["outcome"] == "passed"
    return [one for level in report["levels"] for one in level["findings"]]


def found(project):
    return [one["detail"] for one in verification(project) if one["subject"] == "model.sig"]


@pytest.mark.slow
def test_signing_is_a_setting_and_done_once(tmp_path, monkeypatch):
    project = Project(tmp_path / "project")
    tiny.write_model(project.recipe.parent / "base")
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}})
    tiny.lock(project.recipe)
    services = local_sigstore.LocalSigstore()
    with local_sigstore.serve(services) as environment:
        (tmp_path / "trust.json").write_text(json.dumps(services.trust()))
        for name, value in {**environment, CONFIG_VARIABLE: str(tmp_path / "trust.json")}.items():
            monkeypatch.setenv(name, value)
        assert run(project, "keyless") >= SIGNS
        assert f"by {services.name}" in found(project)[0]
        asked = list(services.requests)
        assert len(asked) == 5  # a certificate; provenance, BOM, lineage and model
        assert run(project, "keyless") == set()
        services.name = "https://example.org/another/runner"
        assert run(project, "keyless") == set()
        assert services.requests == asked

        keys.generate(tmp_path / "own")
        assert run(project, tmp_path / "own") == SIGNS
        assert keys.load_public(tmp_path / "own.pub").fingerprint in found(project)[0]
        assert run(project, tmp_path / "own") == set()
        assert run(project, "") == SIGNS
        assert not (project.results / "Tiny/release/model.sig").exists()
    log = (project.root / "logs/attest/Tiny.log").read_text()
    assert "not signed" in log


@pytest.mark.slow
def test_a_build_without_the_key_that_its_recipe_names_ends_and_no_copy_of_it_passes(tmp_path):
    project = Project(tmp_path / "project")
    tiny.write_model(project.recipe.parent / "base")
    signer = {"key": "0" * 64}
    tiny.write_recipe(project.recipe, {"base": {"folder": "base"}}, release={"signer": signer})
    tiny.lock(project.recipe)
    assert run(project, "") >= SIGNS
    assert (
        "passes `herdbook verify` only with --unsigned" in (project.root / "logs/attest/Tiny.log").read_text()
    )
    (noted,) = [one for one in verification(project) if one["check"] == "unsigned"]
    assert "accepted, since --unsigned is given" in noted["detail"]
    folder = project.results / "Tiny/release"
    left = [one for one in findings(folder) if one.outcome is not Outcome.PASSED]
    assert [one.check for one in left] == ["unsigned"]
    assert status(left) == 9
    assert status(findings(folder, unsigned=True)) == 0
