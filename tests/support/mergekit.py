"""mergekit's programs, forked from a process that has imported it: that takes most of the time of a small merge."""

import atexit
import contextlib
import functools
import json
import os
import subprocess
from pathlib import Path

from herdbook.tools.external import Tool
from herdbook.tools.mergekit import MERGEKIT
from support import forkserver

MERGEKIT_MOE = Tool("mergekit", "0.1.5", "mergekit-moe", "mergekit.scripts.moe")
IMPORTED = (
    "mergekit.scripts.run_yaml",
    "mergekit.scripts.moe",
    "mergekit.merge_methods.registry",
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
find = Tool.find


@functools.cache
def address():
    """Return the address of the server, which is started by the first call and ends with this process."""
    ended = contextlib.ExitStack()
    atexit.register(ended.close)
    _, environment = find(MERGEKIT)
    paths = [environment["PYTHONPATH"], str(Path(__file__).parents[1])]
    return ended.enter_context(
        forkserver.running({**environment, "PYTHONPATH": os.pathsep.join(paths)}, *IMPORTED)
    )


def found_warm(tool):
    """Do what ``Tool.find`` does, but have mergekit's programs forked."""
    command, environment = find(tool)
    if tool.package != MERGEKIT.package:
        return command, environment
    return [str(forkserver.PROGRAMS / "module"), tool.module], {**environment, forkserver.ADDRESS: address()}


def run(code, given):
    """Run Python code that has mergekit, with a value as JSON in its standard input; return what it prints."""
    _, environment = found_warm(MERGEKIT)
    done = subprocess.run(
        [forkserver.PROGRAMS / "script", code],
        env=environment,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
