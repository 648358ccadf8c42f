"""Builds whose jobs are forked from a server of their own, as those of users are; other tests have one for a whole run."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from herdbook.forkserver import VARIABLE
from support import rebuilds

pytestmark = [pytest.mark.slow, pytest.mark.own_process]


def started(project, folder):
    """Start a build with the real programs; temporary files are in a folder."""
    environment = project.environment(forked=False)
    del environment[VARIABLE]
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        cwd=project.root,
        env={**environment, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def seen(process):
    """Return the forked jobs below a process, and the servers: a job has its server's command line, and no name of its own yet
    when it has just been forked."""
    jobs, servers = [], []
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            if "herdbook.cli.forked" in one.cmdline():
                (jobs if "herdbook.cli.forked" in one.parent().cmdline() else servers).append(one)
        except psutil.Error:
            continue
    return jobs, servers


def until_forked(process):
    while not (found := seen(process))[0]:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    return found


def left(folder):
    return sorted(path.name for path in folder.glob("herdbook-*"))


def test_the_release_is_the_same_and_nothing_remains(tmp_path):
    """The other build's jobs make their imports themselves, but for those that the server of the test run has made."""
    (tmp_path / "temporary").mkdir()
    project = rebuilds.herd(tmp_path / "forked")
    process = started(project, tmp_path / "temporary")
    _, servers = until_forked(process)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert len(servers) == 1
    assert not any(one.is_running() for one in servers)
    assert left(tmp_path / "temporary") == []
    other = rebuilds.herd(tmp_path / "other")
    other.snakemake()
    sums, others = (next(one.results.glob("*/release/SHA256SUMS")).read_bytes() for one in (project, other))
    assert sums == others
    assert project.run() == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_server_ends_with_its_build(tmp_path, number):
    """A terminal interrupts all processes of a build; whoever kills Snakemake kills it alone, and its jobs go on to their end."""
    (tmp_path / "temporary").mkdir()
    project = rebuilds.herd(tmp_path / "herd")
    process = started(project, tmp_path / "temporary")
    jobs, servers = until_forked(process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    process.communicate()
    _, alive = psutil.wait_procs([*jobs, *servers], timeout=120)
    assert not alive
    assert left(tmp_path / "temporary") == []
