"""An audit of what mergekit itself makes."""

import json

import pytest
import yaml

from herdbook.release.finding import Outcome
from support.strangers import (
    config_of,
    failed,
    of,
    unproven,
    verify,
)
from support.tools import MERGEKIT_MOE


@pytest.mark.slow
@pytest.mark.usefixtures("mergekit")
@pytest.mark.parametrize("gate", ["hidden", "cheap_embed", "random", "uniform_random"])
def test_what_the_real_mergekit_makes(stage, tmp_path, gate):
    config = config_of(gate_mode=gate) | {"base_model": str(stage.herd / "base")}
    for expert, name in zip(config["experts"], ("tuned", "other"), strict=True):
        expert["source_model"] = str(stage.herd / name)
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    MERGEKIT_MOE.run([str(tmp_path / "config.yml"), str(tmp_path / "out")], tmp_path)
    named = stage.root / f"{gate}.yml"
    named.write_text(yaml.safe_dump(config))
    found = verify(tmp_path / "out", named)
    assert not failed(found)
    assert [one.subject for one in of(found, "equal", Outcome.PASSED)] == ["expert 1", "expert 2", "base"]
    assert of(found, "gate", Outcome.PASSED)
    assert unproven(found) <= {"routers", "tokenizer"}
    path = next(iter((tmp_path / "out").glob("*.safetensors")))
    content = bytearray(path.read_bytes())
    at = int.from_bytes(content[:8], "little") + 8
    header = json.loads(content[8:at])
    start, _ = header["model.layers.1.mlp.experts.gate_up_proj"]["data_offsets"]
    content[at + start] ^= 1  # of the first expert's gate
    path.write_bytes(content)
    assert failed(verify(tmp_path / "out", named)) == [("equal", "expert 1")]
