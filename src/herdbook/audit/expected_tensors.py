"""Where each tensor of a merge must come from, according to its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import LAYER, layer_of, matrix_of
from herdbook.architectures.mixtures import MLP, fitting
from herdbook.audit.configuration import MIXTURE
from herdbook.errors import UnverifiedError
from herdbook.plan.moe_fit import BIAS, MATRICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.architectures.mixtures import Family, Place
    from herdbook.audit.configuration import Configuration, ExpertSource
    from herdbook.audit.model import Model

EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class ExpectedTensor:
    """The origin of a merge's tensor, according to its configuration.

    Args:
        part: The part of the merge that it belongs to, as shown to users: ``expert 1``, ``base``, ``layers 0-15``.
        source: The model that it is taken from, as the configuration names it.
        tensor: Its name in that model; empty for a tensor of zeros.
        scale: What it was multiplied by, or None.
        noisy: Whether noise was added.
    """

    part: str
    source: str
    tensor: str
    scale: float | None = None
    noisy: bool = False


def expected(
    configuration: Configuration, merge: Model, sources: Mapping[str, Model]
) -> dict[str, ExpectedTensor]:
    """Return the origin of each tensor that must be a copy, by canonical name; routers are left out.

    Args:
        configuration: The merge's configuration.
        merge: The merge.
        sources: The sources that can be read, by reference.

    Raises:
        UnverifiedError: If the merge is of an unsupported kind.
        VerificationError: If its configuration contradicts itself.
    """
    if configuration.method == MIXTURE:
        return dict(_mixture(configuration, merge, sources))
    return dict(_passthrough(configuration, sources))


def router_names(configuration: Configuration, merge: Model) -> set[str]:
    """Return the names that the merge's routers must have."""
    family = merge.family
    if configuration.method != MIXTURE or family is None:
        return set()
    names = {family.router(layer) for layer in range(merge.layers)}
    if family.shared_gate and configuration.shared:
        names |= {family.shared_router(layer) for layer in range(merge.layers)}
    return names


def family_of(configuration: Configuration, merge: Model, base: Model | None) -> Family:
    """Return the family of a mixture. Raises UnverifiedError if it is not supported."""
    if merge.family:
        return merge.family
    model_type = str(merge.config.get("model_type"))[:40]
    implied = fitting(str(base.config.get("model_type")), len(configuration.shared)) if base else None
    hint = f"; the configuration makes a mixture of type {implied.model_type!r}" if implied else ""
    raise UnverifiedError(
        f"{merge.subject.name}: has model_type {model_type!r}, which is not a supported mixture{hint}"
    )


def _mixture(
    configuration: Configuration, merge: Model, sources: Mapping[str, Model]
) -> Iterator[tuple[str, ExpectedTensor]]:
    assert configuration.base  # noqa: S101 - every mixture has a base
    base = sources.get(configuration.base)
    family = family_of(configuration, merge, base)
    places: list[tuple[Place, str, ExpertSource]] = [
        (place, f"expert {place + 1}", expert) for place, expert in enumerate(configuration.experts)
    ]
    places += [("shared", "shared expert", expert) for expert in configuration.shared]
    for layer in range(merge.layers):
        for place, part, expert in places:
            for matrix in MLP:
                scale = expert.scale if matrix == "down_proj" and expert.scale != 1 else None
                tensor = f"model.layers.{layer}.mlp.{matrix}.weight"
                yield (
                    family.expert(layer, place, matrix),
                    ExpectedTensor(part, expert.source, tensor, scale, expert.noisy),
                )
    if base is None:
        return
    for name in base.pieces:
        bias = BIAS.search(name)
        dropped = bias is not None and bias[1] not in family.biases
        if matrix_of(name) not in MATRICES and not dropped and not name.endswith("inv_freq"):
            yield name, ExpectedTensor("base", configuration.base, name)
    if family.needs_biases:
        for layer in range(merge.layers):
            for projection in family.biases:
                name = f"model.layers.{layer}.self_attn.{projection}.bias"
                if name not in base.pieces:
                    yield name, ExpectedTensor("base", configuration.base, "")


def _passthrough(
    configuration: Configuration, sources: Mapping[str, Model]
) -> Iterator[tuple[str, ExpectedTensor]]:
    """Yield layers in the order of the runs. Embeddings are from the first run, last norm and head from the last one."""
    layer = 0
    for number, run in enumerate(configuration.runs):
        source = sources.get(run.source)
        stop = run.stop
        if stop is None:
            if source is None:
                return
            stop = source.layers
        part = f"layers {layer}-{layer + stop - run.first - 1}"
        for name in source.pieces if source else ():
            match = LAYER.match(name)
            if match and run.first <= int(match[1]) < stop:
                placed = f"model.layers.{layer + int(match[1]) - run.first}.{match[2]}"
                yield placed, ExpectedTensor(part, run.source, name)
            elif not match and not name.endswith("inv_freq"):
                ends = [0] if name == EMBEDDINGS[0] else [len(configuration.runs) - 1]
                if number in ends and not (configuration.tokens_changed and name in EMBEDDINGS):
                    yield name, ExpectedTensor("ends", run.source, name)
        layer += stop - run.first


def misfits(
    tensors: Mapping[str, ExpectedTensor],
    router_tensors: set[str],
    merge: Model,
    configuration: Configuration,
) -> tuple[list[str], list[str]]:
    """Return the names of tensors that the merge lacks, and of those that nothing explains."""
    spare = set(EMBEDDINGS) if configuration.tokens_changed else set()
    if merge.config.get("tie_word_embeddings"):
        spare.add("lm_head.weight")  # it equals the embeddings, whether it is stored or not
    present = {name for name in merge.pieces if not name.endswith("inv_freq")}
    needed = set(tensors) | router_tensors
    order = {True: 0, False: 1}

    def sort(names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (order[layer_of(name) is None], layer_of(name) or 0, name))

    return sort(needed - present - spare), sort(present - needed - spare)
