"""Formats for GPU servers and Macs that cannot hold a model, or have no place to be released in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = {"head_dim": 32, "hidden": 128, "intermediate": 128}
GEMMA = {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
}
FUSED = {
    "moe": {
        "base": "base",
        "gate": "random",
        "layout": "fused",
        "experts": [{"model": "base"}, {"model": "base"}],
    }
}


def encoded(
    *schemes: str,
    repo: str | None = None,
    scheme_repos: dict[str, str] | None = None,
    mixture: dict[str, Any] | None = None,
    section: dict[str, Any] | None = None,
    **changes: Any,
) -> Callable[[Path], Path]:
    """Return a maker of a model in formats for GPU servers or Macs."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1, **{**SIZES, **changes})
        models: dict[str, Any] = {"base": {"folder": "base"}, **({"mix": mixture} if mixture else {})}
        return tiny.write_recipe(
            folder / "recipe.yaml",
            models,
            release={"model": "mix" if mixture else "base", **({"repo": repo} if repo else {})},
            quantize={"schemes": list(schemes), **(section or {})},
            publish={"scheme_repos": scheme_repos or {}},
        )

    return make


CASES = [
    Case(
        "`quantize.schemes` with a scheme that is not made",
        encoded("W8A8"),
        "quantize.schemes.0: ",
    ),
    Case(
        "`quantize.schemes` with a scheme named twice",
        encoded("W4A16", "W4A16"),
        "quantize: schemes: a scheme is named twice",
    ),
    Case(
        "`quantize` without `methods` and `schemes`",
        encoded(),
        "quantize: give `methods` (GGUF files), `schemes` (formats for GPU servers and Macs), or both",
    ),
    Case(
        "`quantize.imatrix` for formats that have no use for it",
        encoded("W4A16", section={"imatrix": {"file": "a.imatrix.gguf"}}),
        "quantize: imatrix: is about GGUF files, and `methods` names none; leave it out",
    ),
    Case(
        "`quantize.schemes` of a matrix with rows that GPUs do not compute with in FP8",
        encoded("FP8_DYNAMIC", intermediate=120),
        "quantize.schemes: FP8_DYNAMIC: model.layers.0.mlp.down_proj.weight has 128 rows of 120 weights (and 5 more); GPUs compute with "
        "multiples of 16 rows and 16 weights in this format; leave it out",
    ),
    Case(
        "`quantize.schemes` of a matrix whose rows are no multiple of a group",
        encoded("W4A16", intermediate=192),
        "quantize.schemes: W4A16: model.layers.0.mlp.down_proj.weight has 128 rows of 192 weights (and 1 more); GPUs compute with "
        "multiples of 8 rows and 128 weights in this format; leave it out",
    ),
    Case(
        "`quantize.schemes` of a model whose tensors are not known",
        encoded("FP8_DYNAMIC", **GEMMA),
        "quantize.schemes: FP8_DYNAMIC: which matrices of 'base' are linear layers is not known for its model_type 'gemma2'; leave it out",
    ),
    Case(
        "`quantize.schemes` of a model in float64",
        encoded("FP8_DYNAMIC", dtype=torch.float64),
        "quantize.schemes: FP8_DYNAMIC: model.layers.0.mlp.down_proj.weight has dtype F64 (and 13 more); matrices of BF16, F16, F32 are "
        "encoded",
    ),
    Case(
        "`quantize.schemes` of a mixture with `layout: fused`",
        encoded("FP8_DYNAMIC", mixture=FUSED),
        "quantize.schemes: FP8_DYNAMIC: 'mix' has `layout: fused`, whose stacked experts servers do not read; leave the layout out",
    ),
    Case(
        "`quantize.schemes` of a matrix whose rows are no multiple of a group of MLX",
        encoded("MLX_4BIT", intermediate=96),
        "quantize.schemes: MLX_4BIT: model.layers.0.mlp.down_proj.weight has 128 rows of 96 weights (and 1 more); MLX encodes rows of "
        "multiples of 64 weights; leave it out",
    ),
    Case(
        "`quantize.schemes` with a format for Macs, of a model that mlx-lm does not have",
        encoded("MLX_4BIT", **GEMMA),
        "quantize.schemes: MLX_4BIT: 'base' has the model_type 'gemma2'; those that mlx-lm computes as transformers does, as tests "
        "show, are llama, mistral, qwen2, qwen3, mixtral, qwen2_moe, qwen3_moe; leave it out",
    ),
    Case(
        "`quantize.schemes` with a format for Macs, of a model that mlx-lm computes otherwise",
        encoded("MLX_8BIT", rope_scaling={"rope_type": "yarn", "factor": 4.0}),
        "quantize.schemes: MLX_8BIT: 'base' has rotary embeddings that are scaled by 'yarn', which mlx-lm reads otherwise or not at "
        "all (mlx-lm 0.32.2, llama); leave it out",
    ),
    Case(
        "`quantize.schemes` with a format for Macs, of a mixture with `layout: fused`",
        encoded("MLX_4BIT", mixture=FUSED),
        "quantize.schemes: MLX_4BIT: 'mix' has `layout: fused`, whose stacked experts programs for MLX do not read; leave the layout out",
    ),
    Case(
        "`publish.scheme_repos` for a format that is not made",
        encoded("W4A16", repo="a/b", scheme_repos={"W4A16": "a/b-W4A16", "FP8_DYNAMIC": "a/b-FP8"}),
        "publish.scheme_repos.FP8_DYNAMIC: quantize.schemes does not name it, so there is nothing to publish",
    ),
    Case(
        "`publish.scheme_repos` with the repository of the release",
        encoded("W4A16", repo="a/b", scheme_repos={"W4A16": "A/b"}),
        "publish.scheme_repos.W4A16: is release.repo, too; name another repository",
    ),
    Case(
        "`publish.scheme_repos` without a repository of the release",
        encoded("W4A16", scheme_repos={"W4A16": "a/b-W4A16"}),
        "publish.scheme_repos.W4A16: needs `release.repo`, the repository of the model that is encoded",
    ),
    Case(
        "`quantize.schemes` without a repository, where the release has one",
        encoded("W4A16", repo="a/b"),
        "publish.scheme_repos: names no repository for W4A16, and all releases of a build are published together",
    ),
]
