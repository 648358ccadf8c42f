import pytest

from support import slurm


@pytest.fixture(scope="module")
def cluster():
    """A SLURM that runs."""
    slurm.require()
    cluster = slurm.make()
    yield cluster
    cluster.stop()
