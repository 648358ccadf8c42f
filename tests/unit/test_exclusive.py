"""One build at a time in a folder: a second is refused by name, and a killed one leaves nothing behind."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from herdbook.errors import StepError
from herdbook.tools import exclusive

HOLDER = (
    "import pathlib, sys, time\n"
    "from herdbook.tools.exclusive import hold\n"
    "hold(pathlib.Path(sys.argv[1]), 'building one.yaml')\n"
    "print('held', flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    monkeypatch.setattr(exclusive, "_held", {})


@pytest.fixture
def holder(tmp_path):
    """Let another process hold the lock."""
    path = tmp_path / "results" / ".running"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield path, process
        process.kill()


def test_a_second_is_refused_by_name(holder):
    path, process = holder
    with pytest.raises(StepError) as caught:
        exclusive.hold(path, "building two.yaml")
    message = str(caught.value)
    assert message.endswith("; or build in another folder with --directory.")
    assert f"process {process.pid} on {socket.gethostname()} is building one.yaml" in message
    assert str(path) in message
    assert "two.yaml" not in path.read_text()
    with pytest.raises(StepError, match="or stop it\\.$"):  # which is done in this folder or nowhere
        exclusive.hold(path, "removing results")


def test_a_killed_one_leaves_nothing_to_remove(holder):
    path, process = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    exclusive.hold(path, "two.yaml")
    assert f'"pid": {os.getpid()}' in path.read_text()
    assert "one.yaml" not in path.read_text()


def test_who_holds_it_may_ask_again(tmp_path):
    exclusive.hold(tmp_path / ".running", "one.yaml")
    exclusive.hold(tmp_path / ".running", "one.yaml")


def test_jobs_do_not_inherit_it(tmp_path, monkeypatch):
    """A job that outlives the build which was killed must not keep the next one from starting."""
    path = tmp_path / ".running"
    exclusive.hold(path, "one.yaml")
    (file,) = exclusive._held.values()
    with subprocess.Popen(["sleep", "600"], close_fds=False) as job:
        file.close()
        monkeypatch.setattr(exclusive, "_held", {})
        exclusive.hold(path, "two.yaml")
        job.kill()


def test_a_holder_that_has_not_written_its_name(holder):
    path, _ = holder
    path.write_text("")
    with pytest.raises(StepError, match="another process is building in this folder"):
        exclusive.hold(path, "two.yaml")


def test_a_file_system_without_locks_is_reported_and_tolerated(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    exclusive.hold(tmp_path / ".running", "one.yaml")
    assert "does not support locks" in capsys.readouterr().err
