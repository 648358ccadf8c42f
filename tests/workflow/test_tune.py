"""A search under Snakemake: trials are ordinary jobs, nothing is measured twice, and what was found is built."""

import pytest

from herdbook import lock as locks
from support import tuned
from support.project import Project

SEARCH = {**tuned.SEARCH, "generations": 1, "population": 4}


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    tuned.write(project.recipe.parent, SEARCH).rename(project.recipe)
    return project


@pytest.mark.slow
def test_a_search_goes_on_after_an_interruption_with_other_workers(project):
    done = project.herdbook("lock")
    assert "models.sum.search: nothing was tried yet. Run `herdbook tune config/tiny.yaml`" in done.stderr
    path = locks.path_for(project.recipe)
    untried = path.read_bytes()
    done = project.herdbook("tune", "--", "--cores", "2")
    assert done.returncode == 0, done.stderr
    found = locks.load(path)
    assert len(found.tuned["sum"].result.trials) == 5
    assert not project.recipe.with_suffix(".trials.yaml").exists()
    assert not [one for one in (project.results / "shards").iterdir() if "trial" in one.name]

    measured = project.results / "evaluations"
    (lost,) = measured.glob("sum-trial-3-*.json")
    lost.unlink()
    times = {one.name: one.stat().st_mtime_ns for one in measured.iterdir()}
    path.write_bytes(untried)
    done = project.herdbook("tune", "config/tiny.yaml", "--", "--cores", "1")
    assert done.returncode == 0, done.stderr
    assert locks.load(path) == found
    changed = {one.name for one in measured.iterdir() if times.get(one.name) != one.stat().st_mtime_ns}
    assert {name.partition(".")[0] for name in changed} == {lost.stem}
    assert project.herdbook("plan").returncode == 0
