"""The demo with jobs that are forked from one process, and with jobs that make their imports themselves.

Both builds run one after the other in folders of their own, and their releases are compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from herdbook.forkserver import VARIABLE

ROOT = Path(__file__).parents[1]
LINKED = ("Snakefile", "config", "envs", "profiles", "rules", "templates")
SUMS = "results/Miniature-4x135M-laser/release/SHA256SUMS"


def build(folder: Path, environment: dict[str, str]) -> tuple[float, float, bytes]:
    """Build the demo; return the seconds it took, those of processors, and the checksums of its release."""
    folder.mkdir()
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "--cores", "all"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu_seconds, (folder / SUMS).read_bytes()


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {name: value for name, value in os.environ.items() if name != VARIABLE}
    forked = {**own, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "forked": build(Path(folder) / "forked", forked),
            "imports of its own for each job": build(Path(folder) / "alone", {**forked, VARIABLE: ""}),
        }
    for name, (seconds, cpu_seconds, _) in found.items():
        print(f"{name:32} {seconds:6.0f} s, processors {cpu_seconds:6.0f} s")
    (seconds, cpu_seconds, sums), (longer, more, others) = found.values()
    print(f"{'ratio':32} {seconds / longer:6.2f}    processors {cpu_seconds / more:6.2f}")
    print(f"releases: {'equal' if sums == others else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
