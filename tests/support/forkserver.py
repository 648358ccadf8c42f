"""A fork server: `herdbook` and `snakemake` as processes that begin with their imports already made.

Each step of a build is a process of its own. Of tiny models it takes a tenth of a second, and importing torch, transformers
and the rest takes two to four: most of the time of a test that builds. Here the imports are made once for a test run. Each
process of a test is forked from there with the arguments, folder, environment and open files of the program in `bin/` that
asks for it, runs the same code, and ends by itself; if that program is killed, it is killed, with what it started. Tests about
processes themselves (memory, terminals) start the real programs. `forked-python` is an interpreter for code and modules.

A server of other modules than ours, such as mergekit's, has an address of its own; the first that is asked for starts it.
The server runs as ``python -m support.forkserver SOCKET`` and ends when its standard input does, as that of a test run that
is killed does too.
"""

import contextlib
import importlib
import json
import marshal
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from herdbook.forkserver import VARIABLE
from support import costs

ADDRESS = "FORKSERVER_SOCKET"
PROGRAMS = Path(__file__).parent / "bin"
PYTHON = str(PROGRAMS / "forked-python")
OTHER = "another server"
WORKER = str(PROGRAMS / "forked-worker")  # an interpreter, too: for the workers of a test run themselves
SOURCE = Path(__file__).parents[2] / "src"
# What they import beside the modules of herdbook, some of it not before a step is called.
IMPORTED = (
    "pip._internal.commands.download",
    "safetensors.torch",
    "snakemake.cli",
    "snakemake_logger_plugin_herdbook",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.mixtral.modeling_mixtral",
    "transformers.tokenization_utils_tokenizers",
)
# What tests import beside that, of which the workers of a test run have copies.
OF_TESTS = (
    "boto3",
    "datasets",
    "gguf",
    "jsonschema",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "pyarrow.parquet",
    "sentencepiece",
)
# What few steps import, made when one of them is asked for the first time.
OF_A_STEP = {"evaluate": ("datasets", "lm_eval.evaluator", "lm_eval.tasks")}


@contextlib.contextmanager
def serve(*, at_once=False):
    """Run a server, to which the programs in ``bin/`` turn while the block runs.

    Args:
        at_once: Whether it makes its imports now; else when it is asked for the first time.
    """
    path = f"{SOURCE}{os.pathsep}{Path(__file__).parents[1]}"
    with running({**os.environ, "PYTHONPATH": path}, *(["at once"] if at_once else [])) as address:
        os.environ[ADDRESS] = address
        os.environ.setdefault(VARIABLE, "")  # no build starts one for its jobs beside it
        try:
            yield address
        finally:
            del os.environ[ADDRESS]


