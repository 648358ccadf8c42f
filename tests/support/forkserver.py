"""A fork server: `herdbook` and `snakemake` as processes that begin with their imports already made.

Each step of a build is a process of its own. Of tiny models it takes a tenth of a second, and importing torch, transformers
and the rest takes two to four: most of the time of a test that builds. Here the imports are made once for a test run. Each
process of a test is forked from there with the arguments, folder, environment and open files of the program in `bin/` that
asks for it, runs the same code, and ends by itself. Tests about processes themselves (memory, signals, terminals, clusters)
start the real programs.

The server runs as ``python -m support.forkserver SOCKET`` and ends when its standard input does, as that of a test run that
is killed does too.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ADDRESS = "FORKSERVER_SOCKET"
PROGRAMS = Path(__file__).parent / "bin"
SOURCE = Path(__file__).parents[2] / "src"
# What they import beside the modules of herdbook, some of it not before a step is called.
IMPORTED = (
    "safetensors.torch",
    "snakemake.cli",
    "snakemake_logger_plugin_herdbook",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mixtral.modeling_mixtral",
    "transformers.tokenization_utils_tokenizers",
)


@contextlib.contextmanager
def serve(*, at_once=False):
    """Run a server, to which the programs in ``bin/`` turn while the block runs.

    Args:
        at_once: Whether it makes its imports now; else when it is asked for the first time.
    """
    with tempfile.TemporaryDirectory(prefix="forkserver-") as folder:
        address = os.path.join(folder, "socket")  # noqa: PTH118
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address)
        listening.listen(64)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{SOURCE}{os.pathsep}{Path(__file__).parents[1]}",
            "PYTHONHASHSEED": "random",  # its processes have sets in another order than the test run's
        }
        with subprocess.Popen(
            [sys.executable, "-m", "support.forkserver", str(listening.fileno()), str(int(at_once))],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        ) as process:
            listening.close()
            os.environ[ADDRESS] = address
            try:
                yield
            finally:
                del os.environ[ADDRESS]
                process.stdin.close()
                process.wait()


def main():
    """Fork a process for each connection to a listening socket, until standard input ends."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that ended are not waited for
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    with selectors.DefaultSelector() as waiting:
        waiting.register(listening, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        imported = bool(int(sys.argv[2]))
        if imported:
            import_all()
        while sys.stdin not in {key.fileobj for key, _ in waiting.select()}:
            connection, _ = listening.accept()
            if not imported:
                import_all()
                imported = True
            if os.fork() == 0:
                waiting.close()
                listening.close()
                become(connection)
            connection.close()


def import_all():
    """Import what processes will need."""
    import gc
    import importlib
    import pkgutil

    import herdbook
    from herdbook import apart
    from herdbook.plan import parsed
    from herdbook.steps.release import step
    from support import loaded
    from support.asked_here import answering

    own = [module.name for module in pkgutil.walk_packages(herdbook.__path__, "herdbook.")]
    for name in (*IMPORTED, *(name for name in own if not name.endswith("__main__"))):
        importlib.import_module(name)
    step.release = loaded.checked(step.release)
    apart.ask = answering(apart.ask)
    for name in own:  # keys contain digests of the code, which is not read again by the processes
        parsed.module_digest(name)
        parsed.is_empty(name)
        parsed.imports(name)
    gc.collect()
    gc.freeze()  # pages of what is there stay shared


def become(connection):
    """Be the process that somebody asks for on a connection; tell its exit status there, and end."""
    for restored in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(restored, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    content, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not content.endswith(b"\n"):
        content += connection.recv(1 << 20)
    asked = json.loads(content)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.stderr.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    os.umask(asked["umask"])
    sys.argv = asked["arguments"]
    status = 1
    try:
        status = run(sys.argv[0])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - whatever ends a program
        import traceback

        traceback.print_exc()
    finally:
        finish(connection, status or 0)


def run(program):
    """Run a program's entry point and return its exit status."""
    import importlib

    from huggingface_hub import constants

    importlib.reload(constants)  # which are read from the environment
    if program == "snakemake":
        from snakemake.cli import main as entry
    else:
        from herdbook.cli.main import main as entry
    return entry()


def finish(connection, status):
    """End as an interpreter does."""
    import atexit
    import threading

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    connection.sendall(bytes([status & 0xFF]))
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
