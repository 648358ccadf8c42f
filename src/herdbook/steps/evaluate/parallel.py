"""lm-eval's model of transformers, answering several batches at the same time."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from herdbook.steps.evaluate.batches import Batched, NanError

if TYPE_CHECKING:
    import torch

    from herdbook.steps.evaluate.answers import Answers


class ParallelHFLM(Batched, HFLM):  # type: ignore[misc] # lm-eval has no types
    """A model of transformers that answers several batches at the same time.

    Args:
        threads: How many batches are answered at the same time.
        batch_size: How many requests form a batch.
        answers: The answers of an earlier, interrupted evaluation, to which new ones are added; None to keep none.
        title: The name of what is measured, for progress.
        options: The other arguments of lm-eval's class.
    """

    def __init__(
        self,
        threads: int,
        batch_size: int,
        answers: Answers | None = None,
        title: str = "evaluate",
        **options: Any,
    ) -> None:
        HFLM.__init__(self, batch_size=batch_size, **options)
        self.threads, self.size, self.answers, self.title = threads, batch_size, answers, title
        self._local = threading.local()

    def read_batch(self, batch: list[Any]) -> list[Any]:
        """See ``Batched``."""
        return HFLM._loglikelihood_tokens(self, batch, disable_tqdm=True)  # type: ignore[no-any-return] # noqa: SLF001

    def write_batch(self, batch: list[Any]) -> list[str]:
        """See ``Batched``."""
        return HFLM.generate_until(self._worker(), batch, disable_tqdm=True)  # type: ignore[no-any-return]

    def _worker(self) -> HFLM:
        """Return a model of the same weights for this thread: a tokenizer changes while it pads, so each has its own."""
        if not hasattr(self._local, "worker"):
            worker = copy.copy(self)
            worker.tokenizer = copy.deepcopy(self.tokenizer)
            self._local.worker = worker
        return self._local.worker

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
        return super()._model_generate(
            context=context, max_length=max_length, stop=stop, logits_processor=[_refuse_nan], **settings
        )


def _refuse_nan(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Raise NanError if the logits of a batch's next tokens contain NaN; return them otherwise."""
    rows = logits.isnan().any(dim=-1)
    if rows.any():
        raise NanError(int(rows.nonzero()[0]))
    return logits
