"""Publishing under Snakemake, to a local Hub: shown whole by a dry run, done once, and never part of `all`."""

import json
import re
import threading
from pathlib import Path

import pytest
from pytest_local_hub import LocalHub, client

from support import tiny
from support.project import Project

REPO = "keeper/tiny"
WAIVER = {
    "source": "base",
    "obligation": "unknown",
    "by": "A. Lawyer",
    "because": "the weights are made up",
}
MODELS = {
    "base": {"folder": "base"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"], "layers": "0-0"},
}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def verified(project, place):
    """The exit status of verifying a release where it is published: its files and claims."""
    done = project.herdbook("verify", place)
    print(done.stdout, done.stderr)
    return done.returncode


class Watch:
    """The command lines of all processes, while a block runs."""

    def __init__(self):
        self.seen = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self._over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:  # it has ended
                    continue

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


@pytest.mark.slow
def test_publish_is_shown_by_a_dry_run_done_once_and_never_in_all(tmp_path, monkeypatch):
    with LocalHub() as hub:
        for name, value in client.environment(hub, tmp_path / "home", hub.token).items():
            monkeypatch.setenv(name, value)
        project = Project(tmp_path / "project")
        tiny.write_model(project.recipe.parent / "base")
        tiny.write_recipe(
            project.recipe,
            MODELS,
            release={"repo": REPO, "waivers": [WAIVER]},
            publish={"tag": "v1"},
        )
        tiny.lock(project.recipe)

        made = project.run()
        assert "verify" in {rule for rule, _ in made}
        assert "publish" not in {rule for rule, _ in made}
        assert hub.requests == []
        release = project.results / "Tiny/release"
        ours = contents(release)

        dry = project.snakemake("publish", "--dry-run")
        (command,) = set(re.findall(r"`herdbook (publish --dry-run)`", dry.stdout + dry.stderr))
        shown = project.herdbook(*command.split())
        assert shown.returncode == 0
        text = shown.stdout + shown.stderr
        assert hub.repos == {}
        assert not [
            one for one in hub.requests if one.method not in {"GET", "HEAD"} and "yaml" not in one.path
        ]
        assert f"commit to {hub.url}/{REPO} (public, to be created)" in text
        assert "  message  Release Tiny v1" in text
        added = dict(re.findall(r"^ *add +(\S+)  ([\d,]+) bytes", text, re.MULTILINE))
        assert {name: int(size.replace(",", "")) for name, size in added.items()} == {
            name: len(content) for name, content in ours.items()
        }

        with Watch() as watch:
            done = project.snakemake("publish")
        assert re.search(r"\n1 step to run: 1 publish\b", done.stdout + done.stderr)
        repo = hub.repos[REPO]
        record = json.loads((project.results / "Tiny/publication.json").read_text())
        assert repo.tags == {"v1": record["commit"]}
        held = {name: blob.content for name, blob in repo.find("v1").files.items()}
        del held[".gitattributes"]
        assert held == ours
        assert contents(release) == ours

        state = (dict(repo.branches), dict(repo.tags), set(repo.commits))
        for arguments in (["publish"], ["publish", "--dry-run"], []):
            again = project.snakemake(*arguments)
            assert "Nothing to be done" in again.stdout + again.stderr
        again = project.snakemake("publish", "--forcerun", "publish")
        assert (dict(repo.branches), dict(repo.tags), set(repo.commits)) == state
        assert json.loads((project.results / "Tiny/publication.json").read_text()) == record

        for place in (f"{REPO}@v1", REPO):
            assert verified(project, place) == 0

        project.recipe.write_text(project.recipe.read_text().replace("v1", "v2"))
        stale = project.herdbook(*command.split())
        assert stale.returncode != 0
        assert "was made with another recipe.yaml than" in stale.stdout + stale.stderr
        assert "commit to" not in stale.stdout + stale.stderr

        token = hub.token.encode()
        assert any(b"publish" in each for each in watch.seen)
        assert not [each for each in watch.seen if token in each]
        said = [one.encode() for run in (shown, done, again) for one in (run.stdout, run.stderr)]
        assert not [text for text in said if token in text]
        assert not [path for path in project.root.rglob("*") if path.is_file() and token in path.read_bytes()]
