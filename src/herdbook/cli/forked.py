"""``python -m herdbook.cli.forked``: the server from which the jobs of a build are forked (see ``herdbook.forkserver``)."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import shutil
import socket
import sys
from pathlib import Path

from herdbook import settings
from herdbook.cli.main import main
from herdbook.errors import HerdbookError
from herdbook.forkserver.client import ROOT
from herdbook.forkserver.server import Server
from herdbook.needs import used

_TORCH = ("torch", "safetensors.torch")
_TRANSFORMERS = (*_TORCH, "transformers.models.auto.modeling_auto", "transformers.modeling_utils")
# What takes longest to import of what the jobs of a rule import.
IMPORTS = {
    "fetch": _TORCH,
    "laser": _TORCH,
    "search": _TRANSFORMERS,
    "adapter": _TORCH,
    "merge": _TORCH,
    "moe": _TRANSFORMERS,
    "compress": _TORCH,
    "files": _TRANSFORMERS,
    "routing": _TRANSFORMERS,
    "evaluate": (*_TRANSFORMERS, "lm_eval.evaluator", "lm_eval.models.huggingface", "datasets"),
    "convert": _TRANSFORMERS,
    "imatrix": _TRANSFORMERS,
    "quantize": _TORCH,
    "reference": _TRANSFORMERS,
    "loss": _TRANSFORMERS,
}


def warm() -> None:
    """Do once what every job does first: read the plan, for which our code is imported, and digests of it are computed for keys.

    Each job reads recipe and lock itself, and reports what is wrong with them.
    """
    from herdbook import plan as plans
    from herdbook.cache import step  # noqa: F401
    from herdbook.plan.jobs import result_jobs
    from herdbook.steps import registry  # noqa: F401

    with contextlib.suppress(HerdbookError, OSError):
        result_jobs(plans.load(Path(settings.RECIPE.value)))


class Preparation:
    """What is done before each fork.

    Keys count the code as it was read first, and a job imports some of it only when it runs, as it does packages. So once
    either has changed, jobs are not forked: they read all of it anew, and refuse keys of what it was.
    """

    def __init__(self) -> None:
        self._installed = _installed()
        # An import that has failed can leave something behind, and fail in another way the next time.
        self._failed = False

    def __call__(self, arguments: list[str]) -> bool:
        """Make the imports of a command, unless they are made; return whether a fork can run it."""
        if self._failed or _installed() != self._installed:
            return False
        names = IMPORTS.get(arguments[0], ()) if arguments else ()
        try:
            for name in names:
                importlib.import_module(name)
            if set(_TRANSFORMERS) <= set(names):
                from transformers.conversion_mapping import get_checkpoint_conversion_mapping

                # That of all types of models is made when it is asked for one of them.
                get_checkpoint_conversion_mapping("llama")
        except Exception:  # noqa: BLE001 - whatever is missing or broken, the job reports it
            self._failed = True
        return not self._failed


def _installed() -> list[tuple[str, int, int]]:
    """Return what changes with our code, or with what is installed: sizes and times of files, and of folders of packages."""
    paths = [entry for entry in sys.path if any(Path(entry).glob("*.dist-info"))]
    for folder, _, names in os.walk(ROOT):
        paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]  # noqa: PTH118 - a third of the time
    with contextlib.suppress(OSError):  # a file has just been removed
        return [(path, found.st_size, found.st_mtime_ns) for path in paths for found in [os.stat(path)]]  # noqa: PTH116
    return []


def serve(listening: int, build: int) -> int:
    """Serve a build until it has ended; in a forked process, run the command and return its exit status."""
    server = socket.socket(fileno=listening)
    folder = Path(server.getsockname()).parent
    prepare = Preparation()
    warm()
    request = Server(server, build, prepare).serve()
    if request is None:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    request.assume()
    used.count_from_now()
    if "torch" in sys.modules and (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        import torch

        torch.set_num_threads(int(threads))  # as it does when it is imported
    sys.argv = ["herdbook", *request.arguments]
    return main()


_status: list[int] = []  # of this process, when it ends


def end() -> None:
    """End this process without taking its objects apart, for which a fork would copy all the memory that it shares."""
    if _status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status[0])


if __name__ == "__main__":
    atexit.register(end)  # before others, so it is called after them
    _status.append(serve(*map(int, sys.argv[1:])))
    sys.exit(_status[0])
