"""Only plain files inside a folder are read, and all that reads a stranger's folder goes through one function."""

import ast
import json
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from herdbook import limits, plain
from herdbook.cli.main import main
from herdbook.errors import UnverifiedError, VerificationError
from herdbook.layout import CLAIMS, OUTSIDE_SUMS, PUBLIC_KEY, SIGNATURE, SUMS, WEIGHTS_INDEX
from herdbook.publish import folder as folders
from herdbook.publish import local
from herdbook.release.subject import FolderSubject
from herdbook.verify.rebuild.gguf import _require_plain
from support import dummy_release

SOURCE = Path(__file__).parents[2] / "src/herdbook"
SECRET = b"-----BEGIN PRIVATE KEY-----"


@contextmanager
def limit(seconds=20):
    """Fail what hangs."""

    def stop(*_):
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "home/key.pem"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def socketed(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


TRAPS = {
    "a link to a file": lambda path, secret: path.symlink_to(secret),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path, _: path.symlink_to("nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to a file beside it": lambda path, _: path.symlink_to("honest"),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: socketed(path),
    "a folder": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_is_not_plain_is_not_opened(tmp_path, secret, trap):
    (tmp_path / "honest").write_bytes(b"1")
    TRAPS[trap](tmp_path / "x", secret)
    assert plain.read(tmp_path, "honest") == b"1"
    with limit(), pytest.raises(VerificationError):
        plain.read(tmp_path, "x")


def test_a_linked_parent_leads_nowhere(tmp_path, secret):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_bytes(b"1")
    (tmp_path / "out").symlink_to(secret.parent)
    (tmp_path / "back").symlink_to("in")
    assert plain.read(tmp_path, "in/file") == b"1"
    for name in ("out/key.pem", "back/file", "../home/key.pem", "in/../in/file", str(secret)):
        with pytest.raises(VerificationError):
            plain.read(tmp_path / "", name)
    assert plain.read(tmp_path / "back", "file") == b"1"  # the folder itself was named by the user
    assert set(FolderSubject(tmp_path).odd) == {"out", "back"}


def test_a_device_is_not_opened():
    with limit(), pytest.raises(VerificationError, match="is a device"):
        plain.read(Path("/dev"), "zero")


def test_what_takes_a_file_s_place_in_the_last_moment_is_not_read(tmp_path, secret, monkeypatch):
    """The file is a plain one when it is looked at, and a link or a pipe when it is opened."""
    look = os.stat
    for trap in (lambda path: path.symlink_to(secret), os.mkfifo):
        path = tmp_path / "x"
        path.unlink(missing_ok=True)
        path.write_bytes(b"1")

        def swapped(*arguments, trap=trap, path=path, **options):
            about = look(*arguments, **options)
            monkeypatch.setattr(os, "stat", look)
            path.unlink()
            trap(path)
            return about

        monkeypatch.setattr(os, "stat", swapped)
        with limit(), pytest.raises(VerificationError):
            plain.read(tmp_path, "x")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"23"),
        lambda path: (path.write_bytes(b"2"), os.utime(path, ns=(1, 1))),
        lambda path: (path.with_name("y").write_bytes(b"2"), path.with_name("y").replace(path)),
    ],
)
def test_a_file_that_changes_after_it_was_listed_is_not_read(tmp_path, change):
    (tmp_path / "x").write_bytes(b"1")
    os.utime(tmp_path / "x", ns=(1, 1))
    subject = FolderSubject(tmp_path)
    assert subject.read("x") == b"1"
    change(tmp_path / "x")
    for reading in (subject.read, subject.digest, subject.path, lambda name: subject.read_range(name, 0, 1)):
        with pytest.raises(UnverifiedError, match="has changed"):
            reading("x")
    (tmp_path / "x").unlink()
    with pytest.raises(VerificationError, match="is missing"):
        subject.read("x")


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    os.utime(tmp_path / "x", ns=(1, 1))
    subject = FolderSubject(tmp_path)
    with pytest.raises(UnverifiedError, match="has changed"), subject.open("x") as file:
        (tmp_path / "x").write_bytes(b"2")
        file.read()


# --- the commands -------------------------------------------------------------------------------------------------

UNCOVERED = sorted(OUTSIDE_SUMS - {SUMS})
LEADS = {"key": None, "zero": "/dev/zero", "pipe": None}


@pytest.fixture(params=[(name, lead) for name in (CLAIMS, SIGNATURE, PUBLIC_KEY) for lead in LEADS])
def trapped(request, tmp_path, secret):
    """A release in which a file that no checksum covers is a trap."""
    name, lead = request.param
    release = dummy_release.write(tmp_path / "r").folder
    (release / name).unlink(missing_ok=True)
    if lead == "pipe":
        os.mkfifo(release / name)
    else:
        (release / name).symlink_to(LEADS[lead] or secret)
    return release, name


