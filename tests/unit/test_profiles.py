"""Profiles: what they make of a machine and of a cluster's five lines."""

from pathlib import Path

import psutil
import pytest
import yaml

PROFILES = Path(__file__).parents[2] / "profiles"
SITE = {
    "account": "12345",
    "partition": "input",  # a name that Snakemake would take for its own
    "gpu_partition": "gpu",
    "gpu": "a100",
    "device": "cuda",
    "gpu_memory": 80,
    "cache": "/shared/cache",
}


def settings(name):
    """Return the options that a profile sets, as Snakemake reads them, with those of the default profile."""
    from snakemake import cli

    parser = cli.get_argument_parser(profiles=[str(PROFILES / name), str(PROFILES / "default")])
    return parser.parse_args([])


def resources(asked, threads=1):
    """Return what resources come to in a job."""
    context = {"input": [], "attempt": 1, "threads": threads, "rulename": "r", "async_run": None}
    return {name: resource.evaluate(None, **context).value for name, resource in asked.items()}


@pytest.mark.parametrize("name", ["laptop", "workstation", "slurm"])
def test_the_default_profile_s_settings_hold_besides(name):
    found = settings(name)
    assert found.nolock
    assert found.ignore_incomplete
    assert {str(trigger) for trigger in found.rerun_triggers} == {"params"}
    assert found.keep_going


def test_a_laptop_s_jobs_share_its_memory():
    found = settings("laptop").resources
    assert found["mem_mb"].value == pytest.approx(0.9 * psutil.virtual_memory().total / 10**6, abs=1)


@pytest.mark.parametrize(("visible", "count"), [(None, 3), ("0,2", 2), ("", 1)])
def test_a_workstation_s_gpus_are_counted(visible, count, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nfor i in 0 1 2; do echo GPU $i: a card; done\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert settings("workstation").resources["gpu"].value == count


def test_a_cluster_is_used_without_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HERDBOOK_CLUSTER", raising=False)
    found = settings("slurm")
    assert found.executor == "slurm"
    assert not found.set_resources
    assert not found.configfile
    assert "slurm_account" not in dict(found.default_resources.items())


def test_a_cluster_s_lines_reach_the_jobs_that_they_are_for(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text(yaml.safe_dump(SITE), encoding="utf-8")
    monkeypatch.setenv("HERDBOOK_CLUSTER", str(site))
    found = settings("slurm")
    assert [str(path) for path in found.configfile] == [str(site)]
    default = {
        name: resource for name, resource in found.default_resources.items() if name.startswith("slurm")
    }
    assert resources(default) == {"slurm_account": "12345", "slurm_partition": "input"}
    # those of jobs on GPUs are in the rules: tests/workflow/test_module.py
    assert not found.set_resources


@pytest.mark.parametrize("text", ["account lab\n", "- account: lab\n"])
def test_a_cluster_s_file_that_is_no_mapping_is_named(text, tmp_path, monkeypatch, capsys):
    site = tmp_path / "site.yaml"
    site.write_text(text, encoding="utf-8")
    monkeypatch.setenv("HERDBOOK_CLUSTER", str(site))
    with pytest.raises(SystemExit) as ended:
        settings("slurm")
    assert (
        f"{site}: is not a mapping of settings, with lines such as `account: lab`"
        in str(ended.value) + capsys.readouterr().err
    )
