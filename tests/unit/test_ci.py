"""Workflows and actions for GitHub, this project's and those that it gives away: they ask for little and run what is pinned."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted([*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("starter/.github/workflows/*.yml")])
ACTIONS = sorted(
    [*ROOT.glob(".github/actions/*/action.yml"), *ROOT.glob("starter/.github/actions/*/action.yml")]
)
OWN = re.compile(r"\./\.github/actions/[\w-]+")
PINNED = re.compile(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40})")
# What a job may beyond reading the repository.
GRANTED = {
    ("starter", "refresh.yml", "refresh"): {"contents": "write", "pull-requests": "write"},
    ("starter", "publish.yml", "publish"): {"contents": "read", "id-token": "write"},
}


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - strings alone; `on` is no boolean


def steps(path):
    about = load(path)
    jobs = about["jobs"].values() if "jobs" in about else [about["runs"]]
    return [step for job in jobs for step in job["steps"]]


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_a_workflow_may_read_and_little_else(path):
    about = load(path)
    assert about["permissions"] == {"contents": "read"}
    place = "starter" if "starter" in path.parts else ""
    for job, content in about["jobs"].items():
        assert content.get("permissions", {}) == GRANTED.get((place, path.name, job), {})
        assert int(content["timeout-minutes"]) <= 350  # GitHub ends a job after 360
    assert set(re.findall(r"secrets\.(\w+)", path.read_text(encoding="utf-8"))) <= {"HF_TOKEN"}
    assert "pull_request_target" not in about["on"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_who_has_an_identity_waits_for_an_approval_and_is_started_by_hand(path):
    about = load(path)
    for job in about["jobs"].values():
        if "id-token" in job.get("permissions", {}):
            assert job["environment"] == "publish"
            assert list(about["on"]) == ["workflow_dispatch"]
            (publishing,) = [step for step in job["steps"] if "HF_OIDC_RESOURCE" in step.get("env", {})]
            assert "HF_TOKEN" not in publishing["env"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=name)
def test_no_expression_is_a_part_of_a_script(path):
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=name)
def test_a_failure_is_not_lost_in_a_pipe(path):
    assert all(step.get("shell") == "bash" for step in steps(path) if "| tee" in step.get("run", ""))


@pytest.mark.parametrize("path", [*WORKFLOWS, *ACTIONS], ids=name)
def test_what_others_wrote_is_pinned_and_leaves_no_token(path):
    for step in steps(path):
        used = step.get("uses")
        if used is None:
            continue
        if OWN.fullmatch(used):
            top = ROOT / "starter" if "starter" in path.parts else ROOT
            assert (top / used / "action.yml").is_file()
        else:
            assert PINNED.fullmatch(used), used
        if used.startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


def test_every_file_uses_the_same_commit_of_an_action():
    """Under the same version, which stands behind it."""
    found = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for action, commit, version in re.findall(
            r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@([0-9a-f]{40}) # (v[\d.]+)", path.read_text(encoding="utf-8")
        ):
            found.setdefault(action, set()).add((commit, version))
    assert {"actions/checkout", "actions/cache", "actions/upload-artifact"} <= found.keys()
    assert {action: len(uses) for action, uses in found.items() if len(uses) > 1} == {}
