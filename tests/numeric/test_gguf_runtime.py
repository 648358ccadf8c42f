"""Each family that becomes GGUF, read by llama.cpp's runtime: its logits are those of transformers, or of plain formulas."""

import importlib.metadata

import numpy as np
import pytest

from herdbook.steps.evaluate.llama_runtime import VERSION, Runtime
from support.gguf_families import LLAMA3, families, logits, write_file

NEAR = 1e-4  # of the largest logit
OTHER = 1e-2  # by which a file that computes something else differs, at least
LONG = ("phi3-long", "phi4-mini")
TOKENS = [(7 * number * number + 3 * number) % families.VOCABULARY for number in range(400)]
EXPERTS = {"num_experts_per_tok": 2, "norm_topk_prob": True}
CASES = [
    *((name, 40, {}) for name in families.CONFIGS),
    *((name, length, {}) for name in LONG for length in (200, 300)),
    ("gemma3-scaled", 300, {}),
    ("deepseek", 40, {"rope_scaling": LLAMA3}),
    ("deepseek-shared", 40, {"rope_scaling": LLAMA3}),
    *((name, 40, EXPERTS) for name in ("deepseek", "deepseek-shared", "qwen2_moe", "qwen3_moe")),
]


@pytest.fixture(autouse=True)
def installed():
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != VERSION:
        pytest.skip(f"needs pip install llama-cpp-python=={VERSION}")


def computed(path, tokens, context=0):
    """Return what llama.cpp computes, with a context of so many tokens."""
    runtime = Runtime(path, max(context, len(tokens)), 1)
    try:
        return runtime.logits(tokens)
    finally:
        runtime.close()


def distance(ours, theirs):
    """Return the largest difference, of the largest logit."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "length", "changes"), CASES)
def test_logits_are_those_of_the_model(tmp_path, name, length, changes):
    folder, path = write_file(tmp_path, name, **changes)
    assert distance(computed(path, TOKENS[:length]), logits(folder, TOKENS[:length])) < NEAR


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_the_context_chooses_the_factors_of_longrope(tmp_path, name):
    """What the plan warns of: of a short text in a long context, llama.cpp computes with the long factors."""
    folder, path = write_file(tmp_path / "made", name)
    tokens = TOKENS[:200]
    found = computed(path, tokens, 512)
    assert distance(found, logits(folder, tokens)) > OTHER
    scaling = families.config(name)["rope_scaling"]
    other, _ = write_file(
        tmp_path / "other", name, rope_scaling=scaling | {"short_factor": scaling["long_factor"]}
    )
    assert distance(found, logits(other, tokens)) < NEAR
