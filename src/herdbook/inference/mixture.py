"""The forward pass of a mixture, layer by layer, with one expert's weights in memory, recording its routers' choices.

Attention and norms are those of the dense family that the mixture was made from, so transformers' classes of mixtures,
which need all experts at once, are not used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from herdbook.architectures.mixtures import BY_MODEL_TYPE, MLP
from herdbook.errors import StepError
from herdbook.inference.forward import LayerwiseModel, check_sequences
from herdbook.layout import CONFIG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from herdbook.architectures.mixtures import Family, Place
    from herdbook.inference.tensors import Weights


ROWS = 512  # that pass an expert together: the same number for any number of threads, so that the results are equal


@dataclass(frozen=True)
class RouterChoices:
    """The choices of one layer's router.

    Args:
        layer: The layer, from 0.
        logits: For each sequence, shape ``(tokens, experts)``, float32.
        chosen: For each sequence, shape ``(tokens, experts per token)``, int64: the experts, the best first.
    """

    layer: int
    logits: list[torch.Tensor]
    chosen: list[torch.Tensor]


class LayerwiseMixture(LayerwiseModel):
    """A mixture in one of Herdbook's families.

    Args:
        folder: The mixture, as transformers loads it.
        threads: See ``LayerwiseModel``.
        routers: Routers to use instead of its own, one for each layer: shape ``(experts, hidden)``.
        device: Where it runs.
        weights: The tensors to read, instead of the folder's own.

    Raises:
        StepError: If it is not a mixture of a supported family.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        routers: Sequence[torch.Tensor] | None = None,
        device: str = "cpu",
        weights: Weights | None = None,
    ) -> None:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        family = BY_MODEL_TYPE.get(config.get("model_type", ""))
        if family is None:
            raise StepError(
                f"{folder}: {config.get('model_type')!r} is not a supported type of Mixture of Experts"
            )
        self.family, self.facts, self.routers = family, config, routers
        super().__init__(folder, device, threads, _dense(config, family), weights)
        self.fused = "model.layers.0.mlp.experts.gate_up_proj" in self.weights.spans

    def watch(self, sequences: Sequence[Sequence[int]]) -> Iterator[tuple[RouterChoices, list[torch.Tensor]]]:
        """Pass sequences through the model; yield, for each layer, the router's choices and the layer's outputs."""
        check_sequences(sequences, self.config, "text")
        streams = self.embed(sequences)
        for number in range(self.layers):
            choices, streams = self.route(number, streams)
            yield choices, streams

    def route(self, number: int, streams: list[torch.Tensor]) -> tuple[RouterChoices, list[torch.Tensor]]:
        """Pass streams through a layer; return its router's choices and its outputs."""
        routed = _Routed(self, number)
        with self.layer(number, mlp=routed) as module:
            outputs = self.through(module, routed, streams)
        return RouterChoices(number, routed.logits, routed.chosen), outputs

    def read(
        self, sequences: Sequence[Sequence[int]], advance: Callable[[], object] = lambda: None
    ) -> list[torch.Tensor]:
        """Return what leaves the last layer for each sequence, see ``LayerwiseModel``."""
        streams: list[torch.Tensor] = []
        for _, outputs in self.watch(sequences):
            streams = outputs
            advance()
        return streams

    def router(self, layer: int, *, stored: bool = False) -> torch.Tensor:
        """Return a layer's router, in float32 or, with ``stored``, in its own dtype."""
        if self.routers is not None:
            return self.routers[layer].float()
        name = self.family.router(layer, fused=self.fused)
        return self.weights.stored(name) if stored else self.weights[name]

    def through(self, module: Any, routed: _Routed, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Pass streams through a layer: attention for each, then each expert over the tokens of all that chose it."""
        # A layer's output is the stream after attention plus the MLP's output. In the layer, the MLP returns zeros.
        inputs, after_attention = self.run_recording(module, streams)
        outputs = routed.run([mlp_input[0] for mlp_input in inputs])
        return [stream + output.unsqueeze(0) for stream, output in zip(after_attention, outputs, strict=True)]

    def expert(self, layer: int, place: Place, inputs: torch.Tensor) -> torch.Tensor:
        """Pass the inputs of an expert, shape ``(tokens, hidden)``, through it."""
        gate, up, down = self.matrices(layer, place)
        return torch.cat(self.each(lambda rows: inner(rows, gate, up) @ down.T, inputs.split(ROWS)))

    def matrices(self, layer: int, place: Place) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the matrices of an expert, in the order of ``MLP``."""
        gate, up, down = (_matrix(self, layer, place, matrix).to(self.device) for matrix in MLP)
        return gate, up, down


class _Routed(torch.nn.Module):  # type: ignore[misc]  # mypy does not look into torch
    """A layer's mixture. As the layer's MLP it returns zeros; ``run`` computes the output for all sequences together."""

    def __init__(self, model: LayerwiseMixture, layer: int) -> None:
        super().__init__()
        self._of = (model, layer)  # a tuple: no submodule
        self.logits: list[torch.Tensor] = []
        self.chosen: list[torch.Tensor] = []

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(stream)

    def run(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        model, layer = self._of
        facts, family = model.facts, model.family
        router = model.router(layer).to(model.device)
        count, lengths = router.shape[0], [mlp_input.shape[0] for mlp_input in inputs]
        joined = torch.cat(inputs)
        logits = joined @ router.T
        probabilities = logits.softmax(dim=-1)
        per_token = facts["num_experts_per_tok"]
        # Equal logits are ordered by index, as the top-k of any loader does for a collapsed router.
        order = probabilities.argsort(dim=-1, descending=True, stable=True)[:, :per_token]
        shares = probabilities.gather(1, order)
        if family.name == "mixtral" or facts.get("norm_topk_prob"):
            shares = shares / shares.sum(dim=-1, keepdim=True)
        shares = shares * float(facts.get("routed_scaling_factor") or 1)
        total = torch.zeros_like(joined)
        for expert in range(count):
            rows, ranks = torch.where(order == expert)
            if len(rows):
                total[rows] += model.expert(layer, expert, joined[rows]) * shares[rows, ranks].unsqueeze(1)
        if family.shared and family.expert(layer, "shared", MLP[0]) in model.weights.spans:
            shared = model.expert(layer, "shared", joined)
            if family.shared_gate:
                gate = model.weights[family.shared_router(layer)].to(model.device)
                shared = shared * torch.sigmoid(joined @ gate.T)
            total += shared
        self.logits, self.chosen = list(logits.cpu().split(lengths)), list(order.cpu().split(lengths))
        return list(total.split(lengths))


def inner(rows: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return what an expert's last matrix reads."""
    return torch.nn.functional.silu(rows @ gate.T) * (rows @ up.T)


def _matrix(model: LayerwiseMixture, layer: int, place: Place, matrix: str) -> torch.Tensor:
    weights: Weights = model.weights
    if not model.fused or place == "shared":
        return weights[model.family.expert(layer, place, matrix)]
    name = f"model.layers.{layer}.mlp.experts.{'down_proj' if matrix == MLP[2] else 'gate_up_proj'}"
    fused = weights.part(name, place)
    if matrix == MLP[2]:
        return fused
    half = fused.shape[0] // 2
    return fused[:half] if matrix == MLP[0] else fused[half:]


def configuration_of(folder: Path) -> Any:
    """Return the configuration of a folder's model as transformers reads it; of a mixture, that of its attention."""
    from transformers import AutoConfig

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if family := BY_MODEL_TYPE.get(config.get("model_type", "")):
        return _dense(config, family)
    return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def _dense(config: dict[str, Any], family: Family) -> Any:
    """Return the configuration of a dense model with a mixture's attention."""
    from transformers import AutoConfig

    # Of a family's dense types, the last is nearest: Qwen's have biases and norms. Mistral's has a window and no biases, Llama's the
    # other way round.
    kind = next(source for source in reversed(family.sources) if source != "mistral" or family.window)
    facts = {
        key: value for key, value in config.items() if key not in {"model_type", "architectures", "auto_map"}
    }
    if kind == "mistral":
        facts["sliding_window"] = config.get("sliding_window")
    return AutoConfig.for_model(kind, **facts)
