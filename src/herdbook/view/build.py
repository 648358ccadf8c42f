"""The state of a build that runs: what is done, what runs, what waits, and how long that may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.plan.jobs import OF_A_MODEL, RESTORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.plan.jobs import Job

TARGET = "all"  # the workflow's target: no work of its own


@dataclass
class JobRun:
    """A job that runs, ran or failed.

    Args:
        number: Snakemake's number of the job.
        rule: Its rule, without a model's name.
        label: What it makes, as people call it; empty if its rule has one job.
        started: When it began, in seconds of the clock that the events have.
        outputs: The files that it makes, relative to the working folder.
        logs: Its log files.
        command: Its shell command.
        key: Its key, if it is a job of the plan.
        model: Name of its model, likewise.
        expected_bytes: Bytes of weights that it makes, by the plan.
        written_bytes: Bytes that it has written so far.
        memory_bytes: Memory that its processes hold now; None if they do not run on this machine.
        peak_bytes: The most memory that they were seen to hold.
        ended: When it ended.
        cached: Whether it takes a result over from the cache.
    """

    number: int
    rule: str
    label: str
    started: float
    outputs: tuple[Path, ...] = ()
    logs: tuple[Path, ...] = ()
    command: str = ""
    key: str = ""
    model: str = ""
    expected_bytes: int = 0
    written_bytes: int = 0
    memory_bytes: int | None = None
    peak_bytes: int | None = None
    ended: float | None = None
    cached: bool = False

    def seconds(self, now: float) -> float:
        """Return how long it has run, or ran."""
        return max(0.0, (now if self.ended is None else self.ended) - self.started)


@dataclass
class RuleRow:
    """What became of a rule's jobs."""

    made: int = 0
    cached: int = 0
    there: int = 0
    failed: int = 0
    unmade: int = 0
    seconds: float = 0
    peak_bytes: int = 0
    written_bytes: int = 0


