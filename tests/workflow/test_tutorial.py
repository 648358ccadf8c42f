"""The tutorial, command by command, in a shell: a first release, built, signed, verified and changed.

Its programs are forked, as in other tests: `make demo` starts the same ones for each step of a build of the same base.
"""

import os
import subprocess

import pytest

from support import forkserver, pages
from support.project import REPOSITORY

pytestmark = pytest.mark.slow


def test_the_tutorial_works(tmp_path):
    script = "".join(block.text for block in pages.blocks(pages.TUTORIAL) if block.reason is None)
    first, second = script.split("cd herd\n")
    # What `make demo` has built of the same base is not built again.
    shared = "".join(
        f'mkdir -p results/{folder}; cp -al "{path}" results/{folder} || cp -a "{path}" results/{folder}\n'
        for folder in ("models", "shards")
        for path in (REPOSITORY / "results" / folder).glob("base[.-][!l]*")
    )
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", f"{first}cd herd\n{shared}{second}"],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("HERDBOOK_")},
            "PATH": f"{forkserver.PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    release = tmp_path / "herd/results/Mine-2x135M/release"
    assert list(release.glob("*.Q8_0.gguf"))
    assert "release: level claims: passed" in said
    assert "../changed: level files: failed" in said
    assert "moe pair.routers" in done.stdout
    assert "laser lasered.1-" in done.stdout  # up to date
