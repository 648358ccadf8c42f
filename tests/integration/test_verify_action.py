"""The action and the workflow that verify releases again: their own scripts, run as a runner runs them."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github/actions/verify-release/action.yml"
WORKFLOW = ROOT / ".github/workflows/verify-release.yml"
PINNED = re.compile(r"^(\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40})$")


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - strings alone; `on` is no boolean


class Runner:
    """A runner's variables and folders, and what a step left there."""

    def __init__(self, root, **inputs):
        self.root = root
        action = load(ACTION)
        self.steps = {step["id"]: step for step in action["runs"]["steps"] if "id" in step}
        self.inputs = {name: about.get("default", "") for name, about in action["inputs"].items()} | inputs
        self.files = {name: root / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in self.files.values():
            path.touch()

    def run(self, step, **variables):
        """Run a step of the action."""
        asked = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: self.inputs[found[1]], value)
            for name, value in self.steps[step].get("env", {}).items()
        }
        return self.bash(self.steps[step]["run"], {**asked, **variables})

    def bash(self, script, variables):
        path = self.root / "step.sh"
        path.write_text(script, encoding="utf-8")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", path],
            cwd=self.root,
            env={
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.root),
                "RUNNER_TEMP": str(self.root),
                "GITHUB_ACTION_PATH": str(ACTION.parent),
                **{name: str(path) for name, path in self.files.items()},
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def outputs(self):
        lines = self.files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def pretend(self, status):
        """Put a herdbook in place that writes down its arguments and token, and ends with a status."""
        path = self.root / "herdbook/bin/herdbook"
        path.parent.mkdir(parents=True)
        text = f'#!/bin/sh\nprintf "%s\\n" "$@" >{self.root}/arguments\necho "${{HF_TOKEN-none}}" >{self.root}/token\n'
        path.write_text(f"{text}exit {status}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("status", "result", "says"),
    [
        (0, "passed", ""),
        (8, "failed", "::error title=Verification failed::"),
        (9, "unverified", "::warning title=Not verified::"),
        (10, "broken", "::error title=Verifier broken::"),
        (1, "broken", "ended with status 1"),
    ],
)
def test_the_action_ends_as_herdbook_does(tmp_path, status, result, says):
    runner = Runner(tmp_path, release="owner/name@v1", seed="7")
    runner.pretend(status)
    done = runner.run("verify")
    assert done.returncode == status
    assert runner.outputs == {"seed": "7", "result": result}
    assert says in done.stdout


def test_what_is_given_is_an_argument_and_no_script(tmp_path):
    wicked = '$(touch pwned) `touch pwned` "; touch pwned; --level files'
    runner = Runner(
        tmp_path,
        release=wicked,
        level="claims",
        seed="7",
        key="my keys/$(touch pwned).pem",
        token="hf_secret",  # noqa: S106
    )
    runner.pretend(0)
    assert runner.run("verify").returncode == 0
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments[-2:] == ["--", wicked]
    assert arguments[arguments.index("--key") + 1] == "my keys/$(touch pwned).pem"
    assert arguments[arguments.index("--level") + 1] == "claims"
    assert not (tmp_path / "pwned").exists()
    assert not any("hf_secret" in argument for argument in arguments)
    assert (tmp_path / "token").read_text() == "hf_secret\n"


def test_a_keyless_signer_is_named(tmp_path):
    who = "https://github.com/herd/tiny/.github/workflows/release.yml@refs/tags/v1 $(touch pwned)"
    runner = Runner(tmp_path, release="owner/name", seed="7", identity=who, issuer="https://example.org")
    runner.pretend(0)
    assert runner.run("verify").returncode == 0
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments[arguments.index("--identity") + 1] == who
    assert arguments[arguments.index("--issuer") + 1] == "https://example.org"
    assert not (tmp_path / "pwned").exists()


def test_what_release_it_must_be_is_given(tmp_path):
    references = {"expect": "12ab", "not-before": "v1 $(touch pwned)"}
    runner = Runner(tmp_path, release="owner/name", seed="7", **references)
    runner.pretend(0)
    assert runner.run("verify").returncode == 0
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    for option, value in references.items():
        assert arguments[arguments.index(f"--{option}") + 1] == value
    assert not (tmp_path / "pwned").exists()


def test_without_key_and_token_none_is_given(tmp_path):
    runner = Runner(tmp_path, release="owner/name", seed="7")
    runner.pretend(0)
    runner.run("verify")
    given = (tmp_path / "arguments").read_text(encoding="utf-8")
    assert not any(
        option in given for option in ("--key", "--identity", "--issuer", "--expect", "--not-before")
    )
    assert (tmp_path / "token").read_text() == "none\n"


NO_REFERENCE = {"expect": "", "not_before": ""}


def listed(tmp_path, text, release=""):
    """Run the workflow's own step that lists releases."""
    (tmp_path / ".github").mkdir(exist_ok=True)
    (tmp_path / ".github/releases.txt").write_text(text, encoding="utf-8")
    (tmp_path / "output").write_text("", encoding="utf-8")
    (step,) = (step for step in load(WORKFLOW)["jobs"]["list"]["steps"] if step.get("id") == "list")
    assert step["shell"] == "python"
    variables = {"RELEASE": release, "GITHUB_OUTPUT": str(tmp_path / "output")}
    subprocess.run([sys.executable, "-c", step["run"]], cwd=tmp_path, env=variables, check=True)
    name, _, value = (tmp_path / "output").read_text(encoding="utf-8").strip().partition("=")
    assert name == "releases"
    return json.loads(value)


def test_releases_are_read_from_the_file_or_asked_for(tmp_path):
    text = "# a comment\n\nowner/name@v1\n  owner/other@v2   .github/keys/owner.pem \n"
    assert listed(tmp_path, text) == [
        {"number": 1, "release": "owner/name@v1", "key": "", **NO_REFERENCE},
        {"number": 2, "release": "owner/other@v2", "key": ".github/keys/owner.pem", **NO_REFERENCE},
    ]
    [asked] = listed(tmp_path, text, "a/b@main")
    assert asked == {"number": 1, "release": "a/b@main", "key": "", **NO_REFERENCE}
    text = "a/b keys/my key.pem sha256:12ab\na/b not-before:v1 k.pem\n"
    assert listed(tmp_path, text) == [
        {"number": 1, "release": "a/b", "key": "keys/my key.pem", "expect": "12ab", "not_before": ""},
        {"number": 2, "release": "a/b", "key": "k.pem", "expect": "", "not_before": "v1"},
    ]
    assert listed(tmp_path, (ROOT / ".github/releases.txt").read_text(encoding="utf-8")) == []


def test_nothing_from_outside_stands_in_a_script_and_all_is_pinned():
    steps = [*load(ACTION)["runs"]["steps"]]
    for job in load(WORKFLOW)["jobs"].values():
        steps += job["steps"]
    assert not [step for step in steps if "${{" in step.get("run", "")]
    assert all(PINNED.match(step["uses"].split(" ")[0]) for step in steps if "uses" in step)
    assert load(WORKFLOW)["permissions"] == {"contents": "read"}


def test_the_workflow_gives_what_the_action_takes():
    (step,) = (one for one in load(WORKFLOW)["jobs"]["verify"]["steps"] if one["uses"].startswith("./"))
    inputs = load(ACTION)["inputs"]
    assert step["with"].keys() <= inputs.keys()
    assert {name for name, about in inputs.items() if about.get("required") == "true"} <= step["with"].keys()
