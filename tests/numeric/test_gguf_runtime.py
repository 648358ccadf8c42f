"""Each family that becomes GGUF, read by llama.cpp's runtime: its logits are those of transformers, or of plain formulas."""

import importlib.metadata

import pytest

from herdbook.steps.evaluate.llama_runtime import VERSION
from support.gguf_families import LONG, RUNS, TOKENS, computed, distance, families, logits, write_file

NEAR = 1e-4
OTHER = 1e-2  # by which a file that computes something else differs, at least


@pytest.fixture(autouse=True)
def installed():
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != VERSION:
        pytest.skip(f"needs pip install llama-cpp-python=={VERSION}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "length", "changes"), RUNS)
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
