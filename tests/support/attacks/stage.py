"""The stage of the attacks: a small signed release of a mixture, and a local Hub with its sources."""

import copy
import shutil

from herdbook.signing import keys
from herdbook.steps.card.step import render_card
from support import tiny

REPO = "herd/Tiny"
MODELS = {
    "base": {"hub": "herd/base"},
    "tuned": {"hub": "herd/tuned"},
    "cut": {"laser": "tuned", "rank": {"fraction": 0.5}, "matrices": ["mlp.down_proj"]},
    "folded": {"adapter": {"hub": "herd/adapter"}, "on": "base"},
    "mix": {
        "moe": {
            "base": "base",
            "experts": [
                {"model": "cut", "prompts": ["w1"]},
                {"model": "base", "prompts": ["w2"]},
                {"model": "folded", "prompts": ["w4"]},
            ],
        }
    },
}


def files_of(folder):
    """Return the contents of a folder's files, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


class Stage:
    """A Hub with the sources, the release's folder, and the key that signed it.

    Args:
        hub: The Hub that the sources are put on, to which this process's client is pointed.
        root: An empty folder.
    """

    def __init__(self, hub, root):
        self.root = root
        for seed, name in enumerate(("base", "tuned")):
            tiny.write_model(root / name, seed=seed, shards=2)
        tiny.write_adapter(root / "adapter", root / "base", seed=2)
        self.put_on(hub)
        keys.generate(root / "key")
        self.key = keys.load_private(root / "key")
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", MODELS), root / "results")
        render_card(plan, plan.layout.card_folder)
        self.folder = tiny.release(plan, self.key)

    def put_on(self, hub):
        """Put the sources on a Hub: their commits are the same on each."""
        self.hub = hub
        for name in ("base", "tuned", "adapter"):
            hub.add_repo(f"herd/{name}", files_of(self.root / name), license="apache-2.0")

    def published_on(self, hub):
        """Return the same on another Hub, which has the release besides."""
        other = copy.copy(self)
        other.put_on(hub)
        hub.add_repo(REPO, files_of(self.folder))
        return other

    def copy(self, target):
        """Copy the release's folder."""
        return shutil.copytree(self.folder, target)


def weights_in(stage, repo):
    """Return the digests of a repository's weights, by name."""
    files = stage.hub.repos[repo].commits[stage.hub.repos[repo].branches["main"]].files
    return {name: blob.sha256 for name, blob in files.items() if name.endswith(".safetensors")}
