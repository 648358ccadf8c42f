"""The JSON files of a model's author: what is wrong in them is told in sentences of ours, all at once, each with file and key."""

import json
import re

import pytest

from herdbook.cli.main import main
from support import tiny

# Of pydantic's and Python's readers: none of it may reach a person.
THEIRS = re.compile(
    r"[Ii]nput should|valid (string|list|dictionary|integer|number|boolean)|Expecting|\[type=|codec"
)
# By file: what its author wrote, and the sentences, in order.
WRONG = {
    "config.json": (
        {
            "hidden_size": "32",
            "vocab_size": None,
            "eos_token_id": [2, "</s>"],
            "bos_token_id": "<s>",
            "hidden_act": 5,
            "max_position_embeddings": 0,
            "num_attention_heads": 2**41,
            "torch_dtype": "bfloat17",
            "tie_word_embeddings": "no",
            "architectures": {"a": 1},
            "rms_norm_eps": -1.0,
            "return_dict": False,
        },
        [
            "architectures: expected a list (found a mapping with a)",
            "bos_token_id: expected a whole number or a list (found '<s>')",
            "eos_token_id.1: expected a whole number (found '</s>')",
            "hidden_act: expected text (found 5)",
            "hidden_size: expected a whole number (found '32')",
            "max_position_embeddings: must be greater than 0 (found 0)",
            "num_attention_heads: must be less than 1,099,511,627,776 (found 2199023255552)",
            "return_dict: false is not true",
            "rms_norm_eps: must be at least 0 (found -1.0)",
            "tie_word_embeddings: expected true or false (found 'no')",
            "torch_dtype: 'bfloat17' is not one of bfloat16, float16, float32 or float64; did you mean 'bfloat16'?",
        ],
    ),
    "generation_config.json": (
        {"temperature": "hot", "do_sample": 1, "eos_token_id": {}},
        [
            "do_sample: expected true or false (found 1)",
            "eos_token_id: expected a whole number or a list (found an empty mapping)",
            "temperature: expected a number (found 'hot')",
        ],
    ),
    "tokenizer_config.json": (
        {
            "bos_token": 1,
            "eos_token": {"content": "</s>", "lstrip": "no"},
            "pad_token": {"lstrip": True},
            "added_tokens_decoder": {"first": "<s>"},
            "chat_template": [{"name": "default"}],
        },
        [
            "added_tokens_decoder.first: 'first' is not a whole number of at most ten digits, as text",
            "bos_token: expected text or a mapping of keys to values (found 1)",
            "chat_template.0.template: missing",
            "eos_token.lstrip: expected true or false (found 'no')",
            "pad_token.content: missing",
        ],
    ),
}


def lock(folder, capsys):
    """Lock a recipe of the model in a folder; return what is said, but for what is looked up."""
    recipe = tiny.write_recipe(folder.parent / "r.yaml", {"base": {"folder": folder.name}})
    assert main(["lock", str(recipe)]) == 4
    at = recipe.read_text(encoding="utf-8").split("\n").index("  base:") + 1
    said = [line.strip() for line in capsys.readouterr().err.splitlines() if line != f"base: {folder.name}"]
    said[0] = said[0].removeprefix("herdbook lock: ")
    assert all(line.startswith(f"{recipe}: line {at}: models.base: ") for line in said)
    return [line.partition(": models.base: ")[2] for line in said]


@pytest.mark.parametrize("file", WRONG)
def test_all_values_of_a_wrong_type_are_told_in_sentences_of_ours(file, tmp_path, capsys):
    folder = tiny.write_model(tmp_path / "base")
    changes, expected = WRONG[file]
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    said = lock(folder, capsys)
    its = "its " if file == "tokenizer_config.json" else ""
    assert said == [f"folder: base: {its}{file}: {sentence}" for sentence in expected]
    assert not any(THEIRS.search(line) for line in said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1,\n}', "it is not JSON: line 2, column 1: expected a key in double quotes"),
        (b"", "it is not JSON: line 1, column 1: expected a value"),
        (b'{"a": "\xff"}', "it is not UTF-8 (byte 8)"),
        (b"[]", "it is not a JSON object"),
    ],
)
@pytest.mark.parametrize("file", WRONG)
def test_a_file_that_is_not_json_is_named_with_the_place(file, text, message, tmp_path, capsys):
    folder = tiny.write_model(tmp_path / "base")
    (folder / file).write_bytes(text)
    assert lock(folder, capsys) == [f"folder: base: its {file}: {message}"]


def test_what_is_wrong_in_a_file_is_told_beside_what_is_wrong_in_the_recipe(tmp_path, capsys):
    """A line for each, at the model that names the folder."""
    folder = tiny.write_model(tmp_path / "base")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content |= {"hidden_act": 5, "hidden_size": "32"}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    models = {"base": {"folder": folder.name}}
    recipe = tiny.write_recipe(tmp_path / "r.yaml", models, card={"sections": ["nothing"]})
    assert main(["lock", str(recipe)]) == 2
    said = capsys.readouterr().err.splitlines()[1:]
    assert len(said) == 3
    at = recipe.read_text(encoding="utf-8").split("\n").index("  base:") + 1
    for line, key in zip(said, ("hidden_act", "hidden_size"), strict=False):
        assert f"r.yaml: line {at}: models.base: folder: base: config.json: {key}: expected " in line
    assert "card.sections.0: no section is named 'nothing'" in said[2]
