import pytest

from herdbook.errors import StepError
from herdbook.tools.external import Tool
from herdbook.tools.mergekit import MERGEKIT
from support import mergekit as mergekit_server


@pytest.fixture
def hub(local_hub_client):
    """A local Hub, to which the client in this process is pointed."""
    return local_hub_client


@pytest.fixture
def waits(monkeypatch):
    """How long was waited between tries, in seconds, without waiting."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


@pytest.fixture
def said():
    """A place for what a step says."""
    return []


@pytest.fixture
def mergekit(request, monkeypatch):
    """mergekit, in the environment of its own that `make` installs; forked where a test is not about its process."""
    try:
        MERGEKIT.find()
    except StepError as error:
        pytest.skip(str(error))
    if not request.node.get_closest_marker("own_process"):
        monkeypatch.setattr(Tool, "find", mergekit_server.found_warm)
    return MERGEKIT
