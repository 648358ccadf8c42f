"""Measuring with several threads: the same bits, and every answer in its place."""

import copy
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from herdbook.errors import StepError
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


def letters():
    """Questions with answers of one token, whose logits lm-eval takes from one pass; two of them are the same question."""
    from lm_eval.api.instance import Instance

    return [
        Instance("loglikelihood", {}, (text(n % 4, 9), f" w{a}"), a, ("lettered", n, 1))
        for n in range(5)
        for a in range(4)
    ]


def prompts(**settings):
    """Six prompts of different lengths; two ask for fewer tokens."""
    from lm_eval.api.instance import Instance

    return [
        Instance(
            "generate_until",
            {},
            (
                text(n, 3 + 5 * n),
                {"until": ["w9"], "max_gen_toks": 3 if n == 2 else 9, "do_sample": False, **settings},
            ),
            0,
            ("written", n, 1),
        )
        for n in range(6)
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


@pytest.mark.parametrize("batch_size", [3, 4, 100])
def test_what_passes_together_passes_together_in_lm_eval(loaded, batch_size):
    """Batches are of requests and not of documents, and the longest come first: other padding has other last digits."""
    from lm_eval.models.huggingface import HFLM

    from herdbook.steps.evaluate.parallel import ParallelHFLM

    with one_thread_a_matrix():
        reference, model = (
            HFLM(batch_size=batch_size, **loaded),
            ParallelHFLM(2, batch_size, **loaded),
        )
        assert model.loglikelihood_rolling(documents()) == reference.loglikelihood_rolling(documents())
        assert model.loglikelihood(questions()) == reference.loglikelihood(questions())
        assert model.loglikelihood(letters()) == reference.loglikelihood(letters())


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (3, 2)])
def test_texts_are_generated_as_lm_eval_generates_them(loaded, threads, batch_size):
    from lm_eval.models.huggingface import HFLM

    from herdbook.steps.evaluate.parallel import ParallelHFLM

    with one_thread_a_matrix():
        reference, model = (
            HFLM(batch_size=batch_size, **loaded),
            ParallelHFLM(threads, batch_size, **loaded),
        )
        expected = reference.generate_until(prompts())
        assert model.generate_until(prompts()) == expected
        assert len(set(expected)) > 3
        torch.manual_seed(1)
        drawn = reference.generate_until(prompts(do_sample=None, temperature=2.0))
        torch.manual_seed(1)
        assert model.generate_until(prompts(do_sample=None, temperature=2.0)) == drawn
        assert drawn != expected


@pytest.mark.parametrize("ask", ["loglikelihood", "loglikelihood_rolling", "generate_until"])
def test_nan_is_named_with_its_task_and_document(loaded, ask):
    """The logits of one document, which alone contains a token, are NaN."""
    from herdbook.steps.evaluate.parallel import ParallelHFLM

    requests = {
        "loglikelihood": questions,
        "loglikelihood_rolling": documents,
        "generate_until": prompts,
    }[ask]()
    used = {word for request in requests for part in request.args for word in str(part).split()}
    unused = next(f"w{number}" for number in range(100, 490) if f"w{number}" not in used)
    wrong = requests[4]
    wrong.arguments = (f"{unused} {wrong.args[0]}", *wrong.args[1:])
    [token] = loaded["tokenizer"].encode(unused, add_special_tokens=False)
    model = copy.deepcopy(loaded["pretrained"])
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    damaged = ParallelHFLM(2, 2, pretrained=model, tokenizer=loaded["tokenizer"])
    with pytest.raises(StepError, match=f"^{wrong.task_name}: document {wrong.doc_id}: .* NaN"):
        getattr(damaged, ask)(requests)


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
