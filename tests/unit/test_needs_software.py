"""Programs and packages that jobs run: known from the plan, and missed before anything is built."""

import sys
from pathlib import Path

import pytest

from herdbook import needs
from herdbook import plan as plans
from herdbook.cli.main import main
from herdbook.plan.jobs import jobs
from herdbook.tools.converter import CONVERTER
from herdbook.tools.mergekit import MERGEKIT
from support import tiny


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe that needs both programs, locked, on a machine that has none."""
    for seed, name in enumerate("ab"):
        tiny.write_model(tmp_path / name, seed=seed)
    merge = {"method": "della_linear", "base": "a", "models": [{"model": "b", "parameters": {"weight": 1}}]}
    models = {"a": {"folder": "a"}, "b": {"folder": "b"}, "merged": {"merge": merge}}
    recipe = tiny.write_recipe(tmp_path / "recipe.yaml", models, quantize={"methods": ["Q8_0"]})
    tiny.lock(recipe)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("PATH", "/nowhere")
    return recipe


def install(tool):
    distribution = f"{tool.package.replace('-', '_')}-{tool.version}.dist-info"
    (Path(sys.prefix) / "tools" / tool.package / distribution).mkdir(parents=True)


def test_each_missing_program_is_named_with_a_job_that_needs_it(recipe, tmp_path):
    planned = jobs(plans.load(recipe, tmp_path / "results"))
    merge, convert = needs.missing_software(planned)
    assert merge.startswith("merge merged.")
    assert f"the program mergekit {MERGEKIT.version} is not installed. Install it with:\n" in merge
    assert convert.startswith("convert Tiny-")
    assert convert.endswith(f"{CONVERTER.package}=={CONVERTER.version}")
    assert not needs.missing_software(job for job in planned if job.rule not in {"merge", "convert"})
    install(MERGEKIT)
    assert needs.missing_software(planned) == [convert]


def test_a_missing_package_of_a_late_job_is_named_with_its_extra(recipe, tmp_path, monkeypatch):
    install(MERGEKIT)
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
    assert "warning: on this machine: merge merged." in said
    assert main([*arguments, "--elsewhere"]) == 0
    assert "on this machine" not in capsys.readouterr().err
