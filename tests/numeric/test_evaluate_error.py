"""The standard errors of a measurement are those of lm-eval itself."""

import json

import pytest
import torch

from herdbook.steps.evaluate.measure import measure
from support import tiny


def test_accuracy_has_the_standard_error_of_lm_eval(tmp_path):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny.write_model(tmp_path / "base", seed=3)
    with (tmp_path / "data.jsonl").open("w", encoding="utf-8") as data:
        for number in range(7):
            document = {"question": f"w{number} w9", "choices": ["w1", "w2 w3"], "gold": number % 2}
            data.write(json.dumps(document) + "\n")
    task = {
        "task": "words",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
    }
    loaded = {
        "pretrained": AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }
    measured = measure(loaded["pretrained"], loaded["tokenizer"], [task], None, 1)
    found = measured.tasks["words"]
    for metric in ("acc", "acc_norm"):
        by_document = [sample.values[metric] for sample in measured.samples]
        assert sum(by_document) / 7 == pytest.approx(found["metrics"][metric]["value"], rel=1e-5)
    assert [sample.document for sample in measured.samples] == list(range(7))
    assert len({sample.sha256 for sample in measured.samples}) == 7
    own = lm_eval.simple_evaluate(
        model=HFLM(batch_size=1, **loaded),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=1,  # means need none
    )["results"]["words"]
    assert found["documents"] == 7
    assert 0 < found["metrics"]["acc"]["value"] < 1
    assert {found["metrics"][metric]["aggregation"] for metric in ("acc", "acc_norm")} == {"mean"}
    for metric in ("acc", "acc_norm"):
        assert found["metrics"][metric]["value"] == pytest.approx(own[f"{metric},none"], rel=1e-5)
        assert found["metrics"][metric]["stderr"] == pytest.approx(own[f"{metric}_stderr,none"], rel=1e-5)
