"""The fork server of a build: a small one of other code than ours, asked by real processes as `herdbook` asks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from herdbook.forkserver import VARIABLE, start
from herdbook.forkserver.client import ROOT

SERVER = """
import os, signal, socket, sys, time
from herdbook.forkserver.server import Server

prepared = []
def prepare(arguments):
    prepared.append(arguments)
    return arguments != ["refused"]
request = Server(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), prepare).serve()
if request is None:
    os.write(1, b"ended")
    os._exit(0)
request.assume()
word, *rest = request.arguments
if word == "tell":
    print(os.getcwd(), os.environ["TOLD"], oct(os.umask(0)), sys.stdin.read(), [one[0] for one in prepared], rest)
    print("wrong", file=sys.stderr)
    sys.exit(7)
if word == "wait":
    print(os.getpid(), flush=True)
    time.sleep(600)
if word == "interrupt":
    try:
        print(os.getpid(), flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(130)
if word == "fall":
    os.kill(os.getpid(), int(rest[0]))
"""
CLIENT = """
import sys
from herdbook.forkserver.client import ask
status = ask(sys.argv[1:])
sys.exit("nobody ran it" if status is None else status)
"""


@contextlib.contextmanager
def serving():
    """Run the server; yield its address, its process, and a function that tells it that the build has ended."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        address = os.path.join(folder, "socket")  # noqa: PTH118
        listening.bind(address)
        listening.listen()
        reading, writing = os.pipe()
        files = (listening.fileno(), reading)
        with subprocess.Popen(
            [sys.executable, "-c", SERVER, *map(str, files)], stdout=subprocess.PIPE, pass_fds=files
        ) as server:
            os.close(reading)
            listening.close()
            ended = []

            def end():
                ended.append(True)
                os.close(writing)

            try:
                yield address, server, end
            finally:
                if not ended:
                    end()


@pytest.fixture(scope="module")
def address():
    with serving() as (address, _, _):
        yield address


def client(address, *words, **options):
    """Start a process that asks the server."""
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, VARIABLE: address, "TOLD": "ü {}"},
        start_new_session=True,
        **options,
    )


def gone(process):
    """Wait until a process that is no child of this one has ended."""
    while Path(f"/proc/{process}").exists():
        time.sleep(0.01)
    return True


def test_the_process_is_that_of_the_program_that_asks(address, tmp_path):
    process = client(address, "tell", "a b", "", cwd=tmp_path, umask=0o027)
    printed, wrong = process.communicate("from standard input")
    assert printed == f"{tmp_path} ü {{}} 0o27 from standard input ['tell'] ['a b', '']\n"
    assert (wrong, process.returncode) == ("wrong\n", 7)


def test_files_go_where_those_of_the_program_go(address, tmp_path):
    with (tmp_path / "log").open("w") as log:
        asked = subprocess.run(
            [sys.executable, "-c", CLIENT, "tell"],
            input="x",
            stdout=log,
            stderr=log,
            text=True,
            check=False,
            env={**os.environ, VARIABLE: address, "TOLD": "it"},
        )
    assert asked.returncode == 7
    assert "wrong" in (tmp_path / "log").read_text()


def test_several_run_at_once(address):
    waiting = [client(address, "wait") for _ in range(3)]
    assert len({process.stdout.readline() for process in waiting}) == 3
    for process in waiting:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_ends_the_process_ends_the_program(address, number):
    process = client(address, "fall", str(int(number)))
    assert process.communicate() == ("", "")
    assert process.returncode == -number


def test_a_program_that_is_killed_takes_the_process_with_it(address):
    process = client(address, "wait")
    forked = int(process.stdout.readline())
    process.kill()
    assert gone(forked)
    process.communicate()


def test_the_end_is_handed_on(address):
    process = client(address, "wait")
    forked = int(process.stdout.readline())
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert gone(forked)


def test_signals_that_the_program_ignores_are_ignored(address):
    """As those of `nohup`, and those of what a script runs in the background."""
    ignored = (signal.SIGINT, signal.SIGHUP)
    process = client(
        address, "wait", preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored]
    )
    forked = int(process.stdout.readline())
    for number in ignored:
        os.kill(forked, number)
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.terminate()
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert gone(forked)


