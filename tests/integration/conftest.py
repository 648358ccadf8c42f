import pytest

from herdbook.errors import StepError
from support.mergekit import DRAW, MERGEKIT


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
def same_draw(monkeypatch):
    """The same random numbers for each tensor, as in ``merge_all``."""
    import torch

    from herdbook.steps.merge import as_mergekit

    monkeypatch.setattr(as_mergekit, "generator", lambda *_: torch.Generator().manual_seed(DRAW))


@pytest.fixture
def mergekit():
    """mergekit, in the environment of its own that `make` installs."""
    try:
        MERGEKIT.find()
    except StepError as error:
        pytest.skip(str(error))
    return MERGEKIT
