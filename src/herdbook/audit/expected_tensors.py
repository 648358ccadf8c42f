"""Where each tensor of a published merge must come from, if its configuration tells the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from herdbook.architectures.dense import LAYER, layer_of, matrix_of
from herdbook.architectures.mixtures import MLP, fitting
from herdbook.audit.configuration import MIXTURE
from herdbook.errors import UnverifiedError
from herdbook.plan.moe import BIAS, MATRICES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from herdbook.architectures.mixtures import Family, Place
    from herdbook.audit.configuration import Configuration, ExpertSource
    from herdbook.audit.model import Model

EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class ExpectedTensor:
    """A tensor of a merge as its configuration has it.

    Args:
        part: What it belongs to, as people call it: ``expert 1``, ``base``, ``layers 0-15``.
        source: The model that it is taken from, as the configuration names it.
        tensor: What it is called there; empty for one that is all zeros.
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
    """Return what each tensor that is a copy must be a copy of, by canonical name; routers are left out.

    Args:
        configuration: What the configuration says.
        merge: The merge.
        sources: The sources that can be read, by reference.

    Raises:
        UnverifiedError: If the merge is of a kind that is not known here.
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
    """Return the family of a mixture. Raises UnverifiedError if it is none that is known."""
    if merge.family:
        return merge.family
    kind = str(merge.config.get("model_type"))[:40]
    made = fitting(str(base.config.get("model_type")), len(configuration.shared)) if base else None
    wanted = f"; the configuration makes one of type {made.model_type!r}" if made else ""
    raise UnverifiedError(
        f"{merge.subject.name}: is of type {kind!r}, which is no mixture that is known here{wanted}"
    )


def _mixture(
    configuration: Configuration, merge: Model, sources: Mapping[str, Model]
) -> Iterator[tuple[str, ExpectedTensor]]:
    assert configuration.base  # noqa: S101 - no mixture is without
    base = sources.get(configuration.base)
    family = family_of(configuration, merge, base)
    places: list[tuple[Place, str, ExpertSource]] = [
        (place, f"expert {place + 1}", one) for place, one in enumerate(configuration.experts)
    ]
    places += [("shared", "shared expert", one) for one in configuration.shared]
    for layer in range(merge.layers):
        for place, part, one in places:
            for matrix in MLP:
                scale = one.scale if matrix == "down_proj" and one.scale != 1 else None
                tensor = f"model.layers.{layer}.mlp.{matrix}.weight"
                yield (
                    family.expert(layer, place, matrix),
                    ExpectedTensor(part, one.source, tensor, scale, one.noisy),
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
    """Yield layers in the order of the runs; embeddings are the first run's, last norm and head the last one's."""
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
            found = LAYER.match(name)
            if found and run.first <= int(found[1]) < stop:
                placed = f"model.layers.{layer + int(found[1]) - run.first}.{found[2]}"
                yield placed, ExpectedTensor(part, run.source, name)
            elif not found and not name.endswith("inv_freq"):
                ends = [0] if name == EMBEDDINGS[0] else [len(configuration.runs) - 1]
                if number in ends and not (configuration.tokens_changed and name in EMBEDDINGS):
                    yield name, ExpectedTensor("ends", run.source, name)
        layer += stop - run.first


def misfits(
    wanted: Mapping[str, ExpectedTensor], routed: set[str], merge: Model, configuration: Configuration
) -> tuple[list[str], list[str]]:
    """Return the names of tensors that the merge lacks, and of those that nothing accounts for."""
    spare = set(EMBEDDINGS) if configuration.tokens_changed else set()
    if merge.config.get("tie_word_embeddings"):
        spare.add("lm_head.weight")  # is the embeddings, whether it is stored or not
    have = {name for name in merge.pieces if not name.endswith("inv_freq")}
    needed = set(wanted) | routed
    order = {True: 0, False: 1}

    def sort(names: set[str]) -> list[str]:
        return sorted(names, key=lambda name: (order[layer_of(name) is None], layer_of(name) or 0, name))

    return sort(needed - have - spare), sort(have - needed - spare)
