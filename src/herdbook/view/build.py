"""The state of a running build: which jobs have ended, run or wait, and an estimate of the time left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from herdbook.plan.jobs import OF_A_MODEL, RESTORE, TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from herdbook.plan.job import Job

VERIFY = "verify"  # the rule that a build of the release ends with
WITHOUT_WORK = {"all", "models", *TARGETS}  # the workflow's targets


@dataclass
class JobRun:
    """A job that is running, has completed or has failed.

    Args:
        number: Snakemake's number of the job.
        rule: Its step.
        label: Its label in the plan; empty if its rule has one job.
        started: When it began, in seconds of the events' clock.
        outputs: The files that it makes, relative to the working folder.
        logs: The paths of its log files, or their addresses in a bucket.
        command: Its shell command.
        key: Its key, if it is a job of the plan.
        model: Name of its model, likewise.
        expected_bytes: Bytes of weights that it makes, from the plan.
        written_bytes: Bytes that it has written so far.
        memory_bytes: Resident memory of its processes now; None if they do not run on this machine.
        peak_bytes: The largest memory observed.
        ended: When it ended.
        cached: Whether it restores a result from the cache.
    """

    number: int
    rule: str
    label: str
    started: float
    outputs: tuple[Path, ...] = ()
    logs: tuple[str, ...] = ()
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
        """Return how long it has been running, or ran."""
        return max(0.0, (now if self.ended is None else self.ended) - self.started)


@dataclass
class RuleRow:
    """The jobs of one rule, counted by their outcome."""

    completed: int = 0
    cached: int = 0
    up_to_date: int = 0
    failed: int = 0
    not_run: int = 0
    seconds: float = 0
    peak_bytes: int = 0
    written_bytes: int = 0


@dataclass
class Build:
    """A build, updated event by event.

    Args:
        started: When it began.
        planned: The jobs of the plan; empty without a plan, and then sizes and models are unknown.
    """

    started: float
    planned: Sequence[Job] = ()
    scheduled: dict[str, int] = field(default_factory=dict)  # number of jobs that Snakemake will run, by rule
    running: dict[int, JobRun] = field(default_factory=dict)
    finished: list[JobRun] = field(default_factory=list)
    failed: dict[int, JobRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._jobs = {path: job for job in self.planned for path in job.outputs}
        self._marked = {(job.rule, job.id): job for job in self.planned}
        self._existing = {job for job in self.planned if all(path.exists() for path in job.outputs)}
        self._begun: set[Job] = set()

    def schedule(self, stats: Mapping[str, int]) -> None:
        """Record Snakemake's count of the jobs that it will run, by rule."""
        self.scheduled = {}
        for rule, count in stats.items():
            # The rules of trials on machines that share no disk are named after the files that they read here.
            if rule not in WITHOUT_WORK | {"total"} and "/" not in rule:
                self.scheduled[_plain(rule)] = self.scheduled.get(_plain(rule), 0) + count

    def begin(
        self, number: int, rule: str, at: float, outputs: Iterable[str], logs: Iterable[str], command: str
    ) -> None:
        """Record the start of a job."""
        paths = tuple(map(Path, outputs))
        if not paths and not command:  # a target
            return
        run = JobRun(
            number, _plain(rule), "", at, paths, tuple(map(_stored, logs)), command, cached=rule == RESTORE
        )
        # Of a job on a machine that shares no disk with this one, Snakemake knows a mark alone: .../rule/id.
        job = next((self._jobs[path] for path in paths if path in self._jobs), None) or next(
            (self._marked.get((path.parent.name, _stored(path.name))) for path in paths), None
        )
        if job:
            self._begun.add(job)
            run.label, run.key, run.model, run.expected_bytes = job.label, job.key, job.model, job.size_bytes
            if run.cached:
                run.label = paths[0].name
                run.expected_bytes = 0 if paths[0].suffix == ".json" else job.size_bytes
        elif paths and run.rule == rule:
            run.label = paths[0].name
        self.failed.pop(number, None)  # Snakemake retries it
        self.running[number] = run

    def end(self, number: int, at: float) -> JobRun | None:
        """Record that a job has completed; return it, or None if it is a target."""
        run = self.running.pop(number, None)
        if run:
            run.ended, run.written_bytes = at, run.expected_bytes
            self.finished.append(run)
        return run

    def fail(self, number: int, at: float, logs: Iterable[str]) -> JobRun | None:
        """Record the failure of a job, and the logs of that event; return the job, or None if its failure is known."""
        run = self.running.pop(number, None)
        if run:
            run.ended, run.logs = at, tuple(map(_stored, logs)) or run.logs
            self.failed[number] = run
        return run

    def step_of(self, run: JobRun) -> str:
        """Return the step whose results a job makes, or takes from the cache."""
        return next((self._jobs[path].rule for path in run.outputs if path in self._jobs), run.rule)

    @property
    def total(self) -> int:
        """How many jobs Snakemake runs in all."""
        return sum(self.scheduled.values())

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return max(0, self.total - len(self.finished) - len(self.running) - len(self.failed))

    @property
    def expected_bytes(self) -> int:
        """Bytes of weights that this build makes."""
        begun = [*self.finished, *self.running.values(), *self.failed.values()]
        return sum(run.expected_bytes for run in begun) + sum(job.size_bytes for job in self._to_come())

    @property
    def written_bytes(self) -> int:
        """Bytes of weights that were written so far."""
        return sum(run.written_bytes for run in (*self.finished, *self.running.values()))

    def _to_come(self) -> list[Job]:
        """Return the jobs that have not begun, as far as they are known: those whose files do not exist."""
        return [
            job
            for job in self.planned
            if job.rule in self.scheduled and job not in self._begun and job not in self._existing
        ]

    def seconds_left(self, now: float) -> tuple[float, bool]:
        """Estimate the time left in seconds; also return whether the estimate covers all rules that still have jobs.

        A job is assumed to take as long as completed ones of its rule, by byte where they make weights, and the parallelism
        to stay the same. Rules without a completed job are not covered: the estimate is then a lower bound.
        """
        rates = {
            rule: _Rate.of([run for run in self.finished if run.rule == rule]) for rule in self.scheduled
        }
        to_come = self._to_come()
        left, is_complete = 0.0, True
        for rule, count in self.scheduled.items():
            rate = rates[rule]
            runs = [run for run in self.running.values() if run.rule == rule]
            ended = sum(1 for run in (*self.finished, *self.failed.values()) if run.rule == rule)
            pending = max(0, count - ended - len(runs))
            if rate is None:
                is_complete = is_complete and not (runs or pending)
                continue
            sizes = [job.size_bytes for job in to_come if job.rule == rule][:pending]
            sizes += [0] * (pending - len(sizes))
            left += sum(rate.seconds(size) for size in sizes)
            left += sum(max(0.0, rate.seconds(run.expected_bytes) - run.seconds(now)) for run in runs)
        busy = sum(run.seconds(now) for run in (*self.finished, *self.running.values()))
        at_once = max(1.0, busy / max(1e-9, now - self.started))
        return left / at_once, is_complete

    def rows(self, now: float) -> dict[str, RuleRow]:
        """Return the counts of each rule, in the order of the plan; rules without jobs are left out."""
        rows = {job.rule: RuleRow() for job in self.planned} | {rule: RuleRow() for rule in self.scheduled}
        for run in self.finished:
            row = rows.setdefault(run.rule, RuleRow())
            row.completed += not run.cached
            row.cached += run.cached
            row.written_bytes += 0 if run.cached else run.written_bytes
        for run in self.failed.values():
            rows.setdefault(run.rule, RuleRow()).failed += 1
        for run in (*self.finished, *self.running.values(), *self.failed.values()):
            row = rows[run.rule]
            row.seconds += run.seconds(now)
            row.peak_bytes = max(row.peak_bytes, run.peak_bytes or 0)
        for rule, row in rows.items():
            row.not_run = max(0, self.scheduled.get(rule, 0) - row.completed - row.cached - row.failed)
            not_begun = [job for job in self.planned if job.rule == rule and job not in self._begun]
            existing = sum(job in self._existing and self._is_kept(job) for job in not_begun)
            unreached = row.not_run - sum(run.rule == rule for run in self.running.values())
            # Jobs that were not reached are those without files first; the rest of them have files that are outdated.
            row.up_to_date = max(0, existing - max(0, unreached - (len(not_begun) - existing)))
        return {rule: row for rule, row in rows.items() if row != RuleRow()}

    def _is_kept(self, job: Job) -> bool:
        """Return whether a job whose files exist is done: paths of a release have no key, so those of a former one can lie there."""
        return bool(job.id) or VERIFY in self.scheduled


@dataclass(frozen=True)
class _Rate:
    """How long jobs of a rule take: seconds per byte, or per job if they make no weights."""

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


def _stored(name: str) -> str:
    """Return the name of a file without Snakemake's remark that it is in its storage."""
    return name.removesuffix(" (send to storage)")


def _plain(rule: str) -> str:
    """Return the name of a rule's step, which a rule of one model or of single jobs has longer."""
    return next((plain for plain in (*OF_A_MODEL, *TARGETS) if rule.startswith(f"{plain}_")), rule)
