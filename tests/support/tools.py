"""External programs, forked from processes that have imported them: that takes most of the time in which they do little."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

from herdbook.tools.converter import CONVERTER
from herdbook.tools.external import Tool
from support import forkserver
from support.mergekit import MERGEKIT

MERGEKIT_MOE = Tool(MERGEKIT.package, MERGEKIT.version, "mergekit-moe", "mergekit.scripts.moe")
MODEL_SIGNING = Tool("model-signing", "1.1.1", "model_signing", "model_signing")
MODELS = (
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
# What is imported for the programs of a package.
IMPORTED = {
    MERGEKIT.package: (MERGEKIT.module, MERGEKIT_MOE.module, "mergekit.merge_methods.registry", *MODELS),
    CONVERTER.package: (CONVERTER.module, *MODELS),
    MODEL_SIGNING.package: ("model_signing._cli",),
}
PLACE = Path(sys.prefix) / "tools"
find = Tool.find


@functools.cache
def address(package, path):
    """Return the address of a package's server."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, str(Path(__file__).parents[1])])}
    return forkserver.other(environment, *IMPORTED[package])


def found_forked(tool):
    """Do what ``Tool.find`` does, but have the programs forked that `make` installed."""
    command, environment = find(tool)
    path = environment.get("PYTHONPATH", "")
    if tool.package not in IMPORTED or path.split(os.pathsep)[0] != str(PLACE / tool.package):
        return command, environment
    return [forkserver.PYTHON, *command[1:]], {**environment, forkserver.ADDRESS: address(tool.package, path)}


def with_mergekit(code, given):
    """Run Python code that has mergekit, with a value as JSON in its standard input; return what it prints."""
    _, environment = found_forked(MERGEKIT)
    done = subprocess.run(
        [forkserver.PYTHON, "-c", code],
        env=environment,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
