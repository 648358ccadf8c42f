"""Files that llama.cpp runs: the arithmetic of lm-eval's class, on a stand-in for the runtime whose logits are known.

The stand-in takes its logits from transformers, so each answer must be that of lm-eval's own class of transformers.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook.errors import StepError
from herdbook.inference.threads import one_thread_a_matrix
from herdbook.steps.evaluate import llama_runtime
from herdbook.steps.evaluate.llama import LlamaLM
from support import tiny


class Runtime:
    """``llama_runtime.Runtime``, with logits of transformers."""

    def __init__(self, model, tokenizer, room):
        self._model, self._tokenizer, self._room, self._read = model, tokenizer, room, []
        self.first, self.last = tokenizer.bos_token_id, tokenizer.eos_token_id

    def close(self):
        self._room = 0

    def tokens(self, text, *, begin):
        return self._tokenizer.encode(text, add_special_tokens=begin)

    def text(self, tokens, *, special=False):
        return self._tokenizer.decode(tokens, skip_special_tokens=not special)

    def logits(self, tokens, *, new=False):
        self._read = [*(self._read if new else []), *tokens]
        assert len(self._read) <= self._room
        with torch.no_grad():
            return self._model(torch.tensor([self._read])).logits[0].numpy()[-len(tokens) :]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tiny.write_model(tmp_path_factory.mktemp("model") / "base", hidden=64, vocab=128, seed=2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return {"pretrained": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, own, 0, ("asked", number, 1)) for number, own in enumerate(arguments)]


def text(seed, words):
    return " ".join(f"w{(seed * 7 + 3 * n * n) % 90}" for n in range(words))


def both(loaded):
    from lm_eval.models.huggingface import HFLM

    opened = []

    def open_(tokens):
        opened.append(tokens)
        return Runtime(loaded["pretrained"], loaded["tokenizer"], tokens)

    return LlamaLM(open_, loaded["pretrained"].config.max_position_embeddings), HFLM(**loaded), opened


def test_log_likelihoods_are_those_of_the_same_logits_in_transformers(loaded):
    ours, theirs, opened = both(loaded)
    asked = requests(
        "loglikelihood",
        *((text(n, 2 + 9 * n), f" w{n} w3 w{2 * n}") for n in range(6)),
        *((text(5, 8), f" w{n}") for n in range(4)),  # one question, and answers of one token
        ("", "w4 w5"),
        (text(9, 300), " w1 w2"),  # longer than the model reads at once
    )
    with one_thread_a_matrix():
        expected = theirs.loglikelihood(asked)
        found = ours.loglikelihood(asked)
    assert [one[1] for one in found] == [one[1] for one in expected]
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], rel=1e-5)
    assert opened == [0, 128]  # the longest comes first, so memory is taken once


def test_texts_in_windows_are_those_of_transformers(loaded):
    ours, theirs, _ = both(loaded)
    asked = requests("loglikelihood_rolling", *((text(n, words),) for n, words in enumerate((3, 90, 260))))
    with one_thread_a_matrix():
        expected = theirs.loglikelihood_rolling(asked)
        assert ours.loglikelihood_rolling(asked) == pytest.approx(expected, rel=1e-5)


def test_generated_texts_are_those_of_transformers(loaded):
    ours, theirs, opened = both(loaded)
    asked = requests(
        "generate_until",
        *((text(n, 3 + 11 * n), {"until": ["w9"], "max_gen_toks": 12, "do_sample": False}) for n in range(4)),
        (text(3, 60), {"until": [], "max_gen_toks": 60}),
    )
    with one_thread_a_matrix():
        expected = theirs.generate_until(asked)
        assert ours.generate_until(asked) == expected
    assert len(set(expected)) > 2
    assert opened[0] == 0
    assert opened[-1] <= 128
    drawn = requests("generate_until", ("w1", {"do_sample": True, "temperature": 0.7}))
    with pytest.raises(StepError, match="^asked: texts that are drawn at random"):
        ours.generate_until(drawn)


@pytest.mark.parametrize("installed", [None, "0.1.0"])
def test_another_version_of_the_runtime_is_refused(tmp_path, monkeypatch, installed):
    def version(name):
        if installed is None:
            raise llama_runtime.importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(llama_runtime.importlib.metadata, "version", version)
    with pytest.raises(
        StepError, match=f"llama-cpp-python {llama_runtime.VERSION} is needed, and {installed or 'none'}"
    ):
        llama_runtime.opener(tmp_path / "m.gguf", 1)


def test_other_tokens_than_the_tokenizer_s_are_named(loaded):
    """The planted fault: a vocabulary in which one token has the place of another, as if its scores were lost."""

    class Wrong(Runtime):
        def tokens(self, text, *, begin):
            right = super().tokens(text, begin=begin)
            return [7, *right[1:]] if text.startswith("In 1984") and not begin else right

    def open_with(kind):
        return lambda tokens: kind(loaded["pretrained"], loaded["tokenizer"], tokens)

    LlamaLM(open_with(Runtime), 128, tokenizer=loaded["tokenizer"])
    with pytest.raises(StepError, match=r"evaluate x: llama.cpp cuts 'In 1984.* from number 1 on, \[7, "):
        LlamaLM(open_with(Wrong), 128, title="evaluate x", tokenizer=loaded["tokenizer"])
