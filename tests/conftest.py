"""What all tests share: a server from which they fork programs that they run many times."""

import gc
import os
from pathlib import Path

import pytest

from herdbook import apart
from herdbook.tools.external import Tool
from support import compiled, costs, forkserver, tools
from support.asked_here import answering

SERVER = pytest.StashKey()
# torch reads it when it is imported, by the tests. Its threads otherwise wait for each other by computing: where others have
# the cores too, a test takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test cuts the power: what a killed process has written is there without waiting for the disk.
os.fsync = os.fdatasync = lambda _: None


def pytest_addoption(parser):
    parser.addoption("--costs", action="store_true", help="print the processor time of tests, by file")


def pytest_configure(config):
    """Start the server: once for all workers, to which its address goes as a variable."""
    if not hasattr(config, "workerinput"):
        workers = config.getoption("tx", None) or []
        server = config.stash[SERVER] = forkserver.serve(at_once=bool(workers))
        address = Path(server.__enter__())
        # Workers of xdist are forked from it, too, with all that they would import.
        workers[:] = [f"{one}//python={forkserver.WORKER}" if one == "popen" else one for one in workers]
        if config.getoption("costs"):
            os.environ[costs.NOTES] = str(address.with_name("costs"))
        if workers:  # which wait until the server has made its imports
            compiled.compile_tests(config)
    if config.getoption("costs"):
        config.pluginmanager.register(costs.Costs(Path(os.environ[costs.NOTES])))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the parts of long files to several workers."""
    if config.getvalue("dist") == "loadfile":
        from support.scheduling import ByPart  # which needs xdist

        return ByPart(config, log)
    return None


def pytest_collection_finish():
    """Spare the garbage collector what stays anyway, modules and tests above all: looking at it takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure(config):
    if server := config.stash.get(SERVER, None):
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def fewer_processes(request):
    """Ask transformers in this process, and fork external programs, unless a test is about their processes."""
    with pytest.MonkeyPatch.context() as patch:  # of its own, since tests undo theirs
        if not request.node.get_closest_marker("own_process"):
            patch.setattr(apart, "ask", answering(apart.ask))
            patch.setattr(Tool, "find", tools.found_forked)
        yield
