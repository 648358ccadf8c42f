"""What workflow.md shows is what the workflow does; what people see of a build is what happens. Real runs, all of it."""

import os
import re
import shutil
import signal
import sys
import time

import pytest

from support import rebuilds, tiny
from support.project import Project, steps_of
from support.terminal import pictures, plain, watch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the herd in a terminal; return the project, and what stood on the terminal."""
    project = rebuilds.herd(tmp_path_factory.mktemp("shown") / "built")
    return project, rebuilds.build(project)


@pytest.fixture
def project(built, tmp_path):
    return built[0].copy(tmp_path / "copy")


def explained(project):
    """Return the jobs that `herdbook explain all` says a build would run, and all that it says."""
    done = project.herdbook("explain", "--recipe", "config/tiny.yaml", "all")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^(\S+ ?\S*): would be (?:re)?built", done.stdout, re.MULTILINE)), done.stdout


def named(steps):
    """Return jobs of a log by rule and by what names them."""
    found = set()
    for rule, output in steps:
        if rule in {"assemble", "files"}:
            name = output.split("/")[2]
        elif "/Tiny/" in output:
            name = ""
        else:
            name = output.rpartition("/")[2].rpartition(".")[0]
        found.add(f"{rule} {name}".rstrip())
    return found


def away(project):
    """Take away a shard that another place of its expert needs, and that others were made of."""
    next((project.results / "shards").glob("base-laser.1-*.safetensors")).unlink()
    edit = project.recipe.read_text(encoding="utf-8").replace("model: tuned-laser", "model: base-laser")
    project.recipe.write_text(edit, encoding="utf-8")
    tiny.lock(project.recipe)


def without_notice(project):
    """Take away a file of the card, which nothing that is to be made reads."""
    (project.results / "Tiny/card/NOTICE").unlink()


def test_the_page_shows_what_the_build_took(built):
    page = (built[0].results / "Tiny/report.html").read_text(encoding="utf-8")
    rows = re.findall(
        r'<tr><th scope="row">(\w+)</th><td class="number" data-value="(\d+)">\d+</td><td [^>]*"0">', page
    )
    assert {rule for rule, _ in rows} >= {"fetch", "laser", "moe", "routing"}
    notes = [path.parent.name for path in (built[0].results / "spent").glob("*/*.json")]
    assert {rule: notes.count(rule) for rule, _ in rows} == {rule: int(count) for rule, count in rows}


def test_the_table_is_what_the_workflow_does(built, tmp_path):
    project, _ = built
    document = rebuilds.DOCUMENT.read_text(encoding="utf-8")
    rows = {"a first build": rebuilds.counts(steps_of(project.logged()))}
    unlisted = [("a shard away", away), ("a notice away", without_notice)]  # no rows of the table
    for number, (name, change) in enumerate([*rebuilds.CHANGES.items(), *unlisted]):
        copy = project.copy(tmp_path / str(number))
        change(copy)
        steps = rebuilds.would_run(copy)
        if (name, change) not in unlisted:
            rows[name] = rebuilds.counts(steps)
        if change is rebuilds.threshold:
            explanation, _ = rebuilds.between(document, "explanation")
            assert explanation == rebuilds.explanation(copy), f"run: {rebuilds.COMMAND}"
        made, said = explained(copy)
        assert made == named(steps), f"{name}: herdbook explain and Snakemake differ:\n{said}"
    written, _ = rebuilds.between(document, "changes")
    assert written == rebuilds.table(rows), f"run: {rebuilds.COMMAND}"


def test_live_view(built):
    project, seen = built
    logged = steps_of(project.logged())
    shown = plain(seen)
    drawn = rebuilds.progress(seen)
    assert len(drawn) > 10
    # what ran stood there while it ran
    assert any(map(rebuilds.LASERED.search, drawn))
    heads = rebuilds.heads(drawn)
    assert all(done + running + waiting == total == len(logged) for done, total, running, waiting in heads)
    assert [head[0] for head in heads] == sorted(head[0] for head in heads)
    assert max(running for _, _, running, _ in heads) == 2  # two cores
    # each job that ended scrolled by
    for number in range(1, len(logged) + 1):
        assert len(re.findall(rf", {number} of {len(logged)}$", shown, re.MULTILINE)) == 1
    # nothing of the drawing is left under the summary, whose counts are those of the log
    end = pictures(seen)[-1]
    assert rebuilds.BAR not in end
    rows = [line.split() for line in end.splitlines()]
    table = {row[0]: int(row[1]) for row in rows if row and row[0] in rebuilds.RULES}
    assert table == rebuilds.counts(logged)
    assert f"completed {len(logged)} steps, 0 up to date" in end
    *_, release, card, verdict, following, other = end.strip().splitlines()
    assert release.strip() == "release: results/Tiny/release"
    assert card.strip() == "card: results/Tiny/release/README.md"
    assert verdict.strip() == "verified: passed at the level claims (results/Tiny/report.html)"
    assert following.strip().startswith("next: read the card and the page, then change ")
    assert other.strip() == "or begin with a merge on the Hub: herdbook new FOLDER --from owner/name"
    assert "\x1b[?25h" in seen[seen.rindex("\x1b[?25l") :]  # the cursor is back


def test_snakemake_s_report_shows_figures_card_page_and_tables(built):
    project, _ = built
    project.snakemake("--report", "report.html")
    report = (project.root / "report.html").read_text(encoding="utf-8")
    for name in ("README.md", "figures/lineage.svg", "report.html", "verification.json"):
        assert f"results/Tiny/{name}" in report or f"results/Tiny/card/{name}" in report, name


def test_failure_is_reported_at_once_and_at_the_end(project):
    rebuilds.threshold(project)
    shard = next((project.results / "shards").glob("tuned.1-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    config = project.root / "config/config.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "price_per_hour: 3600\n", encoding="utf-8")
    done = project.snakemake(check=False)
    assert done.returncode != 0
    said = done.stderr
    assert "\x1b" not in said
    failed = r"^laser tuned-laser\.1 failed after [\d.]+ s; model tuned-laser, key [0-9a-f]{64}$"
    first, second = re.finditer(failed, said, re.MULTILINE)
    assert first.start() < said.index("completed 0 steps") < second.start()
    assert said.count("  log: logs/laser/tuned-laser.1-") == 2
    assert said.count("  | herdbook laser: ") == 2
    last = max(
        (project.root / "logs/laser").glob("tuned-laser.1-*.log"), key=lambda path: path.stat().st_mtime
    )
    assert said.count(f"  | {last.read_text(encoding='utf-8').splitlines()[-1]}\n") == 2
    assert "CalledProcessError" not in said
    assert re.search(r"1 failed, 7 not run, in .*, cost \d+\.\d\d at 3600 an hour", said)


def test_interrupted_it_reports_what_was_completed(project):
    rebuilds.threshold(project)

    def interrupt(process, seen):
        # as a person would: again if nothing happens, since Snakemake loses a signal that comes while it chooses jobs
        lost = interrupted and time.monotonic() - interrupted[-1] > 5 and b"Terminating processes" not in seen
        if b" 1 running" in seen and (lost or not interrupted):
            interrupted.append(time.monotonic())
            os.kill(process.pid, signal.SIGINT)

    interrupted = []
    _, seen = watch(
        [sys.executable, "-m", "snakemake", "--cores", "2"],
        project.root,
        project.environment(forked=False),
        interrupt,
    )
    assert interrupted
    end = pictures(seen)[-1]
    assert rebuilds.BAR not in end
    # a job that ends before the signal reaches it is completed
    completed, not_run = re.search(
        r"^completed (\d) steps?, 10 up to date, (\d) not run, in ", end, re.MULTILINE
    ).groups()
    assert int(completed) + int(not_run) == 8
    assert int(not_run) > 0
    assert "Traceback" not in seen


def test_what_comes_out_of_the_cache_is_counted_and_explained(project, tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HERDBOOK_CACHE", str(tmp_path / "cache"))
    for place, found, sentence in (
        ("one", "completed 1 step, ", "would be built"),
        ("two", "completed 0 steps, 1 file from the cache, ", "would be restored from the cache"),
    ):
        shutil.copytree(project.recipe.parent, tmp_path / place / "config")
        fresh = Project(tmp_path / place)
        (fresh.root / "config/config.yaml").write_text("recipe: config/tiny.yaml\n", encoding="utf-8")
        shard = next((project.results / "shards").glob("base.1-*.safetensors")).relative_to(project.root)
        assert f"fetch {shard.stem}: {sentence}\n" in explained(fresh)[1]
        said = fresh.snakemake("--", str(shard)).stderr
        assert found in said, said


def test_snakemake_s_own_words_where_they_are_asked_for(built):
    project, _ = built
    nothing = "Nothing to be done (all requested files are present and up to date)."
    assert nothing in project.snakemake().stderr
    assert (
        nothing
        in project.snakemake("--workflow-profile", "none", "--nolock", "--rerun-triggers", "params").stderr
    )
    again = ("--forcerun", "verify")
    dry = project.snakemake("--dry-run", *again).stdout
    assert "rule verify:" in dry
    assert "This was a dry-run" in dry
    assert "done" not in project.snakemake("--quiet", "all", "--", "results/Tiny/verification.json").stderr
    assert "results/Tiny/verification.json" in project.snakemake("--summary").stdout
    loud = project.snakemake("--printshellcmds", *again).stderr
    assert "herdbook verify results/Tiny/release" in loud
    assert "to run" not in loud
