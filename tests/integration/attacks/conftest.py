import pytest
from pytest_local_hub import LocalHub, client

from support.attacks.stage import Stage


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("stage")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        yield Stage(hub, root)
