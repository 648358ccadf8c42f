"""What all tests share: a server from which they fork programs that they run many times."""

import pytest

from support import forkserver

SERVER = pytest.StashKey()


def pytest_configure(config):
    """Start the server: once for all workers, to which its address goes as a variable."""
    if not hasattr(config, "workerinput"):
        at_once = bool(config.getoption("numprocesses", None))  # while workers collect
        server = config.stash[SERVER] = forkserver.serve(at_once=at_once)
        server.__enter__()


def pytest_unconfigure(config):
    if server := config.stash.get(SERVER, None):
        server.__exit__(None, None, None)
