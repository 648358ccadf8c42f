"""Snakemake's logging events, passed on to the view. The view has no influence on Snakemake."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from herdbook.settings import PRICE_PER_HOUR, RECIPE

if TYPE_CHECKING:
    from logging import LogRecord

    from herdbook.plan import Plan
    from herdbook.plan.job import Job
    from herdbook.view.build import Build
    from herdbook.view.screen import Lines

# Snakemake's messages about itself, of no use to people who wait; its own log file contains all of them.
NOISE = (
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Conda environments: ignored",
    "Elapsed time:",
    "RuleException:\nCalledProcessError",  # the view reports the failure with the job's log, which is more useful
    "Select jobs to execute",
    "Singularity containers: ignored",
    "Using shell:",
)
# The view presents these in its own way.
OWN = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.RUN_INFO,
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.JOB_ERROR,
    LogEvent.GROUP_INFO,
    LogEvent.GROUP_ERROR,
    LogEvent.SHELLCMD,
    LogEvent.PROGRESS,
    LogEvent.DEBUG_DAG,
    LogEvent.RULEGRAPH,
}


class LogHandler(LogHandlerBase):
    """The logger ``herdbook``: a live view of the build in a terminal, plain lines elsewhere, a summary at the end.

    It is inactive, and Snakemake prints its own output, in a dry run and with ``--quiet``, ``--verbose``,
    ``--printshellcmds`` or ``--debug-dag``.
    """

    def __post_init__(self) -> None:
        """Start watching."""
        settings = self.common_settings
        self._inactive = bool(
            settings.dryrun
            or settings.quiet
            or settings.verbose
            or settings.printshellcmds
            or settings.debug_dag
        )
        # Guards what the ticking thread reads; the handler's own lock is held while printing.
        self._state = threading.RLock()
        self._build: Build | None = None
        self._plan: Plan | None = None
        self._sink: Lines | None = None
        self._remote = False
        self._price: float | None = None
        self._stop = threading.Event()
        self._ticking: threading.Thread | None = None

    @property
    def writes_to_stream(self) -> bool:
        """Whether Snakemake leaves the terminal to this handler."""
        return not self._inactive

    @property
    def writes_to_file(self) -> bool:
        """False: Snakemake writes its own log file in any case."""
        return False

    @property
    def has_filter(self) -> bool:
        """False: Snakemake's filter is used."""
        return False

    @property
    def has_formatter(self) -> bool:
        """False: Snakemake's formatter is used for messages that are not about jobs."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """False: dependencies are known from the plan."""
        return False

    def emit(self, record: LogRecord) -> None:
        """Process an event. An error in the view is printed and does not stop the build."""
        if self._inactive:
            return
        try:
            self._process(record)
        except Exception:  # noqa: BLE001 - as every handler of logging does
            self.handleError(record)

    def close(self) -> None:
        """End the view and print the summary."""
        if not self._inactive and not self._stop.is_set():
            self._stop.set()
            if self._ticking:
                self._ticking.join()
            if self._sink:
                self._sink.close()
            self._summarize()
        super().close()

    def _process(self, record: LogRecord) -> None:
        event = getattr(record, "event", None)
        values: dict[str, Any] = record.__dict__
        match event:
            case LogEvent.RESOURCES_INFO:
                self._remote = self._remote or "nodes" in values
            case LogEvent.RUN_INFO:
                self._begin(values["stats"], record.created)
            case LogEvent.JOB_INFO if self._build:
                with self._state:
                    self._build.begin(
                        values["jobid"],
                        values["rule_name"],
                        record.created,
                        values["output"],
                        values["log"],
                        values["shellcmd"] or "",
                    )
            case LogEvent.JOB_FINISHED if self._build:
                self._end(self._build, values["job_id"], record.created)
            case LogEvent.JOB_ERROR if self._build:
                self._fail(self._build, values["jobid"], values["log"], record.created)
            case _ if event not in OWN:
                self._pass(record)

    def _begin(self, stats: dict[str, int], at: float) -> None:
        from herdbook.view import words
        from herdbook.view.build import Build

        if self._build:  # Snakemake repeats the count when checkpoints add jobs
            with self._state:
                self._build.schedule(stats)
            return
        self._plan = _plan()
        build = Build(at, _planned(self._plan))
        build.schedule(stats)
        self._build = build
        self._price = PRICE_PER_HOUR.parsed
        self._out().say(words.scheduled(build))
        self._ticking = threading.Thread(target=self._tick, name="herdbook-view", daemon=True)
        self._ticking.start()

    def _end(self, build: Build, number: int, at: float) -> None:
        from herdbook.view import words

        with self._state:
            run = build.end(number, at)
            line = words.completed(build, run, at) if run else ""
        if line:
            self._out().say(line)

    def _fail(self, build: Build, number: int, logs: list[str], at: float) -> None:
        from herdbook.view import words

        with self._state:
            run = build.fail(number, at, logs)
        if run:
            self._out().say("\n".join(words.failure(run, at)), "red")

    def _pass(self, record: LogRecord) -> None:
        """Print a message of Snakemake's unchanged, unless it is noise."""
        text = str(self.format(record))
        if text.strip() and text != "None" and not text.startswith(NOISE):
            self._out().say(text, "red" if record.levelname in {"ERROR", "CRITICAL"} else "")

    def _out(self) -> Lines:
        """Return the view's output; created at its first line, so that a run without output imports nothing."""
        if self._sink is None:
            from herdbook.view.screen import Lines, Screen

            stream = sys.stderr
            drawn = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
            self._sink = Screen(stream, color=not self.common_settings.nocolor) if drawn else Lines(stream)
        return self._sink

    def _tick(self) -> None:
        from herdbook.view.watch import look

        sink = self._out()
        while self._build and not self._stop.wait(sink.tick_seconds):
            with self._state:
                runs = list(self._build.running.values())
            look(runs)
            with self._state:
                sink.show(self._build, time.time())

    def _summarize(self) -> None:
        if not self._build:
            return
        from herdbook.forkserver import start as forkserver
        from herdbook.view import words
        from herdbook.view.build import VERIFY

        forkserver.stop()  # a workflow that Herdbook is a module of does not
        now, sink, build = time.time(), self._out(), self._build
        sink.tabulate(*words.table(build, now))
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = used.ru_utime + used.ru_stime
        sink.say(words.total(build, now, spent, self._price, self._remote))
        for run in build.failed.values():
            sink.say("\n".join(words.failure(run, now)), "red")
        if build.failed or build.waiting or build.running:
            return
        if VERIFY not in build.scheduled:
            for line in words.partial(build):
                sink.say(line, "bold")
        elif self._plan:
            release = self._plan.recipe.release
            told = words.ending(
                self._plan.layout, RECIPE.value, release.repo, names_signer=release.signer is not None
            )
            sink.say("\n".join(told), "bold")


def _planned(plan: Plan | None) -> list[Job]:
    """Return the jobs of a plan; an empty list without one."""
    from herdbook.errors import HerdbookError
    from herdbook.plan.jobs import jobs
    from herdbook.signing.signer import configured_signer

    try:
        return jobs(plan, configured_signer()) if plan else []
    except HerdbookError:  # the workflow reports it
        return []


def _plan() -> Plan | None:
    """Return the plan that the workflow has read; None if this is not Herdbook's workflow."""
    from herdbook import plan as plans
    from herdbook.errors import HerdbookError

    recipe = os.environ.get(RECIPE.variable)
    if not recipe:
        return None
    try:
        return plans.load(Path(recipe))
    except HerdbookError:  # the workflow reports it
        return None
