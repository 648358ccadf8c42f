"""Ids of prompts and texts: those of the tokenizer; where it would leave out a word, that is told."""

import json

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from herdbook import limits
from herdbook import plan as plans
from herdbook.errors import CheckpointError, StepError
from herdbook.inference import chat
from herdbook.inference.forward import EMBEDDINGS, CheckpointFolder
from herdbook.inference.prompts import tokenize
from herdbook.inference.text import windows
from herdbook.inference.tokenizer import ids_of, load_tokenizer
from herdbook.steps.moe.mergekit_gates import mergekit_rows
from support import tiny

# What transformers 5 makes of a Qwen2's tokenizer of whole words: it reads their characters, and has no token for them.
LOST = "which transformers loads as Qwen2Tokenizer, has no token for 'w1' and would leave it out"


def of_words(folder, kind):
    """Write a model with a tokenizer of whole words."""
    tiny.write_model(folder, model_type=kind)
    words = {token: number for number, token in enumerate([*tiny.SPECIAL, "w1", "w2", "w3"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=tiny.SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def of_bytes(folder):
    """Write a Qwen2 with a tokenizer of bytes, as Qwen2 has."""
    tiny.write_model(folder, model_type="qwen2", vocab=300)
    tokens = [*tiny.SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_ids_are_those_of_the_library(tmp_path):
    folder = of_words(tmp_path / "m", "llama")
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = ["w1 w2", "w3", "w9 unknown w1"]
    expected = [library.encode(text).ids for text in texts]
    assert [ids_of(load_tokenizer(folder), text, "a text") for text in texts] == expected
    assert tokenize(folder, texts) == [[1, *ids] for ids in expected]


def test_a_tokenizer_is_loaded_once_until_its_files_change(tmp_path):
    folder = of_words(tmp_path / "m", "llama")
    first = load_tokenizer(folder)
    assert load_tokenizer(folder) is first
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"w3"', '"w4"'), encoding="utf-8")
    assert ids_of(load_tokenizer(folder), "w4", "a text") == ids_of(first, "w3", "a text")


@pytest.mark.parametrize(
    "text",
    [
        "the herd",
        "cafe\u0301 naïve ﬁsh",
        "\u1112\u1161\u11ab\u1100\u116e\u11a8 日本語",
        "قِطَّة हिन्दी",
        "… 🐄 \n\t—",
        "",
    ],
)
def test_texts_that_are_read_whole(tmp_path, text):
    """Also where characters are joined before they are cut into tokens, as in decomposed Korean."""
    assert bool(ids_of(load_tokenizer(of_bytes(tmp_path / "m")), text, "a text")) == bool(text)


def test_prompts_that_would_be_lost(tmp_path):
    folder = of_words(tmp_path / "m", "qwen2")
    assert load_tokenizer(folder)("w1 w2")["input_ids"] == []  # in silence
    with pytest.raises(StepError, match="prompt 2: the tokenizer of .*" + LOST):
        tokenize(folder, ["", "w1 w2"])
    with pytest.raises(StepError, match=LOST):
        mergekit_rows("hidden", folder, [(["w1"], [])])


def test_a_word_among_others_that_would_be_lost(tmp_path):
    folder = of_bytes(tmp_path / "m")
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["model"]["vocab"]["w"], content["model"]["vocab"]["1"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(StepError, match="has no token for 'w1'"):
        ids_of(load_tokenizer(folder), "the herd w1", "a text")


def test_calibration_text_that_would_be_lost(tmp_path):
    of_words(tmp_path / "m", "qwen2")
    (tmp_path / "t.jsonl").write_text('{"text": "w1 w2 w3"}\n' * 30)
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml",
        {"m": {"folder": "m"}},
        calibration={"c": {"data": ["t.jsonl"], "split": "train", "windows": 30, "tokens": 12}},
    )
    tiny.lock(recipe)
    with pytest.raises(StepError, match=r"calibration\.c: t\.jsonl: the tokenizer of .*" + LOST):
        windows(plans.load(recipe), "c", tmp_path / "m", None, 1)


def test_a_row_that_embeddings_lack_is_not_read_from_the_next_tensor(tmp_path):
    weights = CheckpointFolder(tiny.write_model(tmp_path / "m"))
    assert torch.equal(weights.rows(EMBEDDINGS, [63])[0], weights[EMBEDDINGS][63])
    with pytest.raises(CheckpointError, match="has 64 rows, and row 64 is requested"):
        weights.rows(EMBEDDINGS, [64])


@pytest.mark.parametrize("chat_template", [False, True])
def test_a_prompt_of_which_the_tokenizer_would_make_gigabytes_is_refused(tmp_path, chat_template):
    tiny.write_model(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("w1", "w1" * 100)] * 4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        StepError, match=r"prompt 1: refused: the tokenizer of .* has a normalizer that can make"
    ):
        tokenize(tmp_path, ["w1 " * 100], chat_template=chat_template)


@pytest.mark.parametrize(
    ("pattern", "seconds"),
    [
        (r"\w+|\s+", 10),  # which ends
        ("(a|a|ab?)+$x", 10),  # after too many steps for the library, which ends the process
        ("((a|a){14}b|a)", 0),  # at each of many places
    ],
)
def test_a_tokenizer_s_regular_expressions_take_bounded_time(tmp_path, monkeypatch, pattern, seconds):
    monkeypatch.setattr(limits, "TOKENIZER_SECONDS", seconds)
    tiny.write_model(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    before = tokenize(tmp_path, ["w1 w2"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), tokenizer.pre_tokenizer]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    if pattern.startswith("("):
        with pytest.raises(StepError, match="prompts: refused: the regular expressions of the tokenizer of"):
            tokenize(tmp_path, ["w1 " + "a" * 20000])
    else:
        assert tokenize(tmp_path, ["w1 w2"]) == before


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "more than 0 seconds",
        ),
        ("{% for a in range(99999) %}{{ 'a' * 100000 }}{% endfor %}", "too much memory"),
    ],
)
def test_a_chat_template_takes_bounded_time_and_memory(tmp_path, monkeypatch, template, problem):
    if "seconds" in problem:  # the other one ends earlier, and a busy machine may take longer
        monkeypatch.setattr(limits, "TEMPLATE_SECONDS", 0)
    tiny.write_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(StepError, match=problem) as refused:
        tokenize(tmp_path, ["w1"], chat_template=True)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ 'a' * 9999999 }}b{{ bos_token }}", "more than 10,000,000 characters"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ raise_exception('no ' * 999) }}", "no no"),
        ("{% if", "unexpected"),
    ],
)
def test_what_a_chat_template_cannot_do_is_named(tmp_path, template, problem):
    tiny.write_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    found = chat._format(load_tokenizer(tmp_path), ["w1"])
    assert problem in found["error"]
    assert len(found["error"]) < 600
