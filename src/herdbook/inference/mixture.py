"""A mixture run layer by layer, one expert's weights in memory at a time, watching what its routers choose.

Attention and norms are those of the dense family that the mixture was made of, so transformers' classes of mixtures,
which want all experts at once, are not needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from herdbook.architectures.mixtures import BY_MODEL_TYPE, MLP
from herdbook.errors import StepError
from herdbook.inference.forward import LayerwiseModel, check_sequences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from herdbook.architectures.mixtures import Family, Place
    from herdbook.inference.forward import CheckpointFolder


ROWS = 512  # that pass an expert together. As many for any number of threads, so that the results are the same bits.


@dataclass(frozen=True)
class Seen:
    """What one layer's router did.

    Args:
        layer: The layer.
        logits: For each sequence, shape ``(tokens, experts)``, float32.
        chosen: For each sequence, shape ``(tokens, experts per token)``: the experts, the best first.
    """

    layer: int
    logits: list[torch.Tensor]
    chosen: list[torch.Tensor]


class LayerwiseMixture(LayerwiseModel):
    """A mixture in one of Herdbook's families.

    Args:
        folder: The mixture, as transformers loads it.
        threads: See ``LayerwiseModel``.
        routers: Routers to take instead of its own, one for each layer.
        device: Where it runs.

    Raises:
        StepError: If it is no mixture of a known family.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 1,
        routers: Sequence[torch.Tensor] | None = None,
        device: str = "cpu",
    ) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = BY_MODEL_TYPE.get(config.get("model_type", ""))
        if family is None:
            raise StepError(
                f"{folder}: {config.get('model_type')!r} is no Mixture of Experts that can be read"
            )
        self.family, self.facts, self.routers = family, config, routers
        super().__init__(folder, device, threads, _dense(config, family))
        self.fused = "model.layers.0.mlp.experts.gate_up_proj" in self.weights.spans

    def watch(self, sequences: Sequence[Sequence[int]]) -> Iterator[tuple[Seen, list[torch.Tensor]]]:
        """Pass sequences through; yield, layer by layer, what the router did and the streams that leave the layer."""
        check_sequences(sequences, self.config, "text")
        streams = self.embed(sequences)
        for number in range(self.layers):
            routed = _Routed(self, number)
            with self.layer(number, mlp=routed) as module:
                streams = self.through(module, routed, streams)
            yield Seen(number, routed.logits, routed.chosen), streams

    def router(self, layer: int, *, stored: bool = False) -> torch.Tensor:
        """Return a layer's router, in its own dtype or in float32."""
        if self.routers is not None:
            return self.routers[layer].float()
        name = self.family.router(layer, fused=self.fused)
        return self.weights.stored(name) if stored else self.weights[name]

    def through(self, module: Any, routed: _Routed, streams: list[torch.Tensor]) -> list[torch.Tensor]:
        """Pass streams through a layer: attention for each, then each expert over the tokens of all that chose it."""
        # What the layer adds up is its attention's stream and its MLP's output. The MLP stands in as nothing first.
        inputs, left = self.run_seeing(module, streams)
        outputs = routed.run([one[0] for one in inputs])
        return [stream + output.unsqueeze(0) for stream, output in zip(left, outputs, strict=True)]


class _Routed(torch.nn.Module):  # type: ignore[misc]  # mypy does not look into torch
    """A layer's mixture. Called as the layer's MLP it gives nothing; ``run`` computes what it would have given."""

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
        count, lengths = router.shape[0], [one.shape[0] for one in inputs]
        joined = torch.cat(inputs)
        logits = joined @ router.T
        odds = logits.softmax(dim=-1)
        wanted = facts["num_experts_per_tok"]
        # By index where logits are equal, as top-k of any loader has it for a collapsed router.
        order = odds.argsort(dim=-1, descending=True, stable=True)[:, :wanted]
        shares = odds.gather(1, order)
        if family.name == "mixtral" or facts.get("norm_topk_prob"):
            shares = shares / shares.sum(dim=-1, keepdim=True)
        shares = shares * float(facts.get("routed_scaling_factor") or 1)
        total = torch.zeros_like(joined)
        for expert in range(count):
            rows, places = torch.where(order == expert)
            if len(rows):
                total[rows] += self._pass(expert, joined[rows]) * shares[rows, places].unsqueeze(1)
        if family.shared and family.expert(layer, "shared", MLP[0]) in model.weights.spans:
            shared = self._pass("shared", joined)
            if family.shared_gate:
                gate = model.weights[family.shared_router(layer)].to(model.device)
                shared = shared * torch.sigmoid(joined @ gate.T)
            total += shared
        self.logits, self.chosen = list(logits.cpu().split(lengths)), list(order.cpu().split(lengths))
        return list(total.split(lengths))

    def _pass(self, place: Place, inputs: torch.Tensor) -> torch.Tensor:
        model, layer = self._of
        gate, up, down = (_matrix(model, layer, place, matrix).to(model.device) for matrix in MLP)

        def one(rows: torch.Tensor) -> torch.Tensor:
            return (torch.nn.functional.silu(rows @ gate.T) * (rows @ up.T)) @ down.T

        return torch.cat(model.each(one, inputs.split(ROWS)))


def _matrix(model: LayerwiseMixture, layer: int, place: Place, matrix: str) -> torch.Tensor:
    weights: CheckpointFolder = model.weights
    if not model.fused or place == "shared":
        return weights[model.family.expert(layer, place, matrix)]
    name = f"model.layers.{layer}.mlp.experts.{'down_proj' if matrix == MLP[2] else 'gate_up_proj'}"
    found = weights.part(name, place)
    if matrix == MLP[2]:
        return found
    half = found.shape[0] // 2
    return found[:half] if matrix == MLP[0] else found[half:]


def _dense(config: dict[str, Any], family: Family) -> Any:
    """Return the configuration of a dense model with a mixture's attention."""
    from transformers import AutoConfig

    # Of the dense types, the last can have a window, and Llama attention biases.
    kind = family.sources[-1] if family.window else family.sources[0]
    facts = {
        key: value for key, value in config.items() if key not in {"model_type", "architectures", "auto_map"}
    }
    if kind == "mistral":
        facts["sliding_window"] = config.get("sliding_window")
    return AutoConfig.for_model(kind, **facts)
