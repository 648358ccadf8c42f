"""Files are whole or absent, and what killed processes left is removed, but nothing that is being written."""

import errno
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from herdbook import files
from herdbook.files import (
    atomic_writer,
    dump_json,
    git_blob_id,
    link,
    remove_abandoned,
    scratch,
    sha256_file,
    write_output,
    write_text,
    written_meanwhile,
)
from herdbook.publish.folder import STAGE


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_writer(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_disk_that_fails_while_a_file_is_written_leaves_the_old_file(tmp_path, monkeypatch):
    path, told = tmp_path / "file", threading.Event()
    path.write_text("old")

    def fail(_):
        told.set()
        raise OSError(errno.EIO, "Input/output error")  # the system tells it once: `fsync` will not

    monkeypatch.setattr(files, "FLUSH_SECONDS", 0.001)
    monkeypatch.setattr(os, "fdatasync", fail)
    with (
        pytest.raises(OSError, match="Input/output"),
        atomic_writer(path) as file,
        written_meanwhile(file),
    ):
        file.write(b"new")
        assert told.wait(60)
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    script = (
        "import os, pathlib, signal, sys\nfrom herdbook.files import atomic_writer\n"
        "with atomic_writer(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_link_is_replaced_and_never_written_through(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    path = tmp_path / "file"
    path.symlink_to(target)
    write_text(path, "new")
    assert target.read_text() == "precious"
    assert not path.is_symlink()


def test_what_the_user_names_is_followed_and_keeps_its_kind(tmp_path):
    """A named pipe stands for devices: none of the machine is put at risk by a test that root may run."""
    target, link = tmp_path / "elsewhere/target", tmp_path / "link"
    link.symlink_to(target)  # which does not exist yet
    for text in ("first", "second"):
        write_output(link, text)
        assert (link.readlink(), target.read_text()) == (target, text)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(pipe, "piped")
        assert os.read(read, 100) == b"piped"
    finally:
        os.close(read)
    assert pipe.is_fifo()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("write", ["files import write_output", "cli.output import append_report"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_can_be_named(tmp_path, to, write):
    """It is what /dev/stdout leads to, whose name a test of root's could replace."""
    script = (
        f"import pathlib\nfrom herdbook.{write} as write\nprint('before', flush=True)\n"
        "write(pathlib.Path('/proc/self/fd/1'), 'named\\n')\nprint('after', flush=True)"
    )
    command = [sys.executable, "-c", script]
    if to == "pipe":
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    else:
        with (tmp_path / "log").open("w") as log:
            subprocess.run(command, check=True, stdout=log)
        said = (tmp_path / "log").read_text()
    assert said == "before\nnamed\nafter\n"


def test_what_cannot_be_written_to_standard_output_does_not_replace_what_is_there(tmp_path):
    log = tmp_path / "log"
    script = (
        "import pathlib, resource\nfrom herdbook.files import write_output\nprint('before', flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "write_output(pathlib.Path('/proc/self/fd/1'), 'named\\n')"
    )
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=file, stderr=subprocess.PIPE, check=False
        )
    assert b"File too large" in done.stderr
    assert log.read_text().startswith("before\n")


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_links_are_relative_and_replace_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        write_text(tmp_path / "store" / name, name)
    place = tmp_path / "models" / "m" / "weights"
    for name in ("one", "two"):
        link(type(place)("store") / name, place.relative_to(tmp_path))
        assert place.read_text() == name
        assert str(place.readlink()) == f"../../store/{name}"


def test_digests(tmp_path):
    content = bytes(range(256)) * 100
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    # what `printf 'hello\n' | git hash-object --stdin` prints
    assert git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_json_is_stable():
    assert dump_json({"b": 1, "a": "é"}) == '{\n  "a": "é",\n  "b": 1\n}\n'


# --- what killed processes left -----------------------------------------------------------------------------------

SHARD = """
import os, pathlib, signal, sys
from herdbook.weights.checkpoint import Produced, write_shard

def chunks():
    yield b"12"
    print("half", flush=True)
    sys.stdin.read()  # until its input ends
    yield b"34"

path = pathlib.Path(sys.argv[1])
write_shard(path, path.with_suffix(".json"), [Produced("t", "U8", (4,), chunks)], {})
"""
PROGRAM = """
import pathlib, subprocess, sys
from herdbook.files import scratch

with scratch(pathlib.Path(sys.argv[1])) as folder:
    code = "import sys; print('writes', flush=True); sys.stdin.read()"
    subprocess.run([sys.executable, "-c", code], cwd=folder, close_fds=False)
"""


@contextmanager
def running(code, path):
    """Run a writer up to its middle, in a session of its own, so that all of it can be stopped in the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_what_a_killed_writer_left_is_removed_and_a_live_writer_s_is_not(tmp_path):
    with running(SHARD, tmp_path / "shards/live.safetensors") as live:
        with running(SHARD, tmp_path / "shards/killed.safetensors") as killed:
            assert len(leftovers(tmp_path / "shards")) == 2
            remove_abandoned(tmp_path)
            assert len(leftovers(tmp_path / "shards")) == 2
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
        assert len(leftovers(tmp_path / "shards")) == 2
        remove_abandoned(tmp_path)
        [left] = leftovers(tmp_path / "shards")
        assert left.startswith(".live.safetensors.")
        live.stdin.close()
        assert live.wait() == 0
    assert leftovers(tmp_path / "shards") == []
    assert (tmp_path / "shards/live.safetensors").read_bytes().endswith(b"1234")


def test_a_folder_in_which_a_program_of_a_killed_process_still_writes_is_not_removed(tmp_path):
    with running(PROGRAM, tmp_path / "file") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        remove_abandoned(tmp_path)
        assert len(leftovers(tmp_path)) == 1
        process.stdin.close()  # the program ends, too
        assert process.stdout.read() == ""
    remove_abandoned(tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("moment", ["before the lock", "while it is locked by the other"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_part_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch, kind, moment
):
    lock, removed = fcntl.flock, []

    def late(handle, operation):
        if not removed:
            removed.append(handle)
            if moment == "before the lock":
                monkeypatch.setattr(fcntl, "flock", lock)
                remove_abandoned(tmp_path)
            else:
                raise BlockingIOError
        return lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    if kind == "file":
        write_text(tmp_path / "x", "whole")
        assert (tmp_path / "x").read_text() == "whole"
    else:
        with scratch(tmp_path / "x") as folder:
            remove_abandoned(tmp_path)
            assert folder.is_dir()
    assert removed


def test_without_locks_nothing_is_removed_and_all_is_written(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".x.abcdefgh.part").write_text("somebody's")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    write_text(tmp_path / "x", "whole")
    link(Path("target"), tmp_path / "linked")
    remove_abandoned(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.abcdefgh.part", "linked", "x"]


def test_only_temporary_names_are_removed(tmp_path):
    kept = ["x.part", ".part", ".x.part", f".usb{STAGE}", f"inside/{STAGE}", ".x.abcdefg.part", "a.abcdefgh.part", ".x.1.parts"]  # fmt: skip
    gone = [
        ".x.abcdefgh.part",
        ".a b.safetensors.a1_cdefg.part",
        "deep/er/.x.json.abcdefgh.part",
        ".x.4711.part",
    ]
    for name in (*kept, *gone, ".f.abcdefgh.part/full.gguf"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/.x.abcdefgh.part").write_text("x")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/.l.abcdefgh.part").symlink_to(tmp_path / "x.part")
    (tmp_path / "results/models").symlink_to(tmp_path / "outside")
    remove_abandoned(tmp_path / "results")
    assert (tmp_path / "outside/.x.abcdefgh.part").exists()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["models"]
    remove_abandoned(tmp_path)
    for name in kept:
        assert (tmp_path / name).exists(), name
    for name in (*gone, ".f.abcdefgh.part"):
        assert not (tmp_path / name).exists(), name


def test_temporary_names_are_those_that_are_removed(tmp_path):
    for make in (atomic_writer, scratch):
        with make(tmp_path / "some name.json"):
            [name] = leftovers(tmp_path)
            assert files._PART.fullmatch(name)
