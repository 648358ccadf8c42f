"""The view of a build: told events as Snakemake tells them, it says what is so; and a build never fails because of it."""

import hashlib
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase

import snakemake_logger_plugin_herdbook as plugin
from herdbook.files import write_json
from herdbook.forkserver import VARIABLE, start
from herdbook.forkserver.server import title
from herdbook.humanize import clipped, duration
from herdbook.layout import Layout
from herdbook.plan.job import Job
from herdbook.settings import PRICE_PER_HOUR, RECIPE
from herdbook.view import handler as handlers
from herdbook.view import words
from herdbook.view.build import Build
from herdbook.view.screen import EVERY_SECONDS, Lines, picture
from herdbook.view.watch import look

MB = 10**6


class TestInterface(TestLogHandlerBase):
    """Snakemake's own tests of such plugins."""

    __test__ = True

    def get_log_handler_cls(self):
        return plugin.LogHandler

    def get_log_handler_settings(self):
        return None


def job(rule, name, root=Path("results"), size=0):
    return Job(rule, f"{name}-abc" if name else "", "k" * 64, (), (root / f"{rule}-{name}",), None, size)


def begin(build, number, rule, at, *outputs):
    build.begin(number, rule, at, [str(path) for path in outputs], [], f"herdbook {rule}")


@pytest.fixture
def build():
    """Four lasers of different sizes and a card are wanted; two lasers ran, one runs, none of the rest began."""
    planned = [job("laser", str(number), size=size * MB) for number, size in enumerate((10, 30, 20, 50))]
    build = Build(100.0, [*planned, job("card", "")])
    build.schedule({"laser": 4, "card": 1, "all": 1, "results/evaluations/x.json": 1, "total": 7})
    begin(build, 0, "laser", 100.0, *planned[0].outputs)
    begin(build, 1, "laser", 100.0, *planned[1].outputs)
    build.end(0, 110.0)  # 10 MB in 10 s
    build.end(1, 110.0)  # 30 MB in 10 s: together 2 MB a second
    begin(build, 2, "laser", 110.0, *planned[2].outputs)
    return build


def test_counts_leave_out_the_target(build):
    assert (build.total, len(build.finished), len(build.running), build.waiting) == (5, 2, 1, 2)
    begin(build, 9, "all", 110.0)
    build.begin(9, "all", 110.0, [], [], "")
    assert 9 in build.running  # with a command it is work
    build.running.pop(9)
    build.begin(9, "all", 110.0, [], [], "")
    assert 9 not in build.running
    assert build.end(9, 111.0) is None


def test_a_target_is_not_one_of_the_jobs_that_it_names():
    build = Build(100.0)
    build.schedule(
        {"evaluate": 1, "evaluate_one": 2, "models": 1, "assemble_base": 1, "assemble_mix": 1, "total": 6}
    )
    assert build.scheduled == {"evaluate": 2, "assemble": 2}


def test_bytes_are_those_of_the_plan(build):
    assert build.expected_bytes == 110 * MB
    assert build.written_bytes == 40 * MB
    build.running[2].written_bytes = 5 * MB
    assert build.written_bytes == 45 * MB


def test_time_left_goes_by_bytes_of_the_same_rule(build):
    # at 114: 20 MB take 20 * (20 s / 40 MB) = 10 s, of which 4 are over; 50 MB take 25 s. So far 20 + 4 s were worked in 14.
    left, whole = build.seconds_left(114.0)
    assert left == pytest.approx((6 + 25) / (24 / 14))
    assert not whole  # of the card nothing is known
    build.end(2, 120.0)
    begin(build, 3, "laser", 120.0, Path("results/laser-3"))
    begin(build, 4, "card", 120.0, Path("results/card-"))
    build.end(4, 121.0)
    assert build.seconds_left(121.0)[1]


def test_jobs_without_weights_count_alike():
    build = Build(0.0)
    build.schedule({"assemble_a": 1, "assemble_b": 1, "assemble_c": 1})
    for number, name in enumerate("ab"):
        begin(build, number, f"assemble_{name}", 0.0, Path(f"{name}/config.json"))
        build.end(number, 2.0 + 2 * number)
    # 2 s and 4 s, so 3 s each; 6 s were worked in 6 s, one at once
    assert build.seconds_left(6.0) == (pytest.approx(3.0), True)
    assert set(build.rows(6.0)) == {"assemble"}


