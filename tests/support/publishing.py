"""Publishing to a local Hub, for tests: how it is asked for, and what the Hub holds and was asked afterwards."""

import json
import re
import subprocess

from huggingface_hub import HfApi
from pytest_local_hub import client

from herdbook.publish import step
from herdbook.signing.signer import line
from support import forkserver

REPO = "keeper/tiny"
WRITING = re.compile(r"/(commit|preupload|branch|tag)/|/repos/|/settings|\.git/|^/upload/|/super-squash/")


def publish(release, said=None, repo=REPO, key=None):
    told = (said if said is not None else []).append
    return step.publish(release, repo, lambda claim: line(claim, key).decode().rstrip("\n"), told)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def at(hub, revision="main", repo=REPO):
    """What the Hub holds at a revision."""
    return {name: blob.content for name, blob in hub.repos[repo].find(revision).files.items()}


def titles(hub, repo=REPO):
    """What the main branch's commits say, the first one first."""
    one = hub.repos[repo]
    return [commit.title for commit in reversed(one.history(one.find("main")))]


def releases(hub):
    return [title for title in titles(hub) if title.startswith("Release")]


def asked(hub, method, pattern):
    return [one for one in hub.requests if one.method == method and re.search(pattern, one.path)]


def written(hub):
    """The requests that may have changed something."""
    return [one for one in hub.requests if one.method not in {"GET", "HEAD"} and WRITING.search(one.path)]


def snapshot(hub):
    repos = {
        name: (dict(repo.branches), dict(repo.tags), set(repo.commits), repo.private)
        for name, repo in hub.repos.items()
    }
    return repos, set(hub.lfs)


def statements(content):
    return [json.loads(each) for each in content.splitlines()]


def published_claims(content):
    return [each for each in statements(content) if each["predicateType"].endswith("/release/v0.1")]


def before_the_first_commit(monkeypatch, act):
    """Do something right before the first commit that is asked for, when everything was looked at already."""
    real, acts = HfApi.create_commit, [act]

    def create_commit(self, *arguments, **options):
        if acts:
            acts.pop()()
        return real(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", create_commit)


def herdbook(hub, root, *arguments, code="from herdbook.cli.main import main; import sys; sys.exit(main())"):
    environment = client.environment(hub, root / "home", hub.token)
    return subprocess.Popen(
        [forkserver.PYTHON, "-c", code, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )
