"""Processor time of tests, by file: `pytest --costs` prints it, with that of the processes that they start or have forked.

It depends less than wall time (`--durations`) on what else a machine does. Of a fixture that tests share, the first pays.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

NOTES = "FORKSERVER_COSTS"  # the file in which fork servers note what each process took
SHOWN = 25


def note(asked, used):
    """Note what a forked process took, for the test that had it started."""
    if path := asked["environment"].get(NOTES):
        test = asked["environment"].get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([test, used.ru_utime + used.ru_stime]) + "\n")


def spent():
    """Return the processor time of this process and of its children that have ended, in seconds."""
    return sum(os.times()[:4])


class Costs:
    """Adds up what tests take; of workers, where their reports arrive.

    Args:
        notes: The file of the fork servers' notes.
    """

    def __init__(self, notes):
        self.notes, self.last, self.tests = notes, spent(), Counter()

    def pytest_collection_finish(self):
        self.last = spent()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        if not hasattr(report, "processor_s"):  # it travels with the report
            now = spent()
            report.processor_s, self.last = now - self.last, now
        self.tests[report.nodeid] += report.processor_s

    def pytest_terminal_summary(self, terminalreporter):
        for line in self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else ():
            test, seconds = json.loads(line)
            self.tests[test] += seconds
        files = Counter()
        for test, seconds in self.tests.items():
            files[test.partition("::")[0] or "outside tests"] += seconds
        for title, found in (("files", files), ("tests", self.tests)):
            terminalreporter.section(f"processor seconds of {title}, {sum(found.values()):.1f} of all")
            for name, seconds in found.most_common(SHOWN):
                terminalreporter.line(f"{seconds:8.2f} {name}")