def test_a_job_that_is_tried_again_and_works_has_not_failed(build):
    build.fail(2, 112.0, [])
    assert list(build.failed) == [2]
    assert build.waiting == 2
    assert build.rows(112.0)["laser"].failed == 1
    begin(build, 2, "laser", 113.0, Path("results/laser-2"))
    build.end(2, 120.0)
    row = build.rows(120.0)["laser"]
    assert (row.completed, row.failed, row.not_run, row.seconds) == (3, 0, 1, 10 + 10 + 7)


def test_what_is_there_and_what_was_not_reached(tmp_path):
    def made(name):
        one = job("fetch", name, tmp_path)
        one.outputs[0].touch()
        return one

    kept, old = made("kept"), made("old")
    missing = [job("fetch", name, tmp_path) for name in ("new", "newer")]
    build = Build(0.0, [kept, old, *missing])
    build.schedule({"fetch": 3})  # both that are missing, and the old one again
    begin(build, 1, "fetch", 0.0, *missing[0].outputs)
    build.end(1, 5.0)
    row = build.rows(5.0)["fetch"]
    assert (row.completed, row.up_to_date, row.not_run) == (1, 1, 2)
    begin(build, 2, "fetch", 5.0, *missing[1].outputs)
    row = build.rows(5.0)["fetch"]  # if it were interrupted now
    assert (row.completed, row.up_to_date, row.not_run) == (1, 1, 2)
    begin(build, 3, "fetch", 5.0, *old.outputs)
    build.end(2, 6.0)
    build.end(3, 6.0)
    row = build.rows(6.0)["fetch"]
    assert (row.completed, row.up_to_date, row.not_run) == (3, 1, 0)


@pytest.mark.parametrize(("scheduled", "kept"), [({"fetch": 1}, 0), ({"fetch": 1, "verify": 1}, 1)])
def test_a_former_release_is_not_up_to_date_in_a_build_of_other_things(tmp_path, scheduled, kept):
    card = job("card", "", tmp_path)
    card.outputs[0].touch()
    build = Build(0.0, [job("fetch", "new", tmp_path), card, job("verify", "", tmp_path)])
    build.schedule(scheduled)
    row = build.rows(1.0).get("card")
    assert (row.up_to_date if row else 0) == kept


def test_what_comes_out_of_the_cache_is_not_made(build):
    """Files are taken over one by one; of a shard and its record the shard has the bytes."""
    build.schedule({"laser": 3, "restore": 2, "card": 1})
    begin(build, 7, "restore", 110.0, Path("results/laser-3"))
    assert (build.running[7].label, build.running[7].expected_bytes) == ("laser-3", 50 * MB)
    build.end(7, 112.0)
    row = build.rows(112.0)["restore"]
    assert (row.completed, row.cached, row.not_run, row.written_bytes) == (0, 1, 1, 0)
    assert build.rows(112.0)["laser"].completed == 2
    assert "completed 2 steps, 1 file from the cache, " in words.total(
        build, 112.0, 0.0, None, machines=False
    )
    # the 20 MB take 10 s, of which 2 are over; another file takes 2 s as the first did; 24 s were worked in 12
    assert build.seconds_left(112.0) == (pytest.approx((8 + 2) / (24 / 12)), False)


def test_price_by_the_hour(build):
    def said(price, *, machines):
        return words.total(build, 100.0 + 1800, 3.0, price, machines)

    assert "cost 1.25 at 2.5 an hour" in said(2.5, machines=False)
    assert "cost" not in said(None, machines=False)
    build.end(2, 110.0 + 3600)
    # 10 + 10 + 3600 s of jobs
    assert f"cost at most {3620 / 3600 * 2:.2f} at 2 an hour" in said(2.0, machines=True)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_last_lines_of_a_log(tmp_path):
    log = tmp_path / "x.log"
    log.write_bytes(
        b"old\n" * 100_000
        + b"\x1b[31mred\x1b[0m\x07\n\n  5%|#  |\r 50%|## |\r100%|###|\n"
        + "naïve \x9b2J\n".encode()
        + b"\xff\xfe broken\n"
    )
    said = words.last_lines(str(log))
    assert said[-4:] == ["red", "100%|###|", "naïve \ufffd2J", "\ufffd\ufffd broken"]
    assert len(said) == words.LAST_LINES
    assert words.last_lines(str(tmp_path / "none.log")) == []


