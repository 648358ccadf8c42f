"""Systems other than Linux: verifying, auditing and importing do without what only some systems have."""

import json
import subprocess
import sys

import pytest
import yaml
from pytest_local_hub import LocalHub, client

from support import dummy_release
from support.strangers import Stage, config_of, mixture

ABSENT = """
import os, sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("getuid", "geteuid", "sched_getaffinity", "posix_fadvise", "fdatasync", "copy_file_range", "sendfile"):
    delattr(os, name)

def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/proc"):
        raise FileNotFoundError(2, "there is none", arguments[0])

sys.addaudithook(refuse)
import json
from herdbook.cli.main import main
print(json.dumps([main(arguments) for arguments in json.loads(sys.argv[1])]))
"""


@pytest.mark.slow
@pytest.mark.own_process
def test_verify_audit_import_and_card_run_without_what_linux_has(tmp_path, monkeypatch):
    dummy_release.write(tmp_path)
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        stage = Stage(hub, tmp_path)
        merge = stage.merge(mixture(stage.sources, ("tuned", "other")))
        (tmp_path / "config.yml").write_text(yaml.safe_dump(config_of(("tuned", "other"))), encoding="utf-8")
        commands = {
            ("verify", "release"): 8,  # it is made up: its claims are no claims
            ("audit", merge): 9,  # routers are never proven
            ("import", "config.yml", "-o", "recipe.yaml"): 0,
            ("card", "herd/base"): 0,
        }
        done = subprocess.run(
            [sys.executable, "-c", ABSENT, json.dumps([*commands])],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "Traceback" not in done.stderr, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [*commands.values()], done.stdout + done.stderr
    assert "equal     expert 1" in done.stdout
