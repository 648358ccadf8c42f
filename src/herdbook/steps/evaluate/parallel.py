"""lm-eval's model, reading several documents at the same time.

Each batch is read by one thread, and the batches are the same for any number of threads, so that the results are equal bit
for bit. Sums that are split among threads would depend on their number in the last digits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class ParallelHFLM(HFLM):  # type: ignore[misc] # lm-eval has no types
    """A model of transformers that reads several batches at the same time. Text generation remains sequential.

    Args:
        threads: How many batches are read at the same time.
        batch_size: How many documents form a batch.
        options: The other arguments of lm-eval's class.
    """

    def __init__(self, threads: int, batch_size: int, **options: Any) -> None:
        super().__init__(batch_size=batch_size, **options)
        self._threads, self._batch_size = threads, batch_size

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """See lm-eval's class."""
        return self._spread(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """See lm-eval's class."""
        return self._spread(super().loglikelihood_rolling, requests, disable_tqdm)

    def _spread(
        self, method: Callable[..., list[Any]], requests: Sequence[Any], disable_tqdm: bool
    ) -> list[Any]:
        by_document = groupby(requests, lambda request: (request.task_name, request.doc_id))
        documents = [list(group) for _, group in by_document]
        batches = [
            [request for document in documents[start : start + self._batch_size] for request in document]
            for start in range(0, len(documents), self._batch_size)
        ]
        with ThreadPoolExecutor(self._threads) as pool:
            results = pool.map(lambda batch: method(batch, disable_tqdm=disable_tqdm), batches)
            return [answer for answers in results for answer in answers]
