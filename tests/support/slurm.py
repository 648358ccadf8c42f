"""A real SLURM on this machine: Debian's packages on the loopback, several nodes, a GPU in name on each, no accounting.

Everything lies in one folder and runs as a child of the test; nothing of the machine is changed.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
PATHS = f"{os.environ['PATH']}:/usr/sbin"
PARTITIONS = {"main": ("node1", "node2"), "frail": ("node3", "node4")}
# The executor takes every variable of SLURM's out of a job's environment, and srun has to find its configuration.
SRUN = """#!/bin/sh
SLURM_CONF={conf} exec {srun} "$@"
"""
CONFIGURATION = """
ClusterName=herd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
AccountingStorageType=accounting_storage/none
# Memory is looked at every second; a job that has more than it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
# A job that a node took with it is lost, not put back into the queue: so the next try is the workflow's.
JobRequeue=0
# A node that is silent for as long is given up, with its jobs: a busy machine can be silent for some seconds.
SlurmdTimeout=20
# What became of a job is asked for when the build is over.
MinJobAge=7200
KillWait=1
MpiDefault=none
MailProg=/bin/true
"""
GRES = "NodeName=node[1-4] Name=gpu Type=h100 File=/dev/null\n"


class Cluster:
    """SLURM's daemons, the controller's and one for each node."""

    def __init__(self, root):
        self.root = root
        self._daemons = {}
        (root / "munge.key").write_bytes(os.urandom(128))
        (root / "munge.key").chmod(0o600)
        self.configuration = root / "slurm.conf"
        (root / "gres.conf").write_text(GRES, encoding="utf-8")
        host = socket.gethostname()
        controller, *ports = free_ports(5)
        lines = [CONFIGURATION.format(root=root, host=host, controller=controller)]
        for port, node in zip(ports, sum(PARTITIONS.values(), ()), strict=True):
            about = "CPUs=8 RealMemory=16000 Gres=gpu:h100:1"
            lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {about}\n")
        lines += [f"PartitionName={name} Nodes={','.join(nodes)}\n" for name, nodes in PARTITIONS.items()]
        self.configuration.write_text("".join(lines), encoding="utf-8")
        (root / "bin").mkdir()
        srun = root / "bin/srun"
        srun.write_text(SRUN.format(conf=self.configuration, srun=shutil.which("srun")), encoding="utf-8")
        srun.chmod(0o755)

    @property
    def environment(self):
        """Variables by which its commands find it."""
        return {"PATH": f"{self.root}/bin:{PATHS}", "SLURM_CONF": str(self.configuration)}

    def start(self):
        """Start all daemons and wait until the nodes are there."""
        files = {
            "key-file": "key",
            "socket": "sock",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        options = [f"--{option}={self.root}/munge.{end}" for option, end in files.items()]
        self._start("munged", "munged", "--foreground", *options)
        wait_for((self.root / "munge.sock").exists, "munged")
        (self.root / "state").mkdir()
        self._start("slurmctld", "slurmctld", "-D")
        for node in sum(PARTITIONS.values(), ()):
            self._start(node, "slurmd", "-D", "-N", node)
        wait_for(lambda: self.command("sinfo", "-h", "-N", "-t", "idle").count("node") == 4, "idle nodes")

    def _start(self, name, *command):
        with (self.root / f"{name}.out").open("w") as out:
            self._daemons[name] = subprocess.Popen(
                command, env={**os.environ, **self.environment}, stdout=out, stderr=out
            )

    def command(self, *command):
        """Run a command of SLURM's and return what it says."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        return done.stdout

    def jobs(self, comment):
        """Return the jobs with a comment, as ``scontrol`` shows them, in the order of their submission."""
        lines = self.command("scontrol", "show", "jobs", "--oneliner").splitlines()
        found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
        return sorted(
            (job for job in found if job.get("Comment", "").startswith(comment)),
            key=lambda j: int(j["JobId"]),
        )

    def kill_node(self, node):
        """Take a node away, with all that runs on it, as if its power had failed."""
        running = {job["JobId"] for job in self.jobs("") if job.get("BatchHost") == node}
        self._daemons[node].kill()
        steps = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if any(words.startswith(f"slurmstepd: [{job}.") for job in running):
                steps.append((process, process.children(recursive=True)))
        # first those that would tell the controller that what they watch has failed
        for process in (*(step for step, _ in steps), *(one for _, found in steps for one in found)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self):
        """End all jobs and daemons, and remove the folder."""
        self.command("scancel", "--full", "--user", "root")
        wait_for(lambda: not self.command("squeue", "-h").strip(), "an empty queue", 20, required=False)
        for process in reversed(self._daemons.values()):
            process.terminate()
        for process in self._daemons.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.root, ignore_errors=True)


def free_ports(count):
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for(condition, what, seconds=300, *, required=True):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            assert not required, f"no {what} after {seconds} s"
            return
        time.sleep(0.5)


def require():
    """Skip the test, and say why, where no SLURM can be started."""
    missing = [name for name in DAEMONS if not shutil.which(name, path=PATHS)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons can be started by root alone")


def make():
    """Return a cluster that runs, in a folder that munge trusts: below none that others may write to, or not enter."""
    root = Path(tempfile.mkdtemp(prefix="slurm-"))
    root.chmod(0o755)
    cluster = Cluster(root)
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    return cluster
