"""No network while lm-eval runs, also if the libraries were imported before."""

import json

import datasets
import datasets.load
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled

from herdbook.steps.evaluate.offline import offline


def test_nobody_is_told_that_a_data_set_is_read(tmp_path, monkeypatch):
    """`datasets` counts at a server of its own which of its readers are used."""
    asked = []
    monkeypatch.setattr(datasets.load, "get_session", lambda: asked.append("session"))
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "a"}), encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with offline():
        found = datasets.load_dataset("json", data_files={"test": str(tmp_path / "test.jsonl")})
    assert found["test"]["text"] == ["a"]
    assert asked == []


def test_the_hub_is_not_asked(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with offline(), pytest.raises(OfflineModeIsEnabled):
        huggingface_hub.HfApi(endpoint="http://127.0.0.1:9").model_info("owner/name")
    assert constants.HF_HUB_OFFLINE is False