def other(environment, *modules):
    """Return the address of a server of other modules in an environment: one for all workers of a test run, and as long as that."""
    asked = marshal.dumps(
        {
            "arguments": [OTHER, *modules],
            "environment": {os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
        }
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        connection.sendall(len(asked).to_bytes(8, "little") + asked)
        return json.loads(connection.makefile().read())


@contextlib.contextmanager
def running(environment, *arguments, before=()):
    """Run a server in an environment, with arguments of ``main`` and words before its command; yield its address."""
    with tempfile.TemporaryDirectory(prefix="forkserver-") as folder:
        address = os.path.join(folder, "socket")  # noqa: PTH118
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(address)
        listening.listen(64)
        # its processes have sets in another order than the test run's
        environment = {**environment, "PYTHONHASHSEED": "random"}
        with subprocess.Popen(
            [*before, sys.executable, "-m", "support.forkserver", str(listening.fileno()), *arguments],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        ) as process:
            listening.close()
            try:
                yield address
            finally:
                process.stdin.close()
                process.wait()


def main():
    """Fork a process for each connection to a listening socket, until standard input ends.

    Further arguments are modules to import in place of all of ours, or ``at once`` to import ours now.
    """
    listening, modules = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    for name in modules:
        if name != "at once":
            importlib.import_module(name)
            settle()
    server = Server(listening, imported=bool(modules))
    if modules == ["at once"]:
        import_all(OF_TESTS)
    server.serve()


class Server:
    """What waits for connections, for their ends, and for the ends of processes.

    A process that has ended has closed all its files, and released its locks, before anybody is told of its end.
    """

    def __init__(self, listening, *, imported):
        self.listening, self.imported = listening, imported
        self.asked = {}  # by the number of the process, the connection that asked for it
        self.what = {}  # likewise, what it asked for
        self.others, self.ended = {}, contextlib.ExitStack()
        for ignored in (signal.SIGINT, signal.SIGTERM):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.children, told = socket.socketpair()
        for one in (self.children, told):
            one.setblocking(False)
        signal.set_wakeup_fd(told.detach(), warn_on_full_buffer=False)
        self.waiting = selectors.DefaultSelector()
        for one in (listening, self.children, sys.stdin):
            self.waiting.register(one, selectors.EVENT_READ)

    def serve(self):
        with self.ended:
            self.wait()

    def wait(self):
        while True:
            for key, _ in self.waiting.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is self.children:
                    self.children.recv(1 << 10)
                    self.reap()
                elif key.fileobj is self.listening:
                    self.fork(self.listening.accept()[0])
                else:
                    self.kill(key.fileobj)

    def fork(self, connection):
        """Fork the process that a program asks for."""
        asked, files = question(connection)
        if asked and asked["arguments"][0] == OTHER:
            self.tell_other(connection, asked)
            return
        if not self.imported:
            import_all()
            self.imported = True
        if asked and asked["arguments"][0] == "herdbook":
            for name in (name for one in asked["arguments"][1:2] for name in OF_A_STEP.get(one, ())):
                importlib.import_module(name)
        if asked is None:
            connection.close()
        elif number := os.fork():
            self.asked[number], self.what[number] = connection, asked
            self.waiting.register(connection, selectors.EVENT_READ)
        else:
            signal.set_wakeup_fd(-1)
            self.waiting.close()
            for one in (self.listening, self.children, connection, *self.asked.values()):
                one.close()
            become(asked, files)
        for file in files:
            os.close(file)

    def tell_other(self, connection, asked):
        """Tell where a server of other modules is, which is started once."""
        modules, environment = asked["arguments"][1:], asked["environment"]
        name = (environment["PYTHONPATH"], *modules)
        if name not in self.others:
            self.others[name] = self.ended.enter_context(running(environment, *modules))
            settle()  # whose folder is not for a process to remove
        with contextlib.suppress(OSError), connection:
            connection.sendall(json.dumps(self.others[name]).encode())

    def reap(self):
        """Tell the programs how their processes ended."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.wait4(-1, os.WNOHANG))[0]:
                number, status, used = ended
                if number not in self.asked:  # another server
                    continue
                costs.note(self.what.pop(number), used)
                connection = self.asked.pop(number)
                with contextlib.suppress(KeyError):
                    self.waiting.unregister(connection)
                with contextlib.suppress(OSError), connection:
                    connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())

    def kill(self, connection):
        """Kill the process of a program that is gone, and what it started."""
        self.waiting.unregister(connection)
        for number, one in self.asked.items():
            if one is connection:
                for kill in (os.killpg, os.kill):  # it may have no group of its own yet
                    with contextlib.suppress(ProcessLookupError):
                        kill(number, signal.SIGKILL)


def import_all(more=()):
    """Import what processes will need."""
    import pkgutil

    import herdbook
    from herdbook.plan import parsed

    own = [module.name for module in pkgutil.walk_packages(herdbook.__path__, "herdbook.")]
    for name in (*IMPORTED, *more, *(name for name in own if not name.endswith("__main__"))):
        importlib.import_module(name)
    for name in ("asked_here", "loaded", "tools"):  # see `follow`
        importlib.import_module(f"support.{name}")
    for name in own:  # keys contain digests of the code, which is not read again by the processes
        parsed.module_digest(name)
        parsed.is_empty(name)
        parsed.imports(name)
    prepare()
    settle()


def prepare():
    """Do once what is done when something is used for the first time: schemas, templates, versions, plugins, mappings of weights."""
    from snakemake.cli import get_argument_parser
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from herdbook import plan
    from herdbook.plan.jobs import all_jobs
    from herdbook.steps.card.rendering import environment
    from herdbook.tools.installed import card_templates

    all_jobs(plan.load(SOURCE.parent / "config/miniature.yaml"), None)
    templates = environment(card_templates().resolve())
    for name in templates.list_templates():
        templates.get_template(name)
    get_checkpoint_conversion_mapping("llama")
    get_argument_parser()


def settle():
    """Let the processes share what is there, and end quickly."""
    import atexit
    import gc
    import weakref

    for one in list(weakref.finalize._registry):
        one.atexit = False  # torch's, which take a process longer than all else when it ends
    if compiler := sys.modules.get("torch._dynamo.utils"):
        atexit.unregister(compiler.dump_compile_times)
    gc.collect()
    gc.freeze()  # pages of what is there stay shared


def question(connection):
    """Return what a program asks for, and its open files; None if it is gone."""
    content, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while len(content) < 8 or len(content) < 8 + int.from_bytes(content[:8], "little"):
        more = connection.recv(1 << 20)
        if not more:
            return None, files
        content += more
    asked = marshal.loads(content[8:])  # noqa: S302 - from our own programs
    environment = {os.fsdecode(name): os.fsdecode(value) for name, value in asked["environment"].items()}
    return {**asked, "environment": environment}, files


def become(asked, files):
    """Be the process that somebody asks for, and end with its exit status."""
    for restored in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(restored, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
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
        sys.excepthook(*sys.exc_info())
    finally:
        finish(status or 0)


def run(program):
    """Run a program's entry point and return its exit status."""
    if _settings(os.environ) != SETTINGS:  # which they read when they are imported
        for name in ("huggingface_hub.constants", "datasets.config"):
            if name in sys.modules:
                importlib.reload(sys.modules[name])
    if program == Path(WORKER).name:
        return interpret()
    if "herdbook.steps.release.step" in sys.modules:  # not in another server
        follow()
    if program == "forked-python":
        sys.executable = PYTHON
        return interpret()
    if program == "snakemake":
        from snakemake.cli import main as entry
    else:
        from herdbook.cli.main import main as entry
    return entry()


def _settings(environment):
    """Return the variables that libraries read when they are imported."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_", "HOME"))
    }


SETTINGS = _settings(os.environ)  # the server's own


def follow():
    """Have this process check what it releases, answer itself what it would ask another, and fork external programs."""
    from herdbook import apart
    from herdbook.steps.release import step
    from herdbook.tools.external import Tool
    from support import loaded, tools
    from support.asked_here import answering

    step.release = loaded.checked(step.release)
    apart.ask = answering(apart.ask)
    Tool.find = tools.found_forked


def interpret():
    """Do what an interpreter does with ``-c CODE`` or ``-m MODULE`` after its options."""
    import runpy

    while (option := sys.argv.pop(1)) not in {"-c", "-m"}:
        pass
    what = sys.argv.pop(1)
    sys.argv[0] = option
    if option == "-c":
        exec(what, {"__name__": "__main__"})  # noqa: S102
    else:
        if not hasattr(sys.modules.get(what), "__path__"):
            sys.modules.pop(what, None)  # it is run anew; of a package, its `__main__` is
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    return 0


def finish(status):
    """End as an interpreter does."""
    import atexit
    import threading
    from concurrent.futures import thread as pools

    pools._shutdown = True
    for waiting in list(pools._threads_queues.values()):
        waiting.put(None)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
