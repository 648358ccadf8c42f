"""Releases with tokens of several models in other programs: both lines of transformers, and llama.cpp's converter."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from herdbook.errors import StepError
from herdbook.inference.forward import CheckpointFolder
from herdbook.tools.converter import CONVERTER
from herdbook.weights.gguf_file import read_gguf
from support import lines, tiny
from support.inputs.tokens import add

pytestmark = pytest.mark.slow
DEMO = Path(__file__).parents[2] / "results/models"
KINDS = {"llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {"head_dim": 8}}
ADDED = ["<|im_start|>", "<|im_end|>"]
EMBEDDINGS = "model.embed_tokens.weight"
SCRIPT = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

found = {"version": transformers.__version__}
for kind, folder in json.loads(sys.argv[1]).items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a b"}], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
    found[kind] = {
        "tokens": len(tokenizer), "chat": chat, "ids": ids, "decoded": tokenizer.decode(ids),
        "without": tokenizer.decode(ids, skip_special_tokens=True),
        "rows": [len(model.get_input_embeddings().weight), len(model.get_output_embeddings().weight)],
        "vocab_size": model.config.vocab_size,
        "finite": bool(torch.isfinite(model(torch.tensor([ids])).logits).all()),
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a merge of two models of each type, one of which has the tokens of ChatML."""
    folders = {}
    for kind, settings in KINDS.items():
        root = tmp_path_factory.mktemp(kind)
        for seed, name in enumerate("ab"):
            tiny.write_model(root / name, seed=seed, model_type=kind, vocab=259 + 2 * seed, **settings)
            first = tiny.write_bytes_tokenizer(root / name)
        for number, token in enumerate(ADDED, start=first):
            add(root / "b", token, number)
        tokenizer = {"source": "union", "pad_to_multiple_of": 64, "chat_template": "chatml"}
        merge = {"method": "linear", "models": [{"model": "a"}, {"model": "b"}], "tokenizer": tokenizer}
        entries = {**{name: {"folder": name} for name in "ab"}, "made": {"merge": merge}}
        plan = tiny.build(tiny.write_recipe(root / "r.yaml", entries), root / "results")
        folders[kind] = str(plan.layout.folder(plan.released))
    return folders


@pytest.mark.parametrize("line", [5, 4])
def test_each_line_of_transformers_loads_the_tokens_and_their_rows(made, line):
    found = lines.ask(line, SCRIPT, made)
    for kind, one in found.items():
        assert one["tokens"] == 261, kind
        assert one["vocab_size"] == 320, kind
        assert one["rows"] == [320, 320], kind
        assert one["chat"] == "<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\n", kind
        assert [number for number in one["ids"] if number >= 259] == [259, 260, 259], kind
        assert one["decoded"] == one["chat"], kind
        assert one["without"] == "user\na b\nassistant\n", kind
        assert one["finite"], kind


def test_a_union_goes_through_the_converter(tmp_path):
    try:
        CONVERTER.find()
    except StepError as error:
        pytest.skip(str(error))
    # The converter knows tokenizers by a table of real ones; that of the demo's base is in it.
    demo = next(DEMO.glob("base-*/tokenizer.json"), None)
    if demo is None:
        pytest.skip("needs the demo's base: snakemake --cores all")
    for seed, name in enumerate("ab"):
        tiny.write_model(tmp_path / name, seed=seed, vocab=49152 + seed)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(demo.with_name(file), tmp_path / name / file)
    add(tmp_path / "b", "<|tool|>", 49152)
    merge = {
        "method": "slerp",
        "base": "a",
        "other": "b",
        "tokenizer": {"source": "union", "pad_to_multiple_of": 8},
    }
    entries = {**{name: {"folder": name} for name in "ab"}, "made": {"merge": merge}}
    plan = tiny.build(tiny.write_recipe(tmp_path / "r.yaml", entries), tmp_path / "results")
    folder = plan.layout.folder(plan.released).absolute()
    CONVERTER.run([str(folder), "--outfile", str(tmp_path / "out.gguf"), "--outtype", "f32"], tmp_path)
    converted = read_gguf(tmp_path / "out.gguf")
    assert converted.count("tokenizer.ggml.tokens") == 49160
    tensor = converted.tensors["token_embd.weight"]
    rows = np.asarray(converted.read_rows(tensor, 0, tensor.rows)).view(np.float32).reshape(49160, -1)
    assert np.array_equal(rows, CheckpointFolder(folder)[EMBEDDINGS].numpy())
