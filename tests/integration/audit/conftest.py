import pytest
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file

from support import tiny
from support.strangers import MODELS, Stage, config_of, mixture


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    with pytest.MonkeyPatch.context() as patch, LocalHub() as hub:
        client.use(hub, root / "home", patch)
        yield Stage(hub, root)


@pytest.fixture(scope="module")
def wide(stage):
    """A mixture with rows of 256 numbers, which K-types need: its tensors, and its config.json."""
    names = [f"wide-{one}" for one in MODELS]
    for seed, name in enumerate(names):
        folder = tiny.write_model(stage.herd / name, seed=seed, hidden=256, intermediate=512)
        stage.add(f"herd/{name}", folder)
    sources = {
        key: load_file(stage.herd / one / "model.safetensors") for key, one in zip(MODELS, names, strict=True)
    }
    config = config_of(names[1:], "herd/wide-base")
    return mixture(sources, ("tuned", "other")), mixture(sources, ("tuned", "other"), "fused"), config
