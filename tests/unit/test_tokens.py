"""Tokens and their ids: what is read from a tokenizer's files is what the libraries themselves read; what differs is told."""

import json

import gguf
import pytest
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook import limits
from herdbook import lock as locks
from herdbook import plan as plans
from herdbook.errors import RecipeError, SourceError
from herdbook.lock.tokens import describe, difference_of
from herdbook.sources.vocabulary import read_vocabulary
from herdbook.weights.gguf_source import make_files
from support import tiny
from support.inputs.tokens import MEAN, MIXTURE, SLERP, add, pair, rename, swap

UNKNOWN = "<unk>"
TEXT = ["the herd grazes", "the calf follows the cow", "une vache, zwei Kühe ▁ 🐄"]


def read(folder):
    files = {path.name: path for path in folder.iterdir()}
    return read_vocabulary(files, lambda name: files[name].read_bytes(), "here")


def trained(kind):
    """Return a tokenizer of one of the library's kinds, trained on a few words, with tokens added later."""
    model, trainer = {
        "BPE": (BPE(), trainers.BpeTrainer(vocab_size=80)),
        "Unigram": (Unigram(), trainers.UnigramTrainer(vocab_size=60, unk_token=UNKNOWN)),
        "WordPiece": (WordPiece(unk_token=UNKNOWN), trainers.WordPieceTrainer(vocab_size=80)),
        "WordLevel": (WordLevel(unk_token=UNKNOWN), trainers.WordLevelTrainer()),
    }[kind]
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer.special_tokens = [UNKNOWN, "<s>"]
    made.train_from_iterator(TEXT, trainer)
    made.add_special_tokens(["<|im_start|>", "<s>"])
    made.add_tokens(["cowbell"])
    return made


@pytest.mark.parametrize("kind", ["BPE", "Unigram", "WordPiece", "WordLevel"])
def test_tokenizer_json_is_read_as_the_library_reads_it(tmp_path, kind):
    made = trained(kind)
    made.save(str(tmp_path / "tokenizer.json"))
    assert read(tmp_path) == made.get_vocab(with_added_tokens=True)
    pinned = describe(read(tmp_path))
    assert pinned.count == made.get_vocab_size()
    assert (pinned.last, pinned.highest) == ("cowbell", made.token_to_id("cowbell"))


def test_tokenizer_model_is_read_as_protobuf_reads_it(tmp_path):
    model = ModelProto()  # the class that transformers uses; a process can load one alone
    for number, piece in enumerate(["<unk>", "<s>", "</s>", "▁the", "▁", "ü", "🐄" * 50]):
        model.pieces.add(piece=piece, score=-float(number), type=1 + number % 6)
    model.trainer_spec.model_prefix = "x" * 300
    model.normalizer_spec.precompiled_charsmap = bytes(range(256))
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    expected = {
        piece.piece: number
        for number, piece in enumerate(ModelProto.FromString(model.SerializeToString()).pieces)
    }
    assert read(tmp_path) == expected
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 7}')
    assert read(tmp_path) == expected | {"<pad>": 7}
    decoder = {"8": {"content": "<|im_start|>"}, "1": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    assert read(tmp_path) == expected | {"<|im_start|>": 8}


def test_vocab_json_is_read(tmp_path):
    made = trained("BPE")
    made.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text('{"cowbell": 90}')
    assert read(tmp_path) == made.get_vocab(with_added_tokens=False) | {"cowbell": 90}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"pad_token": "[PAD]", "sep_token": None}, {}),
        ({"pad_token": {"content": "[PAD]", "__type": "AddedToken"}, "eos_token": "<end>"}, {}),
        ({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, {"pad_token": "w1"}),
        ({"pad_token": "w2"}, {"pad_token": "[PAD]"}),
        ({"extra_special_tokens": {"image_token": "<img>"}}, {}),
        ({}, {"pad_token": "[PAD]", "cls_token": {"content": "<cls>"}}),
        ({"added_tokens_decoder": {"1": {"content": "<s>", "special": True}}}, {"pad_token": "[PAD]"}),
    ],
)
def test_special_tokens_that_are_only_named_are_added_as_by_transformers(tmp_path, settings, named):
    folder = tiny.write_model(tmp_path / "m")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | settings))
    if named:
        (folder / "special_tokens_map.json").write_text(json.dumps(named))
    assert read(folder) == AutoTokenizer.from_pretrained(folder).get_vocab()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_tokens_of_a_gguf_are_those_of_its_arrays(tmp_path, kind):
    """What is pinned is the tokenizer that transformers makes of it, which is that of the release.

    transformers adds ``<|endoftext|>`` where the arrays lack it, beyond the embeddings; then the model is refused.
    """
    if kind == "gpt2":
        tokens = [
            "<unk>",
            "<s>",
            "</s>",
            *sorted(pre_tokenizers.ByteLevel.alphabet()),
            "th",
            "the",
            "<|endoftext|>",
        ]
    else:
        tokens = [
            "<unk>",
            "<s>",
            "</s>",
            *(f"<0x{byte:02X}>" for byte in range(256)),
            "▁",
            "t",
            "h",
            "e",
            "th",
            "the",
        ]
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<|endoftext|>": 3}
    writer.add_token_types([kinds.get(token, 6 if token.startswith("<0x") else 1) for token in tokens])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made = make_files(tmp_path / "m.gguf", "bfloat16")
    field = gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.tokens"]
    array = [bytes(field.parts[place]).decode() for place in field.data]
    assert read_vocabulary(made, made.__getitem__, "here") == {
        token: number for number, token in enumerate(array)
    }