@dataclass
class Build:
    """A build, told event by event.

    Args:
        started: When it began.
        planned: The jobs of the plan; empty if there is none, and then sizes and models are unknown.
    """

    started: float
    planned: Sequence[Job] = ()
    wanted: dict[str, int] = field(default_factory=dict)  # jobs of each rule that Snakemake runs
    running: dict[int, JobRun] = field(default_factory=dict)
    finished: list[JobRun] = field(default_factory=list)
    failed: dict[int, JobRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._jobs = {path: job for job in self.planned for path in job.outputs}
        self._there = {job for job in self.planned if all(path.exists() for path in job.outputs)}
        self._seen: set[Job] = set()

    def want(self, stats: Mapping[str, int]) -> None:
        """Take Snakemake's count of the jobs that it will run, by rule."""
        self.wanted = {}
        for rule, count in stats.items():
            if rule not in {TARGET, "total"}:
                self.wanted[_plain(rule)] = self.wanted.get(_plain(rule), 0) + count

    def begin(
        self, number: int, rule: str, at: float, outputs: Iterable[str], logs: Iterable[str], command: str
    ) -> None:
        """Take the start of a job."""
        paths = tuple(map(Path, outputs))
        if not paths and not command:  # a target
            return
        run = JobRun(
            number, _plain(rule), "", at, paths, tuple(map(Path, logs)), command, cached=rule == RESTORE
        )
        job = next((self._jobs[path] for path in paths if path in self._jobs), None)
        if job:
            self._seen.add(job)
            run.label, run.key, run.model, run.expected_bytes = job.label, job.key, job.model, job.size_bytes
            if run.cached:
                run.label = paths[0].name
                run.expected_bytes = 0 if paths[0].suffix == ".json" else job.size_bytes
        elif paths and run.rule == rule:
            run.label = paths[0].name
        self.failed.pop(number, None)  # it is tried again
        self.running[number] = run

    def end(self, number: int, at: float) -> JobRun | None:
        """Take the end of a job that did its work; return it, or None if it is a target."""
        run = self.running.pop(number, None)
        if run:
            run.ended, run.written_bytes = at, run.expected_bytes
            self.finished.append(run)
        return run

    def fail(self, number: int, at: float, logs: Iterable[str]) -> JobRun | None:
        """Take the failure of a job, and the logs that are named with it; return it, or None if that is known."""
        run = self.running.pop(number, None)
        if run:
            run.ended, run.logs = at, tuple(map(Path, logs)) or run.logs
            self.failed[number] = run
        return run

    @property
    def total(self) -> int:
        """How many jobs Snakemake runs in all."""
        return sum(self.wanted.values())

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return max(0, self.total - len(self.finished) - len(self.running) - len(self.failed))

    @property
    def expected_bytes(self) -> int:
        """Bytes of weights that this build makes."""
        done = [*self.finished, *self.running.values(), *self.failed.values()]
        return sum(run.expected_bytes for run in done) + sum(job.size_bytes for job in self._to_come())

    @property
    def written_bytes(self) -> int:
        """Bytes of weights that are made so far."""
        return sum(run.written_bytes for run in (*self.finished, *self.running.values()))

    def _to_come(self) -> list[Job]:
        """Return the jobs that are still to begin, as far as it is known which: those whose files are not there."""
        return [
            job
            for job in self.planned
            if job.rule in self.wanted and job not in self._seen and job not in self._there
        ]

    def seconds_left(self, now: float) -> tuple[float, bool]:
        """Return an estimate of the time that is left, and whether it covers all rules that are still to run.

        A job takes as long as others of its rule did, by byte where they make weights; so many run at once as did so far.
        Rules of which none has ended yet are not covered: the estimate is then a lower bound.
        """
        rates = {rule: _Rate.of([run for run in self.finished if run.rule == rule]) for rule in self.wanted}
        to_come = self._to_come()
        left, whole = 0.0, True
        for rule, count in self.wanted.items():
            rate = rates[rule]
            runs = [run for run in self.running.values() if run.rule == rule]
            over = sum(1 for run in (*self.finished, *self.failed.values()) if run.rule == rule)
            pending = max(0, count - over - len(runs))
            if rate is None:
                whole = whole and not (runs or pending)
                continue
            sizes = [job.size_bytes for job in to_come if job.rule == rule][:pending]
            sizes += [0] * (pending - len(sizes))
            left += sum(rate.seconds(size) for size in sizes)
            left += sum(max(0.0, rate.seconds(run.expected_bytes) - run.seconds(now)) for run in runs)
        busy = sum(run.seconds(now) for run in (*self.finished, *self.running.values()))
        at_once = max(1.0, busy / max(1e-9, now - self.started))
        return left / at_once, whole

    def rows(self, now: float) -> dict[str, RuleRow]:
        """Return what became of the jobs, by rule, in the order of the plan."""
        rows = {job.rule: RuleRow() for job in self.planned} | {rule: RuleRow() for rule in self.wanted}
        for run in self.finished:
            row = rows.setdefault(run.rule, RuleRow())
            row.made += not run.cached
            row.cached += run.cached
            row.written_bytes += 0 if run.cached else run.written_bytes
        for run in self.failed.values():
            rows.setdefault(run.rule, RuleRow()).failed += 1
        for run in (*self.finished, *self.running.values(), *self.failed.values()):
            row = rows[run.rule]
            row.seconds += run.seconds(now)
            row.peak_bytes = max(row.peak_bytes, run.peak_bytes or 0)
        for rule, row in rows.items():
            row.unmade = max(0, self.wanted.get(rule, 0) - row.made - row.cached - row.failed)
            unseen = [job for job in self.planned if job.rule == rule and job not in self._seen]
            there = sum(job in self._there for job in unseen)
            unreached = row.unmade - sum(run.rule == rule for run in self.running.values())
            # of what was not reached, what lies there is of an earlier state
            row.there = max(0, there - max(0, unreached - (len(unseen) - there)))
        return {rule: row for rule, row in rows.items() if row != RuleRow()}


@dataclass(frozen=True)
class _Rate:
    """How long jobs of a rule take: in seconds by byte, or by job if they make no weights."""

    by_byte: float
    by_job: float

    @classmethod
    def of(cls, runs: Sequence[JobRun]) -> _Rate | None:
        if not runs:
            return None
        seconds = sum(run.seconds(0) for run in runs)
        size = sum(run.expected_bytes for run in runs)
        return cls(seconds / size if size else 0.0, seconds / len(runs))

    def seconds(self, size_bytes: int) -> float:
        return self.by_byte * size_bytes if size_bytes and self.by_byte else self.by_job


def _plain(rule: str) -> str:
    """Return a rule's name without the model that it has in it."""
    return next((plain for plain in OF_A_MODEL if rule.startswith(f"{plain}_")), rule)