def test_a_terminal_interrupts_the_process_and_the_program_waits_for_it():
    """All processes of a build are in the terminal's group: here, a group of their own."""
    code = f"""
import os, subprocess, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from unit.test_forkserver import CLIENT, serving
from herdbook.forkserver import VARIABLE
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
with serving() as (address, server, end):
    asked = subprocess.Popen(
        [sys.executable, "-c", CLIENT, "interrupt"],
        env={{**os.environ, VARIABLE: address}},
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    asked.stdout.readline()
    os.killpg(0, signal.SIGINT)
    asked.wait()
    print(asked.returncode, server.poll())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.stdout == "130 None\n", done.stderr


def test_the_server_ends_after_the_build_and_the_last_process():
    with serving() as (address, server, end):
        process = client(address, "wait")
        forked = int(process.stdout.readline())
        end()
        refused = client(address, "tell")
        assert "nobody ran it" in refused.communicate()[1]
        assert server.poll() is None
        os.kill(forked, signal.SIGTERM)
        process.communicate()
        assert process.returncode == -signal.SIGTERM
        assert server.stdout.read() == b"ended"
        assert server.wait() == 0


def test_a_server_that_was_killed_is_named():
    with serving() as (address, server, _):
        process = client(address, "wait")
        forked = int(process.stdout.readline())
        server.kill()
        _, wrong = process.communicate()
        assert gone(forked)
    assert (process.returncode, wrong) == (
        1,
        "herdbook: the process from which the jobs of this build are forked was killed\n",
    )
    late = client(address, "tell")
    assert "nobody ran it" in late.communicate()[1]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x05",
        b"\x03\0\0\0\0\0\0\0{}x",
        (10).to_bytes(8, "little") + b'{"a": "b"}',
    ],
)
def test_what_is_no_request_is_passed_over(address, sent):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(10) == b""
    process = client(address, "tell")
    process.communicate("")
    assert process.returncode == 7


def test_a_server_of_another_installation_runs_nothing(address):
    request = {
        "arguments": ["tell"],
        "environment": {},
        "folder": "/",
        "ignored": [],
        "process": 1,
        "root": f"{ROOT}/elsewhere",
        "umask": 0,
    }
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(len(content).to_bytes(8, "little") + content)
        assert connection.recv(10) == b""


def test_what_the_server_does_not_take_the_program_runs_itself(address):
    assert client(address, "refused").communicate() == ("", "nobody ran it\n")


def test_without_a_standard_file_the_program_runs_itself(address):
    """The connection would have its number, and be handed over in its place."""
    asked = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&-', sys.executable, "-c", CLIENT, "tell"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # it would wait for itself
        env={**os.environ, VARIABLE: address, "TOLD": "it"},
    )
    assert (asked.stdout, asked.stderr) == ("", "nobody ran it\n")


def test_nothing_is_asked_without_a_server(monkeypatch):
    from herdbook.forkserver.client import ask

    monkeypatch.setenv(VARIABLE, "")
    assert ask(["verify"]) is None
    monkeypatch.delenv(VARIABLE)
    assert ask(["verify"]) is None


def test_a_server_is_started_unless_it_is_switched_off(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    start.start()
    assert os.environ[VARIABLE] == ""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HERDBOOK_RECIPE", "none.yaml")
    start.start()
    folder = Path(os.environ[VARIABLE]).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    start.stop()
    assert VARIABLE not in os.environ
    assert not folder.exists()


def test_where_no_server_can_be_nothing_is_left(monkeypatch, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    before = sorted(map(str, Path("/proc/self/fd").iterdir()))
    start.start()
    assert VARIABLE not in os.environ
    assert list(folder.iterdir()) == []
    assert sorted(map(str, Path("/proc/self/fd").iterdir())) == before


def test_what_ends_a_program_does_not_end_a_server_that_begins(monkeypatch):
    """A terminal interrupts it too; only its build, or what cannot be ignored, ends it, and leaves nothing."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HERDBOOK_RECIPE", "none.yaml")
    for number, status in {signal.SIGINT: 0, signal.SIGKILL: -signal.SIGKILL}.items():
        start.start()
        folder = Path(os.environ[VARIABLE]).parent
        [(process, _)] = start._started
        process.send_signal(number)
        start.stop()
        assert process.returncode == status
        assert not folder.exists()


def test_a_server_needs_no_standard_files(tmp_path):
    """Those of a job are its own."""
    code = """
import os, subprocess, sys
from herdbook.forkserver import start
start.start()
command = [sys.executable, "-c", "import sys; from herdbook.cli.start import main; sys.exit(main())", "--version"]
subprocess.run(command, stdin=subprocess.DEVNULL, stdout=open("out", "wb"), stderr=subprocess.STDOUT, check=True)
start.stop()
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', sys.executable, "-c", code],
        cwd=tmp_path,
        env={**environment, "HERDBOOK_RECIPE": "none.yaml", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert (tmp_path / "out").read_text().startswith("herdbook ")


def test_imports_are_those_of_rules_and_exist():
    """Named once more by the rules and by the packages; what is missing would slow down builds, and nobody would see it."""
    import importlib.util

    from herdbook.cli import forked
    from herdbook.steps.registry import STEPS

    assert forked.IMPORTS.keys() <= STEPS.keys()
    for name in {name for names in forked.IMPORTS.values() for name in names}:
        assert importlib.util.find_spec(name), name


def test_after_an_import_that_failed_jobs_run_by_themselves(monkeypatch):
    """Some modules fail otherwise when they are imported once more."""
    from herdbook.cli import forked

    monkeypatch.setitem(forked.IMPORTS, "evaluate", ("no_such_module",))
    prepare = forked.Preparation()
    assert prepare(["--version"])
    assert prepare([])
    assert not prepare(["evaluate", "KEY"])
    assert not prepare(["--version"])


def test_after_a_change_of_code_or_packages_jobs_run_by_themselves(monkeypatch, tmp_path):
    """They would import the new code, and take the digests of the old."""
    from herdbook.cli import forked

    (tmp_path / "code/steps").mkdir(parents=True)
    module = tmp_path / "code/steps/module.py"
    module.write_text("A = 1")
    (tmp_path / "packages/torch-1.dist-info").mkdir(parents=True)
    monkeypatch.setattr(forked, "ROOT", str(tmp_path / "code"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages")])
    prepare = forked.Preparation()
    (tmp_path / "code/steps/__pycache__").mkdir()
    assert prepare(["--version"])
    module.write_text("A = 22")
    assert not prepare(["--version"])
    prepare = forked.Preparation()
    assert prepare(["--version"])
    (tmp_path / "packages/torch-1.dist-info").rename(tmp_path / "packages/torch-2.dist-info")
    assert not prepare(["--version"])
    prepare = forked.Preparation()
    module.unlink()
    assert not prepare(["--version"])


def test_a_fork_ends_without_taking_its_objects_apart():
    """But all that has asked for it is called first, and what was printed is seen."""
    code = """
import atexit, sys
from herdbook.cli import forked

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
atexit.register(forked.end)
atexit.register(print, "called")
print("printed")
forked._status.append(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("printed\ncalled\n", 3), done.stderr