def test_the_files_that_no_checksum_covers_are_these():
    assert sorted([CLAIMS, SIGNATURE, PUBLIC_KEY]) == UNCOVERED


def holds_secret(*folders_):
    return [
        path
        for folder in folders_
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and SECRET in path.read_bytes()
    ]


def test_no_command_follows_what_no_checksum_covers(trapped, tmp_path, capsys):
    release, name = trapped
    with limit(60):
        assert main(["publish", "--release", str(release), "--to", str(tmp_path / "usb")]) == 7
        assert f"{release / name}: is a" in capsys.readouterr().err
        assert main(["publish", "--release", str(release), "--repo", "a/b", "--to", str(tmp_path / "usb"), "--dry-run"]) == 7  # fmt: skip
        assert main(["verify", str(release)]) == 8
        crate = tmp_path / "crate"
        assert (
            main(["export", "ro-crate", str(release), "--to", str(crate), "--published", "2026-01-01"]) != 0
        )
    assert not (tmp_path / "usb").exists()
    assert not holds_secret(tmp_path / "r", *([crate] if crate.exists() else []))


@pytest.mark.parametrize("name", [CLAIMS, "config.json", "other.txt"])
def test_links_in_the_destination_are_not_followed(tmp_path, secret, name):
    release = dummy_release.write(tmp_path / "r")
    place = tmp_path / "usb"
    place.mkdir()
    (place / name).symlink_to(secret)
    with limit():
        folders.publish(release, place)
    assert not holds_secret(place)
    assert secret.read_bytes() == SECRET
    assert (place / name).is_symlink() == (name == "other.txt")


def test_a_staging_folder_that_was_filled_with_links_is_not_followed(tmp_path, secret):
    release = dummy_release.write(tmp_path / "r")
    place = tmp_path / "usb"
    stage = place / folders.STAGE
    stage.mkdir(parents=True)
    (stage / "config.json").symlink_to(secret)
    os.mkfifo(stage / "README.md")
    (stage / "elsewhere").symlink_to(secret.parent)
    with limit():
        folders.publish(release, place)
    assert secret.read_bytes() == SECRET
    assert not holds_secret(place)
    assert not [path for path in place.rglob("*") if path.is_symlink() or path.is_fifo()]


def test_what_is_sent_is_what_was_hashed(tmp_path):
    release = local.read(dummy_release.write(tmp_path / "r").folder)
    path = release.folder / "config.json"
    os.utime(path, ns=(1, 1))
    release = local.read(release.folder)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UnverifiedError, match="has changed"):
        folders.publish(release, tmp_path / "usb")


