"""Files are whole or absent."""

import errno
import hashlib
import os
import subprocess
import sys

import pytest

from herdbook.files import atomic_writer, dump_json, git_blob_id, link, sha256_file, write_text


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
