"""What all tests share: a server from which they fork programs that they run many times."""

import gc
import os
from pathlib import Path

import pytest

from herdbook import apart
from herdbook.tools.external import Tool
from support import costs, forkserver, tools
from support.asked_here import answering

SERVER = pytest.StashKey()
# torch reads it when it is imported, by the tests. Its threads otherwise wait for each other by computing: where others have
# the cores too, a test takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_addoption(parser):
    parser.addoption("--costs", action="store_true", help="print the processor time of tests, by file")


def pytest_configure(config):
    """Start the server: once for all workers, to which its address goes as a variable."""
    if not hasattr(config, "workerinput"):
        at_once = bool(config.getoption("numprocesses", None))  # while workers collect
        server = config.stash[SERVER] = forkserver.serve(at_once=at_once)
        address = Path(server.__enter__())
        if config.getoption("costs"):
            os.environ[costs.NOTES] = str(address.with_name("costs"))
    if config.getoption("costs"):
        config.pluginmanager.register(costs.Costs(Path(os.environ[costs.NOTES])))


def pytest_collection_finish():
    """Spare the garbage collector what stays anyway, modules and tests above all: looking at it takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure(config):
    if server := config.stash.get(SERVER, None):
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def fewer_processes(request, monkeypatch):
    """Ask transformers in this process, and fork external programs, unless a test is about their processes."""
    if not request.node.get_closest_marker("own_process"):
        monkeypatch.setattr(apart, "ask", answering(apart.ask))
        monkeypatch.setattr(Tool, "find", tools.found_forked)
