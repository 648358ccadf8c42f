"""The number of jobs that a release submits to a cluster, counted in a dry run of config/buttercup.yaml at full size.

The recipe is locked against sources of full size without weights, on a local Hub, and planned like any other; then a dry run
with profiles/slurm lists the jobs and their groups. Printed for each rule: jobs, submissions, and the largest request of a
job.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from listed import lock_full_size, read, snakemake

if TYPE_CHECKING:
    from collections.abc import Iterable

    from listed import Listed


def count(jobs: Iterable[Listed]) -> dict[str, Counter[str]]:
    """Return for each rule the number of jobs and submissions, and the largest request of each resource."""
    by_rule: dict[str, Counter[str]] = {}
    submitted: set[int] = set()
    for job in jobs:
        rule = "assemble" if job.rule == "files" else job.rule
        numbers = by_rule.setdefault(rule, Counter())
        numbers["jobs"] += 1
        numbers["submissions"] += not job.local and job.group not in submitted
        if job.group is not None:
            submitted.add(job.group)
        request = {"threads": job.threads, **job.resources}
        for name in ("threads", "mem_mb", "runtime"):
            numbers[name] = max(numbers[name], request.get(name, 0))
    return by_rule


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="profiles/slurm", help="default: %(default)s")
    profile = parser.parse_args().profile
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "build"
        lock_full_size(folder)
        by_rule = count(read(snakemake(folder, "--dry-run", "--profile", profile)))
    print("| rule | jobs | submitted | cores | memory, GB | limit, h |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for rule, numbers in by_rule.items():
        request = (numbers["threads"], f"{numbers['mem_mb'] / 1000:.1f}", f"{numbers['runtime'] / 60:.1f}")
        cells = request if numbers["submissions"] else ("", "", "")
        print(f"| `{rule}` | {numbers['jobs']} | {numbers['submissions']} | {' | '.join(map(str, cells))} |")
    total = sum(by_rule.values(), Counter())
    print(f"| all | {total['jobs']} | {total['submissions']} | | | |")


if __name__ == "__main__":
    main()
