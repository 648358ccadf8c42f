"""A server that speaks S3, in a process of its own, for tests: moto's, from a folder of its own."""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

TOOL = Path(sys.prefix) / "tools" / "moto"


def environment(url, key="herd"):
    """Return what a client needs to speak to it, and nothing of the person who runs the tests."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": f"127.0.0.1,localhost,{urlsplit(url).hostname}",
    }


@contextmanager
def serve(monkeypatch, bucket="herd", host="127.0.0.1"):
    """Run a server with one empty bucket, point clients in this process and its children at it, yield its address."""
    if not TOOL.is_dir():
        pytest.fail(f"moto is not installed: pip install --no-deps --target {TOOL} -r envs/moto.txt")
    command = [sys.executable, "-P", "-m", "moto.server", "-H", host, "-p", "0"]
    with (
        tempfile.NamedTemporaryFile("r") as log,  # a pipe that nobody reads would stop it
        open(log.name, "w") as said,  # noqa: PTH123
        subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(TOOL), "PYTHONUNBUFFERED": "1"},
            stderr=said,
            stdout=said,
        ) as process,
    ):
        try:
            url = _address(process, log)
            for name in [name for name in os.environ if name.startswith("AWS_")]:
                monkeypatch.delenv(name)
            for name, value in environment(url).items():
                monkeypatch.setenv(name, value)
            urllib.request.urlopen(urllib.request.Request(f"{url}/{bucket}", method="PUT")).close()  # noqa: S310
            yield url
        finally:
            process.terminate()


def _address(process, log):
    while process.poll() is None:
        log.seek(0)
        found = re.search(r"Running on (http://[\d.:]+)", log.read())
        if found:
            with suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{found[1]}/moto-api/").close()  # noqa: S310
                return found[1]
        time.sleep(0.05)
    raise AssertionError("the server did not start")
