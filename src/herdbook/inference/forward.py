"""The forward pass of a dense model, layer by layer, with one layer's weights in memory. It does not need a GPU.

On a CPU, one thread runs one sequence, so that the result depends neither on the number of threads nor on how sequences are
batched; arithmetic is float32.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from herdbook.errors import StepError
from herdbook.inference.tensors import CheckpointFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from herdbook.inference.tensors import Weights

EMBEDDINGS = "model.embed_tokens.weight"
LAST_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
Item = TypeVar("Item")
Result = TypeVar("Result")


class LayerwiseModel:
    """A causal language model of the Llama family.

    Args:
        folder: The model, as transformers loads it.
        device: Where it runs.
        threads: How many sequences pass at once on a CPU. It does not affect the results.
        config: A configuration for its modules, instead of the folder's own.
        weights: The tensors to read, instead of the folder's own.
    """

    def __init__(
        self,
        folder: Path,
        device: str = "cpu",
        threads: int = 1,
        config: Any = None,
        weights: Weights | None = None,
    ) -> None:
        self.config, self._skeleton = skeleton(folder, torch.float32, config)
        self.weights: Weights = weights or CheckpointFolder(folder)
        self.device = device
        self.threads = threads if device == "cpu" else 1
        self._rotary = self._skeleton.rotary_emb.to(device)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self._skeleton.layers)

    def embed(self, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the input of the first layer for each sequence of token ids: shape ``(1, tokens, hidden)``, float32."""
        return [self.weights.rows(EMBEDDINGS, ids).unsqueeze(0).to(self.device) for ids in sequences]

    @contextmanager
    def layer(
        self,
        number: int,
        replaced: Mapping[str, torch.Tensor] | None = None,
        mlp: torch.nn.Module | None = None,
    ) -> Iterator[torch.nn.Module]:
        """Load a layer's weights for the duration of a block.

        Args:
            number: The layer, from 0.
            replaced: Weights to use instead of the model's, by the tensor's full name, in any dtype.
            mlp: A module to use instead of its MLP, whose weights are not read then.

        Yields:
            The layer's module.
        """
        prefix = f"model.layers.{number}."
        if mlp is None:
            state = self.weights.below(prefix)
        else:
            self._skeleton.layers[number].mlp = mlp
            state = {name: self.weights[prefix + name] for name in self._skeleton.layers[number].state_dict()}
        for name, tensor in (replaced or {}).items():
            if name.startswith(prefix):
                state[name.removeprefix(prefix)] = tensor.to(torch.float32)
        module = self._skeleton.layers[number]
        module.load_state_dict({name: value.to(self.device) for name, value in state.items()}, assign=True)
        module.requires_grad_(False)
        try:
            yield module
        finally:
            module.to("meta")

    def run_recording(
        self, module: torch.nn.Module, streams: Iterable[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Pass streams through a layer; return the inputs of its MLP and the layer's outputs, in the streams' order."""
        by_thread: dict[int, torch.Tensor] = {}  # each thread passes one stream at a time

        def record(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            by_thread[get_ident()] = args[0]

        def pass_stream(stream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            with torch.no_grad():
                output = self.apply(module, stream)
            return by_thread.pop(get_ident()), output

        hook = module.mlp.register_forward_pre_hook(record)
        try:
            passed = self.each(pass_stream, streams)
        finally:
            hook.remove()
        return [mlp_input for mlp_input, _ in passed], [output for _, output in passed]

    def run(self, module: torch.nn.Module, streams: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Pass streams, each of shape ``(1, tokens, hidden)``, through a layer; return its outputs of the same shapes."""

        def pass_stream(stream: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.apply(module, stream)

        return self.each(pass_stream, streams)

    def apply(self, module: torch.nn.Module, stream: torch.Tensor) -> torch.Tensor:
        """Pass one stream of shape ``(1, tokens, hidden)`` through a layer."""
        positions = torch.arange(stream.shape[1], device=self.device).unsqueeze(0)
        # Without a mask and with more than one token, scaled dot product attention is causal.
        output: torch.Tensor = module(
            stream, attention_mask=None, position_embeddings=self._rotary(stream, position_ids=positions)
        )
        return output

    def read(
        self, sequences: Sequence[Sequence[int]], advance: Callable[[], object] = lambda: None
    ) -> list[torch.Tensor]:
        """Return what leaves the last layer for each sequence: shape ``(1, tokens, hidden)``, float32.

        Args:
            sequences: Token ids.
            advance: Called after each layer.
        """
        streams = self.embed(sequences)
        for number in range(self.layers):
            with self.layer(number) as module:
                streams = self.run(module, streams)
            advance()
        return streams

    def normed(self, streams: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Return streams after the last norm, of which ``head`` makes logits: shape ``(tokens, hidden)`` each."""
        norm = self._last_norm()

        def pass_stream(stream: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                normed: torch.Tensor = norm(stream)[0]
            return normed

        return self.each(pass_stream, streams)

    def head(self) -> torch.Tensor:
        """Return the output matrix, shape ``(vocabulary, hidden)``: the embeddings if these are tied to it."""
        return self.weights[HEAD if HEAD in self.weights.spans else EMBEDDINGS].to(self.device)

    def losses(self, streams: Iterable[torch.Tensor], sequences: Sequence[Sequence[int]]) -> list[float]:
        """Return each sequence's mean loss per predicted token in nats, from the outputs of the last layer.

        Args:
            streams: Shape ``(1, tokens, hidden)`` each.
            sequences: Their token ids.
        """
        loss = self._loss()

        def stream_loss(pair: tuple[torch.Tensor, Sequence[int]]) -> float:
            # A number, not its tensor: small blocks that stay allocated between the logits would keep glibc from reusing
            # the memory of earlier logits, so that each sequence would need new memory.
            with torch.no_grad():
                number: float = loss(*pair).item()
            return number

        return self.each(stream_loss, zip(streams, sequences, strict=True))

    def loss_gradients(
        self, streams: Iterable[torch.Tensor], sequences: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        """Return the gradient of the mean of all sequences' losses with respect to each stream, in the stream's shape."""
        loss = self._loss()

        def stream_gradient(pair: tuple[torch.Tensor, Sequence[int]]) -> torch.Tensor:
            stream = pair[0].detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(stream, pair[1]) / len(sequences), stream)
            return gradient

        return self.each(stream_gradient, zip(streams, sequences, strict=True))

    def _loss(self) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
        """Load the last norm and the output matrix; return a function that computes a stream's mean loss."""
        norm, head = self._last_norm(), self.head()

        def loss(stream: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
            target = torch.tensor(list(ids[1:]), device=self.device)
            return torch.nn.functional.cross_entropy(norm(stream)[0, :-1] @ head.T, target)

        return loss

    def _last_norm(self) -> torch.nn.Module:
        norm: torch.nn.Module = self._skeleton.norm
        norm.load_state_dict({"weight": self.weights[LAST_NORM].to(self.device)}, assign=True)
        return norm.requires_grad_(False)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Apply a function to items in parallel, each item in one thread; return the results in the items' order."""
        if self.threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(function, items))


def skeleton(folder: Path, dtype: torch.dtype, config: Any = None) -> tuple[Any, Any]:
    """Return a model's configuration, and the model without weights (on the meta device) but with its rotary tables.

    Args:
        folder: The model's folder.
        dtype: The dtype of the model's parameters.
        config: The configuration (default: the folder's).
    """
    from transformers import AutoConfig, AutoModel

    if config is None:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModel.from_config(config, dtype=dtype, attn_implementation="sdpa").eval()
    model.rotary_emb = type(model.rotary_emb)(config)
    return config, model


def hidden_states(folder: Path, sequences: Sequence[Sequence[int]]) -> Iterator[list[torch.Tensor]]:
    """Yield the inputs of each layer, from the first to the last.

    Each sequence passes alone, in float32, so that the result does not depend on how prompts are batched.

    Args:
        folder: A model of the Llama family, as transformers loads it.
        sequences: Token ids.

    Yields:
        For each layer, one tensor of shape ``(tokens, hidden)`` per sequence, float32. The first are the embeddings.

    Raises:
        StepError: If a sequence is empty, longer than the model's context, or has an id beyond its vocabulary.
    """
    model = LayerwiseModel(folder)
    check_sequences(sequences, model.config, "prompt")
    streams = model.embed(sequences)
    for number in range(model.layers):
        yield [stream[0] for stream in streams]
        if number + 1 < model.layers:
            with model.layer(number) as module:
                streams = model.run(module, streams)


def mlp_inputs(folder: Path, sequences: Sequence[Sequence[int]]) -> Iterator[list[torch.Tensor]]:
    """Yield the inputs of each layer's MLP: the stream after attention and the norm. Otherwise as ``hidden_states``."""
    model = LayerwiseModel(folder)
    check_sequences(sequences, model.config, "prompt")
    streams = model.embed(sequences)
    for number in range(model.layers):
        with model.layer(number) as module:
            inputs, streams = model.run_recording(module, streams)
        yield [mlp_input[0] for mlp_input in inputs]


def check_sequences(sequences: Sequence[Sequence[int]], config: Any, what: str) -> None:
    """Check that a model can read token sequences.

    Args:
        sequences: Token ids.
        config: The model's configuration.
        what: What a sequence is, for error messages.

    Raises:
        StepError: If a sequence is empty, longer than the model's context, or has an id beyond its vocabulary.
    """
    longest = min(
        config.max_position_embeddings,
        getattr(config, "sliding_window", None) or config.max_position_embeddings,
    )
    for number, ids in enumerate(sequences, start=1):
        if not ids:
            raise StepError(f"{what} {number} has no tokens")
        if len(ids) > longest:
            raise StepError(
                f"{what} {number} has {len(ids)} tokens; the base model reads at most {longest}. Shorten it."
            )
        if max(ids) >= config.vocab_size:
            raise StepError(
                f"{what} {number} has token {max(ids)}, beyond the model's vocabulary of {config.vocab_size}"
            )
