"""The section of a recipe on the loss by quantization: on which texts it is measured, how large it may be, whose files it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from herdbook.humanize import did_you_mean
from herdbook.recipe.section import RELEASE_NAME_PATTERN, Name, Section
from herdbook.recipe.source import HubFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from herdbook.recipe.laser import Calibration

Nats = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Label = Annotated[str, Field(pattern=RELEASE_NAME_PATTERN)]


class OthersFile(HubFile):
    """A GGUF file of the same model by another publisher, on the Hub. It is measured, and never released."""

    file: str = Field(pattern=r"^\S.*\.gguf$", description="the file's name in the repository")


class Loss(Section):
    """How much each quantized file loses on text, against the model at full width."""

    texts: list[Name] = Field(
        min_length=1, description="held-out texts, named as in `calibration`, of which nothing was made"
    )
    ceiling: Nats | dict[Label, Nats] | None = Field(
        None,
        description="the largest mean KL divergence (nats per token) that a file may have, for all files or by the method or name "
        "of each; a release that contains a worse file is not made",
    )
    others: dict[Label, OthersFile] = Field(
        {},
        description="files of other publishers, by the names that they get in the table; they are measured beside ours",
    )

    def ceiling_of(self, label: str) -> float | None:
        """Return the largest loss that a file may have; None if there is no limit."""
        return self.ceiling.get(label) if isinstance(self.ceiling, dict) else self.ceiling


def loss_problems(
    loss: Loss, labels: Collection[str], texts: Mapping[str, Calibration], used: Mapping[str, str]
) -> Iterator[str]:
    """Yield what is wrong with the section.

    Args:
        loss: The section.
        labels: The ends of the names of the quantized files.
        texts: The recipe's texts.
        used: By name of a text, what of the recipe is made of it.
    """
    for index, name in enumerate(loss.texts):
        where = f"quantize.loss.texts.{index}"
        if name in loss.texts[:index]:
            yield f"{where}: {name!r} is named twice"
        elif name not in texts:
            yield f"{where}: no calibration is named {name!r}{did_you_mean(name, texts)}"
        elif texts[name].split == "train":
            yield f"{where}: {name!r} is of a training split, which is not held out; name a text of a validation split"
        else:
            for other, use in used.items():
                if other in texts and (shared := sorted({*texts[name].data} & {*texts[other].data})):
                    yield (
                        f"{where}: {name!r} reads {shared[0]}, of which {use} is made; a file must not be measured on text "
                        "that it was made with: use another file"
                    )
    for label in loss.ceiling if isinstance(loss.ceiling, dict) else ():
        if label not in labels:
            yield f"quantize.loss.ceiling.{label}: no quantized file is named {label!r}{did_you_mean(label, labels)}"
    for name in loss.others:
        if name in labels:
            yield f"quantize.loss.others: {name!r} is the name of a file of this recipe; choose another one"
