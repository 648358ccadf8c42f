"""Publishing to the Hub, killed at moments that are drawn: nothing is half there, and the next run goes on."""

import signal
from random import Random

import pytest

from herdbook.cli.main import main
from support import dummy_release
from support.mutations import BUDGET, SEED
from support.publishing import REPO, at, contents, herdbook, published_claims, releases, titles

KILLS = BUDGET // 100 or 6
# The client in the other process, which ends before or after the request of a number.
KILLED = """
import os, signal, sys
from huggingface_hub.utils import httpx

left, answered = int(sys.argv.pop(1)), sys.argv.pop(1) == "answered"
real = httpx.Client.send

def send(self, request, **options):
    global left
    left -= 1
    if left < 0 and not answered:
        os.kill(os.getpid(), signal.SIGKILL)
    response = real(self, request, **options)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return response

httpx.Client.send = send
from herdbook.cli.main import main
sys.exit(main())
"""


@pytest.mark.slow
def test_a_kill_at_any_request_leaves_nothing_half_and_the_next_run_goes_on(hub, tmp_path):
    first = dummy_release.write(tmp_path / "first", files={"old.json": b"1"}, publish={"tag": "v0"})
    release = dummy_release.write(
        tmp_path / "next", weights=b"others", files={"new.json": b"1"}, publish={"tag": "v1"}
    )
    command = ["publish", "--release", str(release.folder), "--repo", REPO]
    random, most, killed = Random(f"{SEED} publish"), None, 0
    for number in range(-1, KILLS):
        hub.repos.pop(REPO, None)
        assert main(["publish", "--release", str(first.folder), "--repo", REPO]) == 0
        before = titles(hub)
        hub.forget()
        last = most if most is not None else 10**6
        when = random.randrange(last), random.choice(["answered", "asked"])
        process = herdbook(hub, tmp_path, *(when if number >= 0 else (last, "asked")), *command, code=KILLED)
        _, err = process.communicate()
        if number < 0:  # not killed, to count the requests
            assert process.returncode == 0, err
            most = len(hub.requests)
            continue
        assert process.returncode in {0, -signal.SIGKILL}, err  # a redirected request counts twice on the Hub
        killed += process.returncode != 0
        whole = releases(hub) == ["Release Tiny v0", "Release Tiny v1"]
        held = contents((release if whole else first).folder)
        claims = {"claims.jsonl"}
        found = at(hub)
        assert {name: found[name] for name in held.keys() - claims} == {
            name: held[name] for name in held.keys() - claims
        }, when
        assert titles(hub)[: len(before)] == before
        assert main(command) == 0
        assert releases(hub) == ["Release Tiny v0", "Release Tiny v1"], when
        assert hub.repos[REPO].tags.keys() == {"v0", "v1"}
        assert at(hub, "v1")["model.safetensors"] == b"others"
        purls = [each["predicate"]["purl"] for each in published_claims(at(hub)["claims.jsonl"])]
        assert len(purls) == len(set(purls)) == 2
    assert killed > KILLS // 2
