"""Planning the loss by quantization: one pass of the released model for all files, then one measurement for each file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.architectures.mixtures import BY_MODEL_TYPE
from herdbook.key import SHORT, digest
from herdbook.plan.code import TOKENIZERS, Code
from herdbook.plan.laser import calibration_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from herdbook.lock import Lock, LockedHubFile
    from herdbook.plan.code import DescribedCode
    from herdbook.plan.model import Node
    from herdbook.plan.quantize import Quantized
    from herdbook.quantization.scheme import SchemeName
    from herdbook.recipe import Recipe
    from herdbook.recipe.loss import OthersFile

LOSS_CODE = Code("loss", ("herdbook.steps.loss.step",), packages=TOKENIZERS)
# Dense models that `inference.forward` computes as transformers does; a mixture has the attention of one of them.
READ_BY_LAYERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")


@dataclass(frozen=True)
class Reference:
    """What the released model predicts for each token of the texts, kept for all of its files.

    Args:
        node: The released model.
        key: Digest that identifies it.
        texts: Names of the texts.
        code: The code that the result depends on.
    """

    node: Node
    key: str
    texts: tuple[str, ...]
    code: DescribedCode

    @property
    def id(self) -> str:
        """Name of its files, without suffix."""
        return f"{self.node.name}-{self.key[:SHORT]}"

    @property
    def has_control(self) -> bool:
        """Whether the model is a mixture, so that the loss of shuffled experts is measured, too."""
        return self.node.config.get("model_type") in BY_MODEL_TYPE

    @property
    def about(self) -> dict[str, Any]:
        """What its record states about it, as JSON."""
        return {
            "operation": "reference",
            "key": self.key,
            "model": self.node.key,
            "code": self.code.json,
        }


@dataclass(frozen=True)
class FileLoss:
    """The loss of one quantized file.

    Args:
        label: The method or the name of the file; of another publisher's, its name in the recipe.
        key: Digest that identifies it.
        reference: What it is compared with.
        quantized: The file, if this build makes it.
        encoded: The encoded model, if that is measured.
        entry: Another publisher's file, as the recipe names it.
        locked: The same, pinned.
    """

    label: str
    key: str
    reference: Reference
    quantized: Quantized | None = None
    encoded: Node | None = None
    entry: OthersFile | None = None
    locked: LockedHubFile | None = None

    @property
    def id(self) -> str:
        """Name of its result, without suffix."""
        return f"{self.reference.node.name}.{self.label}-{self.key[:SHORT]}"

    @property
    def code(self) -> DescribedCode:
        """The code that the result depends on."""
        return self.reference.code

    @property
    def repo(self) -> str:
        """The repository of another publisher's file."""
        return self.entry.repo if self.entry else ""

    @property
    def about(self) -> dict[str, Any]:
        """What its result states about how it was measured, as JSON."""
        return {
            "operation": "loss",
            "key": self.key,
            "reference": self.reference.key,
            "code": self.code.json,
        }


def plan_reference(recipe: Recipe, lock: Lock, released: Node) -> Reference | None:
    """Return what the released model predicts for the texts; None if no loss is measured."""
    loss = recipe.quantize.loss if recipe.quantize else None
    if loss is None:
        return None
    code = LOSS_CODE.describe()
    texts = [calibration_text(name, recipe, lock).parameters for name in loss.texts]
    content = {"operation": "reference", "model": released.key, "texts": texts, "code": code.json}
    return Reference(released, digest(content), tuple(loss.texts), code)


def plan_losses(
    recipe: Recipe,
    lock: Lock,
    reference: Reference | None,
    quantized: Iterable[Quantized],
    encoded: Mapping[SchemeName, Node],
) -> tuple[FileLoss, ...]:
    """Return the measurements of losses: the quantized files in the recipe's order, models by their format, others' files."""
    loss = recipe.quantize.loss if recipe.quantize else None
    if loss is None or reference is None:
        return ()

    def key(file: dict[str, str | None]) -> str:
        content = {
            "operation": "loss",
            "reference": reference.key,
            "file": file,
            "code": reference.code.json,
        }
        return digest(content)

    ours = (FileLoss(item.method, key({"key": item.key}), reference, item) for item in quantized)
    others = (
        FileLoss(name, key({"sha256": locked.file.sha256}), reference, entry=entry, locked=locked)
        for name, entry, locked in ((name, entry, lock.others[name]) for name, entry in loss.others.items())
    )
    models = (
        FileLoss(name, key({"key": node.key}), reference, encoded=node) for name, node in encoded.items()
    )
    return (*ours, *models, *others)


def unreadable(recipe: Recipe, released: Node) -> str | None:
    """Return why the loss of a model's files cannot be measured; None if it can, or is not requested."""
    kind = released.config.get("model_type")
    if recipe.quantize is None or recipe.quantize.loss is None or kind in {*READ_BY_LAYERS, *BY_MODEL_TYPE}:
        return None
    return (
        f"quantize.loss: {released.name!r} is of type {kind!r}, which is not read layer by layer; the types are "
        f"{', '.join((*READ_BY_LAYERS, *BY_MODEL_TYPE))}. Leave `loss` out; `evaluate: true` measures the files by tasks"
    )
