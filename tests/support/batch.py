"""A stand-in for a scheduler of machines that share no disk: `batch.py submit FOLDER SCRIPT`, `batch.py status FOLDER NUMBER`.

A job goes to the machine with the fewest jobs, into an empty folder there. The machine gets the text of the script, and
nothing of the disk that it is on. A job whose machine dies has failed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

RUN = """
mkdir "$0" && cd "$0" && exec sh -s
"""
# Waits for the job, wherever it runs, and notes its end.
WATCH = """
status=$0; shift
"$@"
echo $? >"$status.new" && mv "$status.new" "$status"
"""


def main():
    what, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if what == "status":
        print(status(folder / "jobs" / name))
    else:
        print(submit(folder, Path(name)))


def status(job):
    """Return what became of a job."""
    ended = job / "status"
    if not ended.exists():
        return "running"
    return "success" if int(ended.read_text()) == 0 else "failed"


def submit(folder, script):
    """Start a job on a machine, and return its number."""
    machines = {path.name: json.loads(path.read_text()) for path in sorted((folder / "machines").iterdir())}
    alive = [name for name, machine in machines.items() if Path(f"/proc/{machine['number']}").exists()]
    jobs = folder / "jobs"
    jobs.mkdir(exist_ok=True)
    running = [(job / "machine").read_text() for job in jobs.iterdir() if status(job) == "running"]
    name = min(alive, key=running.count)
    machine = machines[name]
    job = jobs / str(len(list(jobs.iterdir())) + 1)
    job.mkdir()
    (job / "machine").write_text(name)
    (job / "script").write_text(script.read_text())
    work = f"{machine['environment']['TMPDIR']}/job-{job.name}"
    with (job / "script").open() as told, (job / "output").open("w") as output:
        subprocess.Popen(
            ["sh", "-c", WATCH, job / "status", "", *machine["inside"], "sh", "-c", RUN, work],
            stdin=told,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **machine["environment"],
                "PATH": machine["environment"]["PATH"] + os.pathsep + os.environ["PATH"],
            },
            start_new_session=True,
        )
    return job.name


if __name__ == "__main__":
    main()
