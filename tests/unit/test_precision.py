"""Numbers that are rounded when models are joined are told."""

import pytest
import torch

from herdbook import plan as plans
from herdbook.cli.main import main
from support import tiny
from support.inputs.meaning import MEAN, MIXTURE


@pytest.mark.parametrize("other", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("written", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("entry", [MEAN, MIXTURE], ids=["a mean", "a mixture"])
def test_rounding_is_told(tmp_path, capsys, entry, written, other):
    tiny.write_model(tmp_path / "a", dtype=getattr(torch, written))
    tiny.write_model(tmp_path / "b", dtype=other)
    ((key, made),) = entry.items()
    models = {"a": {"folder": "a"}, "b": {"folder": "b"}, "made": {key: {**made, "dtype": written}}}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models)
    assert main(["lock", "--recipe", str(recipe)]) == 0
    # a number in the middle of a dtype's precision, and one at the end of its range
    sample = torch.tensor(
        [1 + torch.finfo(other).eps, torch.finfo(other).tiny, torch.finfo(other).max], dtype=other
    )
    is_kept = torch.equal(sample.to(getattr(torch, written)).double(), sample.double())
    warnings = plans.load(recipe).warnings
    assert all(f"warning: {line}" in capsys.readouterr().err for line in warnings)
    assert is_kept == (not warnings)
    assert all(line.startswith("models.made: 'b' has numbers in ") for line in warnings)
