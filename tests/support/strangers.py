"""Strangers' merges on a local Hub: mixtures written by a loop in mergekit's layouts, and what an audit says of one."""

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from herdbook.audit.audit import Audit
from herdbook.release.finding import Options, Outcome
from support import tiny

MODELS = ("base", "tuned", "other")
LAYERS = 2
OLD = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def mixture(sources, experts, layout="mixtral", seed=7):
    """Return the tensors of a mixture of ``experts`` on the base; routers are rows of length 1."""
    tensors = {name: one for name, one in sources["base"].items() if ".mlp." not in name}
    generator = torch.Generator().manual_seed(seed)
    for layer in range(LAYERS):
        block = f"model.layers.{layer}." + ("block_sparse_moe" if layout == "mixtral" else "mlp")
        hidden = sources["base"]["model.norm.weight"].shape[0]
        rows = torch.randn(len(experts), hidden, generator=generator)
        tensors[f"{block}.gate.weight"] = (rows / rows.norm(dim=1, keepdim=True)).to(torch.bfloat16)

        def of(expert, matrix, layer=layer):
            return sources[expert][f"model.layers.{layer}.mlp.{matrix}.weight"]

        if layout == "fused":
            both = [torch.cat([of(one, "gate_proj"), of(one, "up_proj")]) for one in experts]
            tensors[f"{block}.experts.gate_up_proj"] = torch.stack(both)
            tensors[f"{block}.experts.down_proj"] = torch.stack([of(one, "down_proj") for one in experts])
            continue
        for place, one in enumerate(experts):
            for matrix, old in OLD.items():
                called = old if layout == "mixtral" else matrix
                tensors[f"{block}.experts.{place}.{called}.weight"] = of(one, matrix).clone()
    return tensors


def config_of(experts=("tuned", "other"), base="herd/base", **changes):
    """Return the configuration of a mixture, as mergekit reads it."""
    return {
        "base_model": base,
        "gate_mode": "hidden",
        "dtype": "bfloat16",
        "experts": [
            {"source_model": f"herd/{one}", "positive_prompts": [f"w{place}"]}
            for place, one in enumerate(experts)
        ],
        **changes,
    }


def card(config):
    """Return a card that shows a configuration."""
    return f"---\nlicense: apache-2.0\n---\n# A mixture\n\n```yaml\n{yaml.safe_dump(config)}```\n".encode()


def model_config(folder, **changes):
    """Return the ``config.json`` of a mixture on the model in a folder."""
    return json.loads((folder / "config.json").read_text()) | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        **changes,
    }


class Stage:
    """A local Hub with three models, and a folder for merges of them."""

    def __init__(self, hub, root):
        self.hub, self.root, self.count = hub, root, 0
        self.herd = root / "herd"
        self.sources = {}
        for seed, name in enumerate(MODELS):
            folder = tiny.write_model(self.herd / name, seed=seed, shards=2 if name == "tuned" else 1)
            self.add(f"herd/{name}", folder)
            self.sources[name] = {
                key: one for path in folder.glob("*.safetensors") for key, one in load_file(path).items()
            }

    def add(self, name, folder):
        return self.hub.add_repo(name, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})

    def write(self, tensors, config=None, model=None, *, files=None, base="base"):
        """Write a merge into a folder, and its configuration beside the sources' folder; return the folder."""
        self.count += 1
        folder, config = self.root / f"merge{self.count}", config_of() if config is None else config
        folder.mkdir()
        held = {key: one.contiguous() for key, one in tensors.items()}
        save_file(held, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(model or model_config(self.herd / base)))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_bytes((self.herd / base / file).read_bytes())
        (folder / "README.md").write_bytes(card(config))
        for file, content in (files or {}).items():
            (folder / file).write_bytes(content)
        folder.with_suffix(".yml").write_text(yaml.safe_dump(config))
        return folder

    def merge(self, *arguments, name=None, **options):
        """Put a merge on the Hub; return its name."""
        folder = self.write(*arguments, **options)
        name = name or f"herd/{folder.name}"
        self.add(name, folder)
        return name


def cut_ranks(tensor, share):
    """Return a matrix with a share of its ranks, as LASER reduces it."""
    u, s, v = torch.linalg.svd(tensor.double(), full_matrices=False)
    kept = int(len(s) * share)
    return (u[:, :kept] * s[:kept] @ v[:kept]).to(tensor.dtype)


def verify(name, config=None, ggufs=(), **options):
    """Return all findings about a merge on the Hub or in a folder, whose configuration lies beside it."""
    options = {"sample_bytes": None, **options}
    if isinstance(name, Path) and config is None:
        config = name.with_suffix(".yml")
    return Audit(str(name), config, ggufs, Options(**options)).run(lambda _: None).findings


def of(findings, check, outcome=None):
    """Return the findings of one check, of one outcome if it is given."""
    return [one for one in findings if one.check == check and outcome in {None, one.outcome}]


def failed(findings):
    """Return check and subject of what failed."""
    return [(one.check, one.subject) for one in findings if one.outcome is Outcome.FAILED]


def unproven(findings):
    """Return the subjects of which nothing is proven."""
    return {one.subject for one in of(findings, "unproven")}
