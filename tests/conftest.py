"""What all tests share: a server from which they fork programs that they run many times."""

import gc
import importlib
import json
import logging

import pytest

from herdbook import apart
from support import forkserver

SERVER = pytest.StashKey()


def pytest_configure(config):
    """Start the server: once for all workers, to which its address goes as a variable."""
    if not hasattr(config, "workerinput"):
        at_once = bool(config.getoption("numprocesses", None))  # while workers collect
        server = config.stash[SERVER] = forkserver.serve(at_once=at_once)
        server.__enter__()


def pytest_collection_finish():
    """Spare the garbage collector what stays anyway, modules and tests above all: looking at it takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure(config):
    if server := config.stash.get(SERVER, None):
        server.__exit__(None, None, None)


@pytest.fixture
def transformers_here(monkeypatch):
    """Ask transformers about models and tokenizers in this process: starting it takes longer than all else.

    The process of its own has tests in test_form and test_tokenizer.
    """

    own = apart.ask

    def ask(program, question, *limits):
        if limits:  # what needs them is not asked here
            return own(program, question, *limits)
        return importlib.import_module(program).reply(**json.loads(question))

    monkeypatch.setattr(apart, "ask", ask)
    # transformers logs to the standard error of an earlier test
    monkeypatch.setattr(logging, "raiseExceptions", False)