@pytest.mark.parametrize("named", ["../home/key.pem", "/dev/zero", "linked", "pipe"])
def test_an_index_cannot_lead_the_derivation_of_a_gguf_elsewhere(tmp_path, secret, named):
    """That derivation opens the files by their paths."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1")
    (folder / "linked").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    index = folder / WEIGHTS_INDEX
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    _require_plain(FolderSubject(folder), ["config.json"])
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": named}}))
    with limit(), pytest.raises(VerificationError, match="is missing|is a link|is a pipe"):
        _require_plain(FolderSubject(folder), ["config.json"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_audit_says_which_file_is_a_link(tmp_path, name, capsys):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "model").mkdir()
    for file, content in (("config.json", "{}"), ("model.safetensors", "")):
        (tmp_path / "blobs" / file).write_text(content)
        (tmp_path / "model" / file).write_text(content)
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to(f"../blobs/{name}")
    assert main(["audit", str(tmp_path / "model")]) == 9
    assert f"{name} is a link; only plain files are read" in capsys.readouterr().out


# --- the structure ------------------------------------------------------------------------------------------------

READERS = {
    "open", "open_file", "read_text", "read_bytes", "sha256_file", "digest_shard", "read_header", "read_span", "read_record",
    "stream_span", "copyfile", "copy", "copytree", "safe_open", "load_file", "memmap",
}  # fmt: skip
# Each call that may open a file in the packages that read releases, with what it opens.
ONE = "what `plain.open_file` opened"
SCRATCH = "what the verifier itself made in its scratch folder"
OPENED = {
    ("release/subject.py", "plain.open_file(self.folder, name)"): "the one function",
    ("release/subject.py", "self.open(name)"): ONE,
    ("verify/files.py", "subject.open(name)"): ONE,
    ("publish/local.py", "self.content.open(self.name)"): ONE,
    ("publish/local.py", "self.open()"): ONE,
    ("publish/folder.py", "file.open()"): ONE,
    ("publish/folder.py", "os.open(stage, os.O_RDONLY)"): "a folder, to lock it",
    ("export/archive.py", "archive.open(about, 'w')"): "the archive, for writing",
    ("verify/page/__init__.py", "files.joinpath(part).read_text(encoding='utf-8')"): "the package's own page",
    (
        "verify/page/__init__.py",
        "files.joinpath('page.html.j2').read_text(encoding='utf-8')",
    ): "the package's own page",
    ("audit/configuration.py", "config.read_bytes()"): "the file that the user named with --config",
    (
        "audit/listing.py",
        "names_path.read_text(encoding='utf-8')",
    ): "the file that the user named with --list",
    ("audit/listing.py", "path.read_text(encoding='utf-8')"): "the results of an earlier run, beside --page",
    ("audit/listing.py", "kept_path.open('a', encoding='utf-8')"): "these results, for writing",
    ("verify/copied.py", "path.read_bytes()"): "the recipe and lock that the user named with --inputs",
    (
        "verify/copied.py",
        "plain.open_file(Path(place), target)",
    ): "where a link in the user's own copy of the author's folder leads",
    ("verify/repair.py", "read_record(record)"): "results beside the release, where it was built",
    ("verify/repair.py", "sha256_file(path)"): "the same",
    ("verify/one_file.py", "sha256_file(path)"): "the file that the user named",
    ("verify/one_file.py", "path.open('rb')"): "the same",
    ("verify/rebuild/build.py", "(plan.layout.release_folder / SUMS).read_text(encoding='utf-8')"): SCRATCH,
    ("verify/rebuild/build.py", "path.read_text(encoding='utf-8')"): SCRATCH,
    ("verify/rebuild/bounds.py", "read_header(path)"): SCRATCH,
    ("verify/rebuild/bounds.py", "read_record(plan.layout.record(plan.parts[key]))"): SCRATCH,
    ("verify/rebuild/bounds.py", "read_record(plan.layout.record(plan.parts[origin.part]))"): SCRATCH,
    ("verify/rebuild/bounds.py", "read_span(path, ours)"): SCRATCH,
    ("verify/rebuild/bounds.py", "read_span(path, span)"): SCRATCH,
    ("verify/rebuild/recompute.py", "read_record(plan.layout.record(plan.parts[key]))"): SCRATCH,
    ("verify/rebuild/recompute.py", "read_record(plan.layout.record(part))"): SCRATCH,
    ("verify/rebuild/tensors.py", "read_record(plan.layout.record(part))"): SCRATCH,
    ("verify/rebuild/routers.py", "read_record(scratch.layout.record(part))"): SCRATCH,
    ("verify/rebuild/routers.py", "read_header(shard)"): SCRATCH,
    ("verify/rebuild/routers.py", "read_span(shard, read_header(shard)[name])"): SCRATCH,
    ("verify/rebuild/routers.py", "stream_span(shard, span)"): SCRATCH,
}


def openings():
    """Yield each such call: its module and its text."""
    packages = [SOURCE / name for name in ("verify", "publish", "export", "audit", "release", "steps/attest")]
    for path in (path for package in packages for path in sorted(package.rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
                if called in READERS:
                    yield path.relative_to(SOURCE).as_posix(), ast.unparse(node)


def test_all_that_reads_a_release_opens_its_files_by_one_function():
    assert set(openings()) == set(OPENED)


def test_a_folder_of_more_files_than_any_release_has_is_refused(tmp_path, monkeypatch):
    for number in range(10):
        (tmp_path / f"a/{number}").mkdir(parents=True)
        (tmp_path / f"a/{number}/file").touch()
    monkeypatch.setattr(limits, "FILES", 21)
    assert FolderSubject(tmp_path).files.keys() == {f"a/{number}/file" for number in range(10)}
    monkeypatch.setattr(limits, "FILES", 20)
    with pytest.raises(VerificationError, match="has more than 20 files and folders"):
        FolderSubject(tmp_path)


def test_a_folder_may_be_as_deep_as_its_names_are_short(tmp_path):
    folders = [Path(f"{tmp_path}/{'a/' * depth}") for depth in range(1, 1201)]
    for folder in folders:  # what removes or makes them in one go calls itself for each
        folder.mkdir()
    try:
        file = folders[-1] / "file"
        file.touch()
        assert list(FolderSubject(tmp_path).files) == ["a/" * 1200 + "file"]
        file.unlink()
    finally:
        for folder in reversed(folders):
            folder.rmdir()


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UnverifiedError, match=f"{tmp_path}: cannot be read: Permission denied"):
        FolderSubject(tmp_path)
