"""Machines that share no disk, on this one: each has namespaces of its own for network, mounts and processes.

They reach this machine by a bridge, so a server that listens on its address is all that they share. All else that they see
of this machine's disk is read-only, as the content of an image is; the folder of a test is hidden, and in its place each has
an empty folder of its own for everything that it writes. Jobs are handed to them by a stand-in for a scheduler (`batch.py`).
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import batch, forkserver

REPOSITORY = Path(__file__).parents[2]
# Processes of a machine see the rest of the disk as it is, and can change nothing of it.
SETUP = """
set -e
mount --make-rprivate /
while read -r _ target kind _; do
  case "$kind:$target" in proc:*|sysfs:*|cgroup*|devpts:*|devtmpfs:*|*:/proc*|*:/sys*) continue;; esac
  mount -o remount,bind,ro "$target" 2>/dev/null || true
done </proc/mounts
mount -t tmpfs none /dev/shm
mount -t tmpfs none "$1"
mkdir "$1/home" "$1/tmp" "$1/bin"
touch "$1/ready"
exec sleep 1000000
"""
SCRATCH = "tmp"
# The interpreter that Snakemake calls there, and what runs before a step.
PYTHON = """#!/bin/sh
exec {python} "$@"
"""
HERDBOOK = """#!/bin/sh
{before}
exec {herdbook} "$@"
"""


class Network:
    """A bridge on this machine, and machines that are connected to it.

    Args:
        root: The folder of the test, which they do not see.
    """

    def __init__(self, root):
        self.root, self.machines = root, {}
        self._ended = contextlib.ExitStack()

    def __enter__(self):
        for program in ("ip", "nsenter", "setpriv", "unshare"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed: apt-get install iproute2 util-linux")
        if os.geteuid() != 0:
            pytest.skip("namespaces of networks need root")
        tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False)
        if tried.returncode != 0:
            pytest.skip("namespaces of networks, mounts and processes are not permitted here")
        for _ in range(20):
            number = random.randrange(10, 250)
            self.bridge, self.address = f"herd{number}", f"10.83.{number}.1"
            added = _ip("link", "add", self.bridge, "type", "bridge", check=False)
            if added.returncode == 0:
                break
        else:
            pytest.skip(f"a bridge of networks is not permitted here: {added.stderr.strip()}")
        self._ended.callback(_ip, "link", "del", self.bridge, check=False)
        _ip("addr", "add", f"{self.address}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        return self

    def __exit__(self, *_):
        self._ended.close()

    def add(self, name, environment, before=""):
        """Start a machine.

        Args:
            name: Its name.
            environment: What its owner sets there, such as credentials.
            before: Shell code that runs before each step.
        """
        machine = Machine(self, name, environment, before)
        self._ended.callback(machine.stop)
        self.machines[name] = machine
        return machine

    def jobs(self):
        """Return the jobs in the order in which they were submitted."""
        folders = sorted((self.root / "scheduler/jobs").glob("*"), key=lambda path: int(path.name))
        return [Job(folder) for folder in folders]

    def scheduler(self, what):
        """Return the command with which jobs are submitted, or asked about."""
        return f"{sys.executable} -I -S {batch.__file__} {what} {self.root}/scheduler"


class Job:
    """A job that was submitted: what it was, where it ran, and what became of it."""

    def __init__(self, folder):
        about = re.search(r"# properties = (.*)", (folder / "script").read_text(encoding="utf-8"))
        properties = json.loads(about[1])
        self.rule, self.name = properties["rule"], properties["wildcards"]["id"]
        self.machine = (folder / "machine").read_text(encoding="utf-8")
        self.status = batch.status(folder)


class Machine:
    """A machine, which ends with everything on it when its first process is killed."""

    def __init__(self, network, name, environment, before):
        self.name, self.folder = name, network.root
        self._begun = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SETUP, "sh", self.folder]
        )  # fmt: skip
        children = Path(f"/proc/{self._begun.pid}/task/{self._begun.pid}/children")
        wait_for(children.read_text)
        self.number = int(children.read_text())
        wait_for(lambda: self.path("ready").exists())
        self._connect(network)
        self._ended = contextlib.ExitStack()
        places = {"HOME": f"{self.folder}/home", "TMPDIR": f"{self.folder}/{SCRATCH}"}
        outside = {**os.environ, **places}
        outside["PYTHONPATH"] = f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY / 'tests'}"
        address = self._ended.enter_context(forkserver.running(outside, before=self.inside))
        programs = {
            "python": PYTHON.format(python=forkserver.PYTHON),
            "herdbook": HERDBOOK.format(before=before, herdbook=forkserver.PROGRAMS / "herdbook"),
        }
        for program, content in programs.items():
            path = self.path(f"bin/{program}")
            path.write_text(content, encoding="utf-8")
            path.chmod(0o755)
        self.environment = {
            **environment,
            **places,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY / "src"),
            forkserver.ADDRESS: address,
        }
        _describe(network, self)

    @property
    def inside(self):
        """The words before a command that runs on the machine."""
        return ["nsenter", "--target", str(self.number), "--net", "--mount", "--pid", f"--wd={self.folder}"]

    def path(self, name):
        """Return the path, from outside, of a file in the machine's own folder."""
        return Path(f"/proc/{self.number}/root{self.folder}/{name}")

    def kill(self):
        """End the machine with everything on it, as a failure of power does."""
        os.kill(self.number, signal.SIGKILL)
        self._begun.wait()

    def stop(self):
        """End the machine if it runs still."""
        if self._begun.poll() is None:
            self.kill()
        self._ended.close()

    def _connect(self, network):
        number = len(network.machines) + 2
        here, there = f"{network.bridge}-{number}", "eth0"
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", str(self.number))
        _ip("link", "set", here, "master", network.bridge, "up")
        inside = ["nsenter", "--target", str(self.number), "--net"]
        address = network.address.rpartition(".")[0] + f".{number}/24"
        _ip("addr", "add", address, "dev", there, before=inside)
        _ip("link", "set", there, "up", before=inside)
        _ip("link", "set", "lo", "up", before=inside)


def wait_for(condition, seconds=300):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _describe(network, machine):
    """Write down for the scheduler how to reach a machine."""
    folder = network.root / "scheduler/machines"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"number": machine.number, "inside": machine.inside, "environment": machine.environment}
    (folder / machine.name).write_text(json.dumps(about), encoding="utf-8")


def _ip(*words, check=True, before=()):
    return subprocess.run([*before, "ip", *words], check=check, capture_output=True, text=True)