def test_a_token_that_a_tokenizer_has_twice_is_named(tmp_path):
    model = ModelProto()
    for piece in ("<unk>", "cow", "bull", "cow"):
        model.pieces.add(piece=piece, score=0.0)
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"here: tokenizer\.model .*it has the token 'cow' twice"):
        read(tmp_path)
    scored = [["<unk>", 0.0], ["cow", -1.0], ["bull", -2.0], ["cow", -3.0]]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": scored}}))
    with pytest.raises(SourceError, match=r"here: tokenizer\.json .*it has the token 'cow' twice"):
        read(tmp_path)


def test_a_tokenizer_model_does_not_take_time_or_memory_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TOKENS", 2)
    model = ModelProto()
    for piece in ("<unk>", "cow", "bull"):
        model.pieces.add(piece=piece, score=0.0)
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match=r"here: refused: tokenizer\.model has more than 2 tokens"):
        read(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\xff" * 4_000_000)  # one integer, of 28 million bits
    with pytest.raises(SourceError, match=r"here: tokenizer\.model .*an integer of more than 64 bits"):
        read(tmp_path)


def test_what_is_no_vocabulary(tmp_path):
    assert read(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")  # in tiktoken's format
    assert read(tmp_path) is None
    for content in (b"", b"\x0a\xff", b"\x0f", b"<html>"):
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(SourceError, match=r"here: tokenizer\.model is not of the form"):
            read(tmp_path)
    for content in ("{", "[]", '{"model": {"vocab": {"a": -1}}}', '{"model": {"vocab": [1]}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(SourceError, match=r"here: tokenizer\.json is not of the form"):
            read(tmp_path)


def test_a_difference_is_that_of_a_naive_comparison():
    one = {"a": 0, "b": 1, "c": 2, "d": 3, "x": 4, "y": 6}
    other = {"b": 0, "a": 1, "c": 2, "d": 5, "z": 4}
    found = difference_of(one, other, ("1", "2"))
    assert found.moved == sum(one[t] != other[t] for t in one if t in other) == 3
    assert found.moved_token == ("a", 0, 1)
    assert (found.reused, found.reused_id) == (1, (4, "x", "z"))
    assert (found.alone, found.alone_tokens) == ((2, 1), ("x", "z"))
    assert found.seen_from("1") is found
    assert found.seen_from("2") == difference_of(other, one, ("2", "1"))


def planned(folder, entry, change):
    recipe = pair(entry, change)(folder)
    tiny.lock(recipe)
    return plans.load(recipe)


def test_equal_tokens_leave_nothing_to_tell(tmp_path):
    plan = planned(tmp_path, MEAN, lambda folder: (folder / "tokenizer_config.json").unlink())
    assert plan.warnings == ()
    assert plan.lock.token_differences == ()
    tokens = plan.lock.sources["a"].tokens
    library = Tokenizer.from_file(str(tmp_path / "a/tokenizer.json"))
    assert (tokens.count, tokens.highest) == (library.get_vocab_size(), 63)
    assert library.token_to_id(tokens.last) == 63
    assert tokens == plan.lock.sources["b"].tokens


def test_padded_embeddings_are_fine_and_a_token_beyond_them_is_not(tmp_path):
    """As transformers has it: it fails at the first token without a row."""
    model = AutoModelForCausalLM.from_pretrained(tiny.write_model(tmp_path / "a"))
    model(torch.tensor([[63]]))
    with pytest.raises(IndexError):
        model(torch.tensor([[64]]))
    for number in (63, 64):
        tiny.write_model(tmp_path / "a")
        path = tmp_path / "a/tokenizer.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["model"]["vocab"] = {token: n for token, n in tokenizer["model"]["vocab"].items() if n < 60}
        tokenizer["model"]["merges"] = []
        path.write_text(json.dumps(tokenizer))
        add(tmp_path / "a", "<pad>", number)
        recipe = tiny.write_recipe(tmp_path / "r.yaml", {"a": {"folder": "a"}})
        tiny.lock(recipe)
        if number < 64:
            assert plans.load(recipe).warnings == ()
        else:
            with pytest.raises(
                RecipeError, match="has the token '<pad>' with id 64, and its embeddings have 64 rows"
            ):
                plans.load(recipe)


def test_what_is_wrong_with_tokens_hides_nothing_of_the_tasks(tmp_path):
    tiny.write_model(tmp_path / "a")
    add(tmp_path / "a", "<pad>", 64)
    tiny.write_task(tmp_path / "task.yaml")
    task = {"task": "task.yaml", "gen_kwargs": {"max_gen_toks": 5}, "fewshot_as_multiturn": True}
    recipe = tiny.write_recipe(
        tmp_path / "r.yaml", {"a": {"folder": "a"}}, evaluate={"tasks": [task], "models": ["a"]}
    )
    tiny.lock(recipe)
    with pytest.raises(RecipeError) as caught:
        plans.load(recipe)
    problems = caught.value.problems
    assert len(problems) == 3, problems
    for words in ("<pad>", "gen_kwargs: the model writes no text", "fewshot_as_multiturn: turns need"):
        assert sum(words in problem for problem in problems) == 1


def test_whose_tokens_count_can_be_said(tmp_path):
    merge = {"merge": {**SLERP["merge"], "tokenizer": "a"}}
    plan = planned(tmp_path, merge, lambda folder: rename(folder, {"w48": "<|im_start|>"}))
    (warning,) = plan.warnings
    assert "63 for '<|im_start|>', not for 'w48'" in warning
    assert warning.endswith("; the merge has the tokens of 'a'")


@pytest.mark.parametrize(("entry", "key"), [(MEAN, "merge"), (MIXTURE, "moe")], ids=["a mean", "a mixture"])
def test_a_token_in_a_row_that_was_padding_is_told(tmp_path, entry, key):
    def shorten(folder):
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        del tokenizer["model"]["vocab"]["w48"]
        path.write_text(json.dumps(tokenizer))

    plan = planned(tmp_path, entry, shorten)
    assert plan.warnings == (
        f"models.made.{key}: the token 'w48' is in 'a' and not in 'b'; the result has the tokens of 'a'",
    )


def test_a_mixture_as_of_mergekit_is_only_warned(tmp_path):
    plan = planned(tmp_path, {"moe": {**MIXTURE["moe"], "semantics": "mergekit-0.1.5"}}, swap)
    assert plan.warnings == (
        "models.made.moe: 2 tokens have other ids in 'b' than in 'a' ('w1' is 17, not 16) (mergekit does not check this)",
    )


def test_the_tokenizer_of_an_expert_is_not_needed(tmp_path):
    plan = planned(tmp_path, MIXTURE, lambda folder: add(folder, "<pad>", 64))
    assert [line for line in plan.warnings if "<pad>" in line]
    with pytest.raises(RecipeError, match="models.b: its tokenizer has the token '<pad>' with id 64"):
        planned(tmp_path / "2", {"moe": {**MIXTURE["moe"], "tokenizer": "b"}}, lambda f: add(f, "<pad>", 64))


def test_a_lock_without_tokens_is_read_and_its_keys_are_the_same(tmp_path):
    plan = planned(tmp_path, MEAN, lambda _: None)
    path = locks.path_for(plan.recipe_path)
    old = json.loads(path.read_text())
    for source in old["sources"].values():
        del source["tokens"]
    path.write_text(json.dumps(old))
    again = plans.load(plan.recipe_path)
    assert {name: node.key for name, node in again.nodes.items()} == {
        name: node.key for name, node in plan.nodes.items()
    }
    (warning,) = again.warnings
    assert warning.startswith("models: a, b: their tokens are not in the lock")


def test_tokens_that_were_never_compared_need_a_new_lock(tmp_path):
    plan = planned(tmp_path, MIXTURE, lambda folder: rename(folder, {"w48": "cow"}))
    path = locks.path_for(plan.recipe_path)
    lock = json.loads(path.read_text())
    del lock["token_differences"]
    path.write_text(json.dumps(lock))
    with pytest.raises(
        RecipeError, match=r"models\.made: 'b' has other tokens than 'a' .* Run `herdbook lock .*recipe.yaml`"
    ):
        plans.load(plan.recipe_path)
