"""The batches in which lm-eval's models answer: lm-eval's own, answered by several threads, each answer kept.

The batches are those of lm-eval: of the requests of all tasks together, the longest first. Each is answered by one thread, so
that the answers are equal, bit for bit, to those of lm-eval with one thread, for any number of threads: sums that are split
among threads would depend on their number in the last digits.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import Collator, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from herdbook.errors import StepError
from herdbook.progress import say, track
from herdbook.steps.evaluate.answers import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from herdbook.steps.evaluate.answers import Answers


class NanError(ArithmeticError):
    """A model's logits contain NaN, in this row of a batch."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class Batched(TemplateLM):  # type: ignore[misc] # lm-eval has no types
    """What models have in common: how requests are cut into batches, and by how many threads these are answered.

    Attributes:
        threads: How many batches are answered at the same time.
        size: How many requests form a batch.
        answers: The answers of an earlier, interrupted evaluation, to which new ones are added; None to keep none.
        title: The name of what is measured, for progress.
        before: Called before the requests of each kind are answered, when those of all tasks are there.
    """

    threads: int
    size: int
    answers: Answers | None
    title: str
    before: Callable[[], None] | None = None
    _asked: Sequence[Any] = ()  # the requests whose tokens are being read, in order

    def read_batch(self, batch: list[Any]) -> list[Any]:
        """Return the log-likelihood of each of some texts' tokens after others, and whether they are the likeliest."""
        raise NotImplementedError

    def write_batch(self, batch: list[Any]) -> list[str]:
        """Return the texts that some requests have generated. Raises NanError."""
        raise NotImplementedError

    def _begin(self) -> None:
        if self.before is not None:
            self.before()

    def loglikelihood(self, requests: list[Any], **_: Any) -> list[Any]:
        """See lm-eval's class."""
        self._begin()
        self._asked = requests
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[no-any-return]

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        """See lm-eval's class."""
        self._begin()
        windows = [
            (place, (None, *make_disjoint_window(window)))
            for place, request in enumerate(requests)
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]
        self._asked = [requests[place] for place, _ in windows]
        # Windows are read in the order of the documents, and not the longest first.
        batches = [
            list(range(start, min(start + self.size, len(windows))))
            for start in range(0, len(windows), self.size)
        ]
        found = self._read([window for _, window in windows], batches, "windows of text")
        totals = [0.0] * len(requests)
        for (place, _window), (value, _likeliest) in zip(windows, found, strict=True):
            totals[place] += value
        return totals

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[Any]:
        collator = Collator(
            [(place, context, continuation) for place, (_, context, continuation) in enumerate(requests)],
            sort_fn=lambda item: (-len(item[1] + item[2]), tuple(item[1] + item[2])),
            group_by="contexts",
            group_fn=_asked_with,
        )
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, (_, context, continuation) in enumerate(requests):
            alike.setdefault(tuple(_asked_with((place, context, continuation))), []).append(place)
        batches = [
            sorted(place for item in batch for place in alike[tuple(_asked_with(item))])
            for batch in collator.get_batched(n=self.size)
        ]
        return self._read(requests, batches, "answers")

    def _read(self, requests: Sequence[Any], batches: Sequence[list[int]], what: str) -> list[Any]:
        """Return the log-likelihood of each request, and whether it is the likeliest answer."""
        instances = self._asked

        def answer(places: list[int]) -> list[Any]:
            batch = [requests[place] for place in places]
            found = self.read_batch(batch)
            for place, (value, _) in zip(places, found, strict=True):
                if math.isnan(value):
                    raise _not_a_number(instances[place])
            return found

        def named(places: list[int]) -> str:
            return name_of("tokens", [requests[place][1:] for place in places])

        found = self._in_batches(batches, answer, named, len(requests), what, self.threads)
        return [(float(value), bool(likeliest)) for value, likeliest in found]

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        """See lm-eval's class."""
        self._begin()
        collator = Collator(
            [(*request.args, place) for place, request in enumerate(requests)],
            sort_fn=lambda item: (-len(self.tok_encode(item[0])), item[0]),
            group_by="gen_kwargs",
            group_fn=lambda item: item[1],
        )
        batches = [[item[2] for item in batch] for batch in collator.get_batched(n=self.size)]
        # What is drawn depends on all that was drawn before: it is drawn in order, and from the beginning.
        drawn = any(normalize_gen_kwargs(request.args[1])["do_sample"] for request in requests)

        def answer(places: list[int]) -> list[Any]:
            batch = [requests[place] for place in places]
            try:
                return self.write_batch(batch)
            except NanError as error:
                raise _not_a_number(batch[error.row]) from error

        def named(places: list[int]) -> str:
            return "" if drawn else name_of("text", [requests[place].args for place in places])

        threads = 1 if drawn else self.threads
        return self._in_batches(batches, answer, named, len(requests), "generated texts", threads)

    def _in_batches(
        self,
        batches: Sequence[list[int]],
        answer: Callable[[list[int]], list[Any]],
        named: Callable[[list[int]], str],
        count: int,
        what: str,
        threads: int,
    ) -> list[Any]:
        """Answer batches, or take their answers over; return the answers in the order of the requests.

        Args:
            batches: The places of each batch's requests.
            answer: Answers a batch.
            named: Returns the name of a batch; empty if its answers are not kept.
            count: Number of requests.
            what: What is counted, for progress.
            threads: How many batches are answered at the same time.
        """
        kept = self.answers
        names = [named(places) for places in batches] if kept else []
        known: dict[int, list[Any]] = {}
        for number, name in enumerate(names):
            if kept and (found := kept.known(name)) is not None:
                known[number] = found
        if known:
            say(
                f"{self.title}: {len(known)} of {len(batches)} batches of {what} are known from an interrupted run"
            )

        def one(number: int) -> list[Any]:
            if number in known:
                return known[number]
            found = answer(batches[number])
            if kept and names[number]:
                kept.keep(names[number], found)
            return found

        results: list[Any] = [None] * count
        new = sum(len(places) for number, places in enumerate(batches) if number not in known)
        with ThreadPoolExecutor(threads) as pool, track(f"{self.title}: {what}", new) as advance:
            for number, answers in enumerate(pool.map(one, range(len(batches)))):
                for place, own in zip(batches[number], answers, strict=True):
                    results[place] = own
                    if number not in known:
                        advance()
        return results


def _asked_with(item: tuple[int, list[int], list[int]]) -> list[int]:
    """Return the tokens whose logits an answer needs: answers of one token to the same question need the same."""
    return item[1] + item[2][:-1]


def _not_a_number(request: Any) -> StepError:
    return StepError(
        f"{request.task_name}: document {request.doc_id}: the model's logits contain NaN, so nothing is measured. "
        "In float16 large activations overflow: use `evaluate.dtype: bfloat16` or `float32`. Otherwise its weights are damaged."
    )
