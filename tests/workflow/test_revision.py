"""A model of the Hub, by the real client from a local Hub: another revision re-makes what it changed."""

import pytest
from pytest_local_hub import LocalHub, client
from safetensors.torch import load_file, save

from support import tiny
from support.project import Project, shards_made

MODELS = {
    "base": {"hub": "herd/tiny@one"},
    "cut": {"laser": "base", "rank": {"fraction": 0.5}, "matrices": ["self_attn.o_proj"], "layers": "0-0"},
    "mix": {
        "moe": {
            "base": "base",
            "gate": "random",
            "experts": [{"model": "base"}, {"model": "cut"}],
        }
    },
}


@pytest.mark.slow
def test_another_revision_remakes_what_it_changed(tmp_path, monkeypatch):
    folder = tiny.write_model(tmp_path / "upstream", seed=1, shards=2)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = "model-00002-of-00002.safetensors"
    tensors = load_file(folder / second)
    changed = next(name for name in tensors if ".mlp." in name)
    tensors[changed] = tensors[changed] * 2
    with LocalHub() as hub:
        client.use(hub, tmp_path / "home", monkeypatch)
        hub.add_repo("herd/tiny", files, license="apache-2.0")
        hub.tag("herd/tiny", "one")
        hub.commit("herd/tiny", {second: save(tensors, metadata={"format": "pt"})})
        hub.tag("herd/tiny", "two")
        project = Project(tmp_path / "project")
        tiny.write_recipe(project.recipe, MODELS)
        first = tiny.lock(project.recipe)
        assert shards_made(project.run()) >= {"base.1", "base.2", "cut.1", "mix.expert1-1", "mix.routers"}

        project.recipe.write_text(project.recipe.read_text().replace("tiny@one", "tiny@two"))
        after = tiny.lock(project.recipe)
        assert after.sources["base"].revision != first.sources["base"].revision
        # the first file's bytes are the same in both commits, and so are the base's attention and the routers
        assert shards_made(project.run()) == {
            "base.2",
            "cut.1",
            "mix.expert1-1",
            "mix.expert2-1",
            "mix.base-1",
        }
        assert project.run() == set()
