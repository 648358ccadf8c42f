"""lm-eval's model, with several documents at once.

A document passes on one thread, and with the same others whatever the number of threads, so that the results are the same
bits. Sums that threads share have other last digits for another number of them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ParallelHFLM(HFLM):  # type: ignore[misc] # lm-eval says no types
    """A model of transformers that reads several documents at once. What it writes, it writes one after another.

    Args:
        threads: How many.
        batch_size: How many of them pass together.
        options: What lm-eval's own class takes.
    """

    def __init__(self, threads: int, batch_size: int, **options: Any) -> None:
        super().__init__(batch_size=batch_size, **options)
        self._threads, self._together = threads, batch_size

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """Return what lm-eval's own class does."""
        return self._spread(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """Return what lm-eval's own class does."""
        return self._spread(super().loglikelihood_rolling, requests, disable_tqdm)

    def _spread(
        self, method: Callable[..., list[Any]], requests: Sequence[Any], disable_tqdm: bool
    ) -> list[Any]:
        documents = [list(group) for _, group in groupby(requests, lambda one: (one.task_name, one.doc_id))]
        pieces = [
            [request for document in documents[start : start + self._together] for request in document]
            for start in range(0, len(documents), self._together)
        ]
        with ThreadPoolExecutor(self._threads) as pool:
            found = pool.map(lambda piece: method(piece, disable_tqdm=disable_tqdm), pieces)
            return [answer for piece in found for answer in piece]
