"""Code that both lines of transformers run: 5, which is ours, and 4, in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import forkserver

FOUR = Path(sys.prefix) / "tools" / "transformers-4"


def ask(line, code, *given):
    """Run code in a process of a line, with values as JSON in its arguments; return what it prints as JSON in its last line.

    It must have an entry ``version``, which is checked and left out.
    """
    if line == 4 and not FOUR.is_dir():
        pytest.skip("transformers 4 is not installed; `make` installs it")
    command, path = (
        ([sys.executable, "-P"], {"PYTHONPATH": str(FOUR)}) if line == 4 else ([forkserver.PYTHON], {})
    )
    done = subprocess.run(
        [*command, "-c", code, *map(json.dumps, given)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("version").startswith(f"{line}.")
    return found
