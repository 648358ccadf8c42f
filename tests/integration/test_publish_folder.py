"""Publishing to a folder, killed midway: in a process of its own."""

import signal

import pytest

from herdbook.cli.main import main
from support import dummy_release
from support.publishing import at, contents, herdbook, publish

KILLED = """
import os, signal, sys
from herdbook.publish import folder

left, real = int(sys.argv.pop(1)), folder.{function}

def limited(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return real(*arguments)

folder.{function} = limited
from herdbook.cli.main import main
sys.exit(main())
"""


def killed_at(hub, root, count, release, place, function):
    code = KILLED.replace("{function}", function)
    arguments = (count, "publish", "--release", release.folder, "--to", place)
    process = herdbook(hub, root, *arguments, code=code)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err


@pytest.mark.parametrize("count", [0, 3])
def test_a_kill_midway_leaves_no_half_folder(hub, tmp_path, count):
    release = dummy_release.write(tmp_path)
    place = tmp_path / "usb/tiny"
    killed_at(hub, tmp_path, count, release, place, "_copy")
    assert not place.exists()
    stage = place.parent / ".tiny.herdbook.part"
    came = {path.name: path.stat().st_ino for path in stage.iterdir()}
    assert len(came) == count
    assert main(["publish", "--release", str(release.folder), "--to", str(place)]) == 0
    assert contents(place) == contents(release.folder)
    assert {name: (place / name).stat().st_ino for name in came} == came  # not written again
    assert [path.name for path in place.parent.iterdir()] == ["tiny"]
    assert hub.requests == []


def test_a_kill_midway_leaves_the_earlier_version_whole(hub, tmp_path, capsys):
    first = dummy_release.write(tmp_path / "1", files={"old.json": b"1"})
    release = dummy_release.write(tmp_path / "2", files={"new.json": b"1"}, weights=b"others")
    place = tmp_path / "usb"
    assert main(["publish", "--release", str(first.folder), "--to", str(place)]) == 0
    killed_at(hub, tmp_path, 2, release, place, "_copy")
    held = {
        name: content for name, content in contents(place).items() if not name.startswith(".herdbook.part/")
    }
    assert held == contents(first.folder)
    for expected in ("read back and compared", "already contains the release"):
        assert main(["publish", "--release", str(release.folder), "--to", str(place)]) == 0
        assert expected in capsys.readouterr().out
        assert set(contents(place)) == set(contents(release.folder))
    assert contents(place)["model.safetensors"] == b"others"


def test_what_an_interrupted_run_left_of_another_release_does_not_come_along(hub, tmp_path):
    other = dummy_release.write(tmp_path / "1", files={"deep/er/other.json": b"1"})
    release = dummy_release.write(tmp_path / "2")
    place = tmp_path / "usb"
    killed_at(hub, tmp_path, 5, other, place, "_copy")
    assert (tmp_path / ".usb.herdbook.part/deep/er/other.json").exists()
    assert main(["publish", "--release", str(release.folder), "--to", str(place)]) == 0
    assert contents(place) == contents(release.folder)
    assert not (place / "deep").exists()


def test_folder_and_hub_hold_the_same(hub, tmp_path):
    release = dummy_release.write(tmp_path, publish={"tag": "v1"})
    done = publish(release)
    assert main(["publish", "--release", str(release.folder), "--to", str(tmp_path / "usb")]) == 0
    on_hub = at(hub, done.commit)
    del on_hub[".gitattributes"]
    assert contents(tmp_path / "usb") == on_hub
