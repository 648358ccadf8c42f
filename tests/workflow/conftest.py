"""What tests of the workflow share."""

import json
import os

import pytest


@pytest.fixture
def conda(tmp_path, monkeypatch):
    """Put something on the PATH that answers what a dry run asks of conda; it makes no environment."""
    tool = tmp_path / "bin" / "conda"
    tool.parent.mkdir()
    answers = {
        "--version": "conda 25.9.1",
        "info": json.dumps({"conda_prefix": str(tmp_path), "platform": "linux-64"}),
        "config": json.dumps({"get": {"channel_priority": "strict"}}),
    }
    cases = "\n".join(f"  {word}) echo '{answer}' ;;" for word, answer in answers.items())
    tool.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}\n  *) exit 1 ;;\nesac\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


# Runs the command on this machine, after it has noted the image.
APPTAINER = """#!/bin/sh
case "$1" in --version) echo "apptainer version 1.3.6"; exit ;; esac
while [ "$1" != exec ]; do shift; done
shift
while :; do case "$1" in --home | --bind | --pwd) shift 2 ;; -*) shift ;; *) break ;; esac; done
line=$(echo "$@" | tr '\\n' ' ')
printf '%s\\n' "$line" >>{log} # written at once, since several jobs write to it
shift
exec "$@"
"""


@pytest.fixture
def apptainer(tmp_path, monkeypatch):
    """Put a stand-in for Apptainer on the PATH, without containers; return what it was asked for, when it has run."""
    tool, log = tmp_path / "bin/apptainer", tmp_path / "apptainer.log"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(APPTAINER.format(log=log), encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return log
