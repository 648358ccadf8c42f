"""What a user names that is neither a folder nor a repository: one message that says what to name, and nothing is sent anywhere."""

import os
import shutil
from pathlib import Path

import pytest

from herdbook.cli.main import main
from herdbook.release import subject
from herdbook.release.unopened import not_opened

REPOSITORY = "owner/name"


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """Go to an empty folder; a repository that is opened fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("herdbook.hub.resolve", lambda *_: pytest.fail("asked the Hub"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf://owner/name", REPOSITORY),
        ("hf://models/owner/name@v1.0", f"{REPOSITORY}@v1.0"),
        ("https://huggingface.co/owner/name", REPOSITORY),
        ("https://huggingface.co/owner/name/", REPOSITORY),
        ("https://huggingface.co/owner/name?library=transformers", REPOSITORY),
        ("https://huggingface.co/owner/name/tree/main", REPOSITORY),
        ("https://huggingface.co/owner/name/tree/v1/provenance", f"{REPOSITORY}@v1"),
        ("https://www.huggingface.co/owner/name/blob/main/README.md#files", REPOSITORY),
        ("huggingface.co/owner/na.me-7B_v2", "owner/na.me-7B_v2"),
        ("https://hf.co/owner/name.git", REPOSITORY),
        ("git@hf.co:owner/name.git", REPOSITORY),
        ("https://huggingface.co/datasets/owner/name", None),
        ("https://huggingface.co/owner", None),
        ("https://example.org/owner/name", None),
        ("a/b/c", None),
        ("name", None),
        ("", None),
        (" ", None),
    ],
)
def test_an_address_leads_to_the_name_of_its_repository(text, meant, capsys):
    assert main(["verify", text]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    shown = text if text.strip() else repr(text)
    said = f"{shown}: is neither a folder nor owner/name or owner/name@revision"
    assert line.endswith(f"{said}; write {meant}" if meant else said)
    assert meant is None or subject.can_be_opened(meant)


def test_a_slash_at_the_end_is_named():
    assert not_opened("owner/name/").endswith("; if you mean a repository, write owner/name")


@pytest.mark.parametrize("command", ["verify", "audit", "card"])
@pytest.mark.parametrize("name", ["pipe", "sub/pipe", "nowhere", "sub/nowhere", "round", "file/x", "a" * 300])
def test_what_is_here_is_not_taken_for_a_repository_and_never_waited_for(name, command, capsys):
    Path("sub").mkdir()
    for folder in (".", "sub"):
        os.mkfifo(f"{folder}/pipe")
        Path(folder, "nowhere").symlink_to("nothing")
    Path("round").symlink_to("round")
    Path("file").touch()
    assert main([command, name]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert {
        "pipe": "is a pipe; name a folder",
        "nowhere": "is a link to nothing, which leads nowhere",
        "round": "is a link to round, which leads nowhere",
        "x": "cannot be opened: Not a directory",
    }.get(name.rpartition("/")[2], "cannot be opened: File name too long") in line


def test_a_folder_that_may_not_be_searched_is_not_taken_for_a_repository(monkeypatch, capsys):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    monkeypatch.setattr("pathlib.Path.lstat", refuse)
    assert main(["verify", "owner/name"]) == 2
    assert "owner/name: cannot be opened: Permission denied" in capsys.readouterr().err


def test_a_file_leads_to_what_can_be_verified(capsys):
    def said(name):
        assert main(["verify", name]) == 2
        return capsys.readouterr().err.splitlines()[-1].removeprefix(f"Error: {name}: ")

    Path("release").mkdir()
    for name in ("release/SHA256SUMS", "release/a.gguf", "b.gguf", "mine.yaml", "mine.lock.json"):
        Path(name).touch()
    shutil.make_archive("c", "zip", "release")
    shutil.make_archive("d", "gztar", "release")
    assert said("release/a.gguf") == "is a file of the release in release: herdbook verify release"
    assert said("b.gguf").startswith(
        "is a file. Name the release that it should be of: herdbook verify b.gguf --of"
    )
    assert said("mine.yaml").startswith("is a recipe. Build it, and verify the release that it makes")
    for name in ("c.zip", "d.tar.gz"):
        assert said(name) == "is an archive; unpack it, and name the folder that it contains"
