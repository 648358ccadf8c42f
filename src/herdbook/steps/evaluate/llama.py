"""lm-eval's model of a GGUF that llama.cpp runs, in this process.

lm-eval's own class uses a server, whose log-likelihoods of given tokens are wrong: it drops the last token's, and shifts the
others. Here llama.cpp returns the logits of all tokens, and the rest is arithmetic. Text is cut into tokens by the file itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from herdbook.errors import StepError
from herdbook.steps.evaluate.batches import Batched, NanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from herdbook.steps.evaluate.answers import Answers
    from herdbook.steps.evaluate.llama_runtime import Runtime

GENERATED = 256  # tokens, where a task does not set a number; lm-eval's default


class LlamaLM(Batched):
    """A GGUF that llama.cpp runs.

    Args:
        opened: Opens the model for some number of tokens, see ``opener``.
        max_length: The most tokens that the model reads at once.
        answers: See ``Batched``.
        title: See ``Batched``.
        tokenizer: The model's tokenizer in transformers, for its chat template alone.
    """

    def __init__(
        self,
        opened: Callable[[int], Runtime],
        max_length: int,
        answers: Answers | None = None,
        title: str = "evaluate",
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        self.threads, self.size, self.answers, self.title = 1, 1, answers, title
        self._opened, self._words, self._room = opened, opened(0), 0
        self._model: Runtime | None = None
        self._max_length, self.tokenizer = max_length, tokenizer

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._words.last

    @property
    def prefix_token_id(self) -> int:
        """The token before a text: that of its beginning, or without one, of its end."""
        first = self._words.first
        return first if first >= 0 else self.eot_token_id

    @property
    def max_length(self) -> int:
        """The most tokens that the model reads at once."""
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        """How many tokens are generated where a task does not set it."""
        return GENERATED

    @property
    def tokenizer_name(self) -> str:
        """Empty: the tokenizer is the file's."""
        return ""

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the tokens of a text, with the token before it if the file adds one, and unless that is refused."""
        first = self._words.text([self.prefix_token_id], special=True)
        begun = bool(first) and string.startswith(first)
        add = add_special_tokens is not False and not (add_special_tokens is None and begun)
        return self._words.tokens(string, begin=add)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the model's chat template writes it."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def read_batch(self, batch: list[Any]) -> list[Any]:
        """See ``Batched``. Requests in a batch differ in their last token at most, so one pass answers them."""
        _, context, continuation = max(batch, key=lambda request: len(request[2]))
        tokens = [*context, *continuation][-(self.max_length + 1) :][:-1]
        logits = self._logits(tokens)
        found = []
        for _, _, wanted in batch:
            rows = logits[-len(wanted) :].astype(np.float32)
            likelihood = rows - rows.max(axis=-1, keepdims=True)
            likelihood -= np.log(np.exp(likelihood).sum(axis=-1, keepdims=True))
            chosen = likelihood[np.arange(len(wanted)), wanted]
            found.append((float(chosen.sum()), bool((rows.argmax(axis=-1) == wanted).all())))
        return found

    def write_batch(self, batch: list[Any]) -> list[str]:
        """See ``Batched``."""
        [(context, given)] = [request.args for request in batch]
        settings = normalize_gen_kwargs(dict(given), GENERATED)
        end = self._words.text([self.eot_token_id], special=True)
        until = handle_stop_sequences(settings.pop("until", None), eos=end or None)
        length = int(settings.pop("max_gen_toks"))
        if settings.pop("do_sample", False) or settings.pop("temperature", 0.0):
            raise StepError(
                f"{batch[0].task_name}: texts that are drawn at random are others in llama.cpp. Leave `quantize.runtime` out, "
                "or set `do_sample: false`."
            )
        tokens = self.tok_encode(context)[-(self.max_length - length) :]
        written: list[int] = []
        while len(written) < length:
            row = self._logits([*tokens, *written], new=bool(written))[-1]
            if np.isnan(row).any():
                raise NanError(0)
            token = int(row.argmax())
            if token == self.eot_token_id:
                break
            written.append(token)
            text = self._words.text(written)
            if any(stop in text for stop in until):
                break
        text = self._words.text(written)
        return [postprocess_generated_text(text, until, None)]

    def _logits(self, tokens: list[int], *, new: bool = False) -> Any:
        """Return the logits after each of some tokens; if only the last is new, after it alone."""
        if self._model is None or len(tokens) > self._room:
            if self._model is not None:
                self._model.close()
            self._room, new = min(self.max_length, max(64, 2 ** (len(tokens) - 1).bit_length())), False
            self._model = self._opened(self._room)
        return self._model.logits(tokens[-1:] if new else tokens, new=new)
