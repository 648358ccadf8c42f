"""Who signs is a setting: signed once, and again only when another signs or something else is signed."""

import json

import pytest

from herdbook.signing import keys
from herdbook.signing.keyless import CONFIG_VARIABLE
from support import local_sigstore, tiny
from support.project import Project

SIGNS = {"attest", "verify"}


def run(project, signer):
    """Build, and return which rules ran."""
    return {rule for rule, _ in project.run("--config", f"signing_key={signer}")}


def found(project):
    verification = json.loads((project.results / "Tiny/verification.json").read_text())
    assert verification["outcome"] == "passed"
    everything = [one for level in verification["levels"] for one in level["findings"]]
    return [one["detail"] for one in everything if one["subject"] == "model.sig"]


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
    log = (project.root / "logs/attest/attest.log").read_text()
    assert "not signed" in log
