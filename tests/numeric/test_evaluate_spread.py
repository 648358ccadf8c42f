"""Measuring with several threads: the same bits, and every answer in its place."""

import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook.inference.threads import one_thread_a_matrix
from support import tiny


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model that is wide enough for its sums to be shared among threads, and its tokenizer."""
    folder = tiny.write_model(
        tmp_path_factory.mktemp("model") / "base", hidden=256, intermediate=512, vocab=512
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return {"pretrained": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def text(seed, words):
    return " ".join(f"w{(seed * 37 + 11 * n * n) % 500}" for n in range(words))


def documents():
    """Seven documents of two tasks, of different lengths; one is longer than the model reads at once."""
    from lm_eval.api.instance import Instance

    lengths = (40, 3, 90, 17, 300, 64, 5)
    return [
        Instance("loglikelihood_rolling", {}, (text(n, words),), 0, (f"task{n // 4}", n % 4, 1))
        for n, words in enumerate(lengths)
    ]


def questions():
    """Five documents with three answers each."""
    from lm_eval.api.instance import Instance

    return [
        Instance(
            "loglikelihood", {}, (text(n, 6 + n), " " + text(100 + 3 * n + a, 1 + a)), a, ("asked", n, 1)
        )
        for n in range(5)
        for a in range(3)
    ]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_one_thread_answers_several_answer(loaded, threads):
    from lm_eval.models.huggingface import HFLM

    from herdbook.steps.evaluate.parallel import ParallelHFLM

    with one_thread_a_matrix():
        reference = HFLM(batch_size=1, **loaded)
        rolled = reference.loglikelihood_rolling(documents())
        chosen = reference.loglikelihood(questions())
        model = ParallelHFLM(threads, 1, **loaded)
        assert model.loglikelihood_rolling(documents()) == rolled
        assert model.loglikelihood(questions()) == chosen
    assert len(set(rolled)) == 7


def test_documents_that_pass_together_are_the_same_for_any_number_of_threads(loaded):
    from herdbook.steps.evaluate.parallel import ParallelHFLM

    with one_thread_a_matrix():
        answers = [
            ParallelHFLM(threads, 3, **loaded).loglikelihood_rolling(documents()) for threads in (1, 4)
        ]
    assert answers[0] == answers[1]


def test_as_many_documents_are_read_at_once_as_there_are_threads(loaded, monkeypatch):
    """Three calls of the model wait for each other: fewer threads than that would never meet."""
    from lm_eval.models.huggingface import HFLM

    from herdbook.steps.evaluate.parallel import ParallelHFLM

    meeting = threading.Barrier(3, timeout=600)
    own = HFLM._model_call

    def met(self, *arguments, **options):
        meeting.wait()
        return own(self, *arguments, **options)

    monkeypatch.setattr(HFLM, "_model_call", met)
    with one_thread_a_matrix():
        assert len(ParallelHFLM(3, 1, **loaded).loglikelihood_rolling(documents()[:3])) == 3