def test_failure_names_model_key_and_log(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("herdbook laser: it broke\n", encoding="utf-8")
    build = Build(0.0, [job("laser", "cut.1")])
    build.schedule({"laser": 1})
    begin(build, 1, "laser", 1.0, Path("results/laser-cut.1"))
    run = build.fail(1, 3.0, [str(tmp_path / "none.log"), str(log)])
    run.model = "cut"
    said = words.failure(run, 3.0)
    assert said[0] == f"laser cut.1 failed after 2.0 s; model cut, key {'k' * 64}"
    assert f"  log: {log}" in said
    assert said[-1] == "  | herdbook laser: it broke"
    assert build.fail(1, 4.0, []) is None  # a group's jobs are reported twice


def test_memory_of_a_job_is_that_of_all_its_processes(tmp_path):
    """A real shell with a real child, as Snakemake starts them; 60 MB are touched."""
    script = tmp_path / "herdbook"
    script.write_text(
        f"#!{sys.executable}\nimport time\nheld = bytearray(b'x' * 60_000_000)\ntime.sleep(600)\n"
    )
    script.chmod(0o755)
    command = f"herdbook laser KEY --threads 4 >{tmp_path / 'x.log'} 2>&1"
    for shell in (f"set -e; {command}; true", f"exec {command}"):  # the second gives its place to the command
        build = Build(0.0)
        build.begin(1, "laser", 0.0, [], [], f"\n   {command}\n   ")
        build.begin(2, "laser", 0.0, [], [], "herdbook laser OTHER >y.log")
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            start_new_session=True,
        )
        try:
            while not (build.running[1].memory_bytes or 0) > 60 * MB:
                assert process.poll() is None
                look(build.running.values())
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert build.running[2].memory_bytes is None
        look(build.running.values())
        assert build.running[1].memory_bytes is None
        assert build.running[1].peak_bytes > 60 * MB


