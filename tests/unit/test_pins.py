"""Environments of the steps: each list is whole, and all of them give one plan the same keys."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from herdbook.settings import PINS
from herdbook.tools import installed
from support import forkserver

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"


def test_scripts_that_run_alone_name_no_file_of_a_checkout():
    for path in (ROOT / "envs").glob("*.post-deploy.sh"):
        text = path.read_text(encoding="utf-8")
        assert 'pip install --quiet --no-deps "$HERDBOOK_REQUIREMENT"' in text
        assert "envs/" not in text
        for tool in re.findall(r"/tools/([\w-]+)", text):
            listed = (ROOT / f"envs/{tool}.txt").read_text(encoding="utf-8").splitlines()
            assert all(line in text for line in listed if line and line[0] != "#")


KEYS = "import herdbook.plan, pathlib; plan = herdbook.plan.load(pathlib.Path('config/miniature.yaml')); print(*plan.parts, *(i.key for i in plan.evaluations), *(i.key for i in plan.quantized))"


@functools.cache
def keys(*hidden, pins=None):
    """Return the keys of the miniature's plan, in a process where some packages are not installed, or other pins hold."""
    hide = f"""
import importlib.metadata as metadata
from herdbook.plan import parsed
parsed._installed_version.cache_clear()  # what the process has from the one that it is forked from
original = metadata.version
def version(name):
    if name in {hidden!r}:
        raise metadata.PackageNotFoundError(name)
    return original(name)
metadata.version = version
"""
    done = subprocess.run(
        [forkserver.PYTHON, "-c", hide + KEYS],
        cwd=ROOT,
        env={**os.environ, **({PINS.variable: str(pins)} if pins else {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_keys_are_the_same_in_every_environment_of_a_lock():
    whole = keys()
    assert keys(pins=LOCK) == whole
    assert keys("torch", "gguf", "libgguf", "lm_eval", "transformers", pins=LOCK) == whole
    assert keys("gguf", "lm_eval") != whole  # why it is said


def test_another_lock_makes_other_keys(tmp_path):
    other = tmp_path / "lock"
    text = LOCK.read_text()
    other.write_text(re.sub(r"(?m)^torch==.*$", "torch==9.9.9", text))
    now, then = keys(pins=LOCK), keys(pins=other)
    assert len(now) == len(then)
    assert set(now) != set(then)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "herdbook==1.2"),
        ({"url": "file:///home/me/my%20herd", "dir_info": {"editable": True}}, "/home/me/my herd"),
        (
            {"url": "https://git.example/h.git", "vcs_info": {"vcs": "git", "commit_id": "ab" * 20}},
            f"herdbook @ git+https://git.example/h.git@{'ab' * 20}",
        ),
        ({"url": "file:///tmp/h.whl", "archive_info": {}}, "herdbook @ file:///tmp/h.whl"),
    ],
)
def test_what_pip_installs_to_have_the_same_herdbook(origin, expected, tmp_path, monkeypatch):
    package = tmp_path / "herdbook"
    (package / "workflow").mkdir(parents=True)
    (package / "workflow/Snakefile").touch()
    about = tmp_path / "herdbook-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: herdbook\nVersion: 1.2\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(installed, "__file__", str(package / "tools/installed.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert installed.requirement() == expected