def test_memory_of_a_forked_job_is_what_it_does_not_share(tmp_path):
    """A real server in small, with 80 MB: its fork has 60 MB of its own, and stands in for the program of the job.

    The server grows later.
    """
    (tmp_path / "herdbook").write_text("import sys\nsys.stdin.read()\n")
    server = f"""
import os, subprocess, sys
from pathlib import Path
shared = bytearray(b"x" * 80_000_000)
program = subprocess.Popen([sys.executable, {str(tmp_path / "herdbook")!r}, "laser", "KEY"], stdin=subprocess.PIPE)
fork = os.fork()
if not fork:
    Path("/proc/self/comm").write_text("{title(0)}".replace("0", str(program.pid)))
    own = bytearray(b"x" * 60_000_000)
    print("ready", flush=True)
else:
    later = bytearray(b"x" * 100_000_000)
    print("ready", flush=True)
sys.stdin.read()
"""
    build = Build(0.0)
    build.begin(1, "laser", 0.0, [], [], "herdbook laser KEY >x.log 2>&1")
    with subprocess.Popen(
        [sys.executable, "-c", server], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() + process.stdout.readline() == b"ready\n" * 2
        look(build.running.values())
        process.stdin.close()
    assert 60 * MB < build.running[1].memory_bytes < 100 * MB  # with the program


def test_bytes_grow_with_the_file(tmp_path):
    planned = job("laser", "cut.1", tmp_path, size=1000)
    build = Build(0.0, [planned])
    build.schedule({"laser": 1})
    begin(build, 1, "laser", 0.0, *planned.outputs)
    place = planned.outputs[0]
    look(build.running.values())
    assert build.written_bytes == 0
    (tmp_path / f".{place.name}.x8.part").write_bytes(b"x" * 400)
    look(build.running.values())
    assert build.written_bytes == 400
    (tmp_path / f".{place.name}.x8.part").write_bytes(b"x" * 1100)  # with its header
    look(build.running.values())
    assert build.written_bytes == 1000
    (tmp_path / f".{place.name}.x8.part").rename(place)
    look(build.running.values())
    assert build.written_bytes == 1000


def test_bytes_grow_with_a_file_in_a_folder(tmp_path):
    """A converter makes its file in a folder, beside links to what it reads."""
    planned = job("laser", "cut.1", tmp_path, size=1000)
    build = Build(0.0, [planned])
    build.schedule({"laser": 1})
    begin(build, 1, "laser", 0.0, *planned.outputs)
    (tmp_path / "weights").write_bytes(b"x" * 900)
    folder = tmp_path / f".{planned.outputs[0].name}.x8.part"
    (folder / "in").mkdir(parents=True)
    (folder / "in/model").symlink_to(tmp_path / "weights")
    (folder / "full.gguf").write_bytes(b"x" * 300)
    look(build.running.values())
    assert build.written_bytes == 300


def test_plain_lines_say_progress_once_a_minute(build):
    stream = io.StringIO()
    lines = Lines(stream)
    for second in range(4 * EVERY_SECONDS):
        lines.show(build, build.started + second)
    said = stream.getvalue().splitlines()
    assert len(said) == 3
    assert all(
        line.startswith("2 of 5 steps done, 1 running, 2 waiting, 40.00 MB of 110.00 MB") for line in said
    )
    assert said[0].endswith("laser 2")


def test_picture_fits_the_terminal(build):
    from rich.console import Console

    for number in range(10, 30):
        begin(build, number, "moe", 110.0, Path(f"results/mix.{number}"))
    console = Console(file=io.StringIO(), width=60, force_terminal=False)
    console.print(picture(build, 114.0, 5, 60))
    drawn = console.file.getvalue().splitlines()
    assert len(drawn) <= 10
    assert any(line.startswith("laser  2") for line in drawn)
    assert drawn[-1] == "and 16 more"


def test_names_are_shortened_in_their_middle_and_numbers_never(build):
    from rich.console import Console

    names = [f"{'a-long-name-of-a-model-' * 3}{end}.expert2-1.safetensors" for end in ("one", "two")]
    for number, name in enumerate(names, start=40):
        begin(build, number, "quantize", 110.0, Path(f"results/{name}"))
        run = build.running[number]
        run.label, run.memory_bytes, run.expected_bytes, run.written_bytes = (
            name,
            91_500_000,
            2 * 10**9,
            10**9,
        )
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(picture(build, 110.0 + 3661, 9, 80))
    drawn = [row for row in console.file.getvalue().splitlines() if row.startswith("quantize")]
    assert len(drawn) == 2
    for row in drawn:
        assert len(row) <= 80
        assert "91.50 MB" in row
        assert "1.00 GB of 2.00 GB" in row
        assert "1 h 01 min" in row
        assert "a-lo" in row
        assert row.count("…") == 1
    assert clipped("abcdefghij", 5) == "ab…ij"
    assert clipped("abcde", 5) == "abcde"


@pytest.fixture
def verified(tmp_path, monkeypatch):
    """Write a recipe, its lock, and a release of them with a verification of it; return the release's layout."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(tmp_path / "results", "Tiny")
    layout.release_folder.mkdir(parents=True)
    for folder, names in (
        (tmp_path, ("x.yaml", "x.lock.json")),
        (layout.release_folder, ("recipe.yaml", "recipe.lock.json")),
    ):
        for name in names:
            (folder / name).write_text(name[-4:])
    (layout.release_folder / "SHA256SUMS").write_text("sums")
    verify(layout, "passed")
    return layout


def verify(layout, outcome):
    sums = hashlib.sha256((layout.release_folder / "SHA256SUMS").read_bytes()).hexdigest()
    write_json(layout.verification, {"outcome": outcome, "level": "claims", "digest": sums})


@pytest.mark.parametrize("changed", ["x.yaml", "x.lock.json", "results/Tiny/release/SHA256SUMS"])
def test_what_was_verified_of_another_release_is_not_said_of_this_one(verified, tmp_path, changed):
    assert words.ending(verified, "x.yaml", None)
    (tmp_path / changed).write_text("other")
    assert words.ending(verified, "x.yaml", None) == []


def test_a_finished_build_ends_with_folder_verdict_and_what_to_do_next(verified):
    folder = verified.release_folder.parent
    for outcome, repo, words_ in (
        ("passed", "me/tiny", "herdbook publish --recipe x.yaml --dry-run"),
        ("passed", None, "herdbook new FOLDER --from owner/name"),
        ("failed", "me/tiny", "herdbook verify"),
    ):
        verify(verified, outcome)
        told = "\n".join(words.ending(verified, "x.yaml", repo))
        assert f"release: {folder / 'release'}" in told
        assert f"verified: {outcome} at the level claims ({folder / 'report.html'})" in told
        assert f"card: {folder / 'release/README.md'}" in told
        assert words_ in told
    (folder / "verification.json").write_text("{")
    assert words.ending(verified, "x.yaml", None) == []


def test_a_signed_release_whose_recipe_names_no_signer_ends_with_how_the_card_says_so(verified):
    def signed(**names):
        return [
            line for line in words.ending(verified, "x.yaml", None, **names) if line.startswith("signed: ")
        ]

    assert not signed()
    (verified.release_folder / "model.sig").write_text("{}")
    (line,) = signed()
    assert "without a key" in line
    assert "identity and issuer" in line
    (verified.release_folder / "model.sig.pub").write_bytes(b"pem")
    (line,) = signed()
    assert f"by key {hashlib.sha256(b'pem').hexdigest()};" in line
    assert "release.signer" in line
    assert not signed(names_signer=True)


def test_a_build_without_a_release_says_where_its_results_are(tmp_path):
    build = Build(100.0)
    for number, (rule, name) in enumerate(
        [
            ("laser", "shards/a"),
            ("quantize", "files/a"),
            ("quantize", "files/b"),
            ("card", "Tiny/card/README.md"),
        ]
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        begin(build, number, rule, 100.0, path)
        build.end(number, 101.0)
    begin(build, 9, "evaluate", 100.0, tmp_path / "marks/evaluate/x")  # made on another machine
    build.end(9, 101.0)
    assert words.partial(build) == [f"quantized files: {tmp_path}/files", f"card: {tmp_path}/Tiny/card"]


def test_results_from_the_cache_are_named_as_those_that_were_made(tmp_path):
    measured = job("evaluate", "x", tmp_path)
    build = Build(100.0, [measured])
    measured.outputs[0].touch()
    begin(build, 0, "restore", 100.0, *measured.outputs)
    build.end(0, 101.0)
    assert words.partial(build) == [f"measurements: {tmp_path}"]


# -- the handler -------------------------------------------------------------------------------------------------------


def handler(**asked):
    settings = MockOutputSettings()
    settings.printshellcmds = False
    for name, value in asked.items():
        setattr(settings, name, value)
    return plugin.LogHandler(common_settings=settings, settings=None)


def tell(one, event=None, level=logging.INFO, text=None, **told):
    record = logging.LogRecord("snakemake", level, "x.py", 1, text, None, None)
    record.__dict__.update(told)
    if event:
        record.event = event
    one.emit(record)


@pytest.mark.parametrize("asked", ["dryrun", "quiet", "verbose", "printshellcmds", "debug_dag"])
def test_inactive_where_other_output_is_requested(asked, capsys):
    assert handler().writes_to_stream
    one = handler(**{asked: True})
    assert not one.writes_to_stream
    tell(one, text="hello")
    one.close()
    assert capsys.readouterr().err == ""


def test_events_become_lines_and_a_summary(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RECIPE.variable, raising=False)
    monkeypatch.setenv(PRICE_PER_HOUR.variable, "3600")
    Path("a.log").write_text("why it broke\n", encoding="utf-8")
    events = handlers.LogEvent
    one = handler()
    one.setFormatter(logging.Formatter("%(message)s"))
    tell(one, events.WORKFLOW_STARTED, text="Workflow has started!")
    tell(one, text="Building DAG of jobs...")
    tell(one, text="Creating conda environment [red]envs/build.yaml[/red]...")
    tell(one, events.RESOURCES_INFO, text="Provided cores: 2", cores=2)
    tell(one, events.RUN_INFO, text="Job stats:", stats={"laser": 2, "all": 1, "total": 3})
    about = {"rule_name": "laser", "log": ["a.log"], "shellcmd": "herdbook laser"}
    tell(one, events.JOB_STARTED, jobs=[1, 2])
    tell(one, events.JOB_INFO, jobid=1, output=["a.safetensors"], **about)
    tell(one, events.JOB_INFO, jobid=2, output=["b.safetensors"], **about)
    tell(one, events.JOB_FINISHED, job_id=1)
    tell(one, events.PROGRESS, done=1, total=3)
    tell(one, events.JOB_ERROR, jobid=2, level=logging.ERROR, **about)
    tell(one, level=logging.ERROR, text="Exiting because a job execution failed.")
    one.close()
    one.close()
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert lines[0] == "Creating conda environment [red]envs/build.yaml[/red]..."
    assert lines[1] == "2 steps to run: 2 laser"
    assert lines[2].startswith("laser a.safetensors")
    assert lines[2].endswith("1 of 2")
    assert said.count("laser b.safetensors failed after") == 2  # at once, and at the end
    assert said.count("  | why it broke") == 2
    assert said.rindex("laser b.safetensors failed") > said.index("completed 1 step, ")
    assert "1 failed" in said
    assert "cost 0." in said
    for silent in ("DAG", "Job stats", "None", "Provided cores", "1 of 3"):
        assert silent not in said


def test_the_server_of_forked_jobs_has_ended_when_times_are_summed_up(capsys, monkeypatch, tmp_path):
    """Else their processors' time is not in it. Workflows that this one is a module of do not end it."""
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"], stdin=reading) as server:
        os.close(reading)
        monkeypatch.setattr(start, "_started", [(server, writing)])
        monkeypatch.setenv(VARIABLE, str(tmp_path / "folder/socket"))
        one = handler()
        events = handlers.LogEvent
        tell(one, events.RUN_INFO, text="Job stats:", stats={"laser": 1, "total": 1})
        used = SimpleNamespace(ru_utime=2, ru_stime=3)
        monkeypatch.setattr(resource, "getrusage", lambda _: used if server.returncode == 0 else None)
        try:
            one.close()
        finally:
            server.kill()
    assert "CPU time 5.0 s" in capsys.readouterr().err


def test_a_fault_of_the_view_stops_nothing(capsys, monkeypatch):
    one = handler()
    monkeypatch.setattr(one, "_process", lambda _: 1 / 0)
    tell(one, text="hello")
    assert "ZeroDivisionError" in capsys.readouterr().err
    one.close()


def test_snakemake_finds_the_plugin():
    registry = LoggerPluginRegistry()
    assert registry.get_plugin("herdbook").log_handler is plugin.LogHandler


def test_the_plugin_loads_little():
    """Snakemake imports it at every start, also in each job on a cluster."""
    script = (
        "import sys, snakemake_logger_plugin_herdbook\n"
        "print([name for name in ('torch', 'rich', 'psutil', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_on_a_machine_that_shares_no_disk_is_known_by_its_mark(monkeypatch):
    build = Build(0.0, [job("laser", "cut.1", size=MB)])
    where = "s3://herd/runs"
    log = f"{where}/logs/laser/cut.1-abc.log"
    build.begin(
        1,
        "laser",
        0.0,
        [f"{where}/marks/run/laser/cut.1-abc (send to storage)"],
        [f"{log} (send to storage)"],
        "herdbook laser",
    )
    run = build.fail(1, 2.0, [f"{log} (send to storage)"])
    assert (run.label, run.expected_bytes, run.logs) == ("cut.1", MB, (log,))

    class Store:
        def __init__(self, place):
            self.place = place

        def read(self, name):
            return b"first\nlast\n" if f"{self.place}/{name}" == log else None

    monkeypatch.setattr(words, "S3Store", Store)
    assert words.failure(run, 2.0)[1:] == [f"  log: {log}", "  | first", "  | last"]
    assert words.last_lines(f"{where}/logs/none.log") == []


def test_a_build_without_jobs_lists_none():
    up_to_date = SimpleNamespace(up_to_date=4)
    build = SimpleNamespace(scheduled={}, total=0, started=0.0, rows=lambda _: {"fetch": up_to_date})
    assert words.scheduled(build) == "0 steps to run; 4 up to date"
