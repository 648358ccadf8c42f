"""LASER: which matrices are reduced, how much of each is kept, and which reductions are tested."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from herdbook.architectures.dense import MATRICES
from herdbook.humanize import did_you_mean
from herdbook.recipe.rank import Rank, RankRule, rank_rule
from herdbook.recipe.search import Search
from herdbook.recipe.section import Name, Section

# A kind of matrix, or a single matrix by its name in the checkpoint, where the common prefix and suffix are optional.
MATRIX_PATTERN = (
    "^("
    + "|".join(MATRICES)
    + ")$|"
    + (r"^(model\.)?layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj(\.weight)?$")
)
MatrixName = Annotated[str, WithJsonSchema({"type": "string", "pattern": MATRIX_PATTERN})]


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list) else "one"


Ranks = Annotated[
    Annotated[Rank, Tag("one")] | Annotated[list[Rank], Tag("several")], Discriminator(_one_or_several)
]


class Select(Section):
    """Reduces only the first matrices of a ranking."""

    by: Literal["snr", "laser-rmt-snr", "gradient"] = Field(
        description="snr: lowest signal-to-noise ratio, independent of the shape; laser-rmt-snr: laserRMT's ranking; "
        "gradient: largest predicted decrease of the loss on the calibration text"
    )
    count: int = Field(ge=1, description="how many matrices are reduced")


class Guard(Section):
    """Keeps a reduction only if a paired test of the loss on calibration text shows that it does not hurt."""

    margin: float = Field(
        0.0,
        ge=0,
        description="nats per token that all reductions together may cost; 0: each reduction must help",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="confidence of the one-sided test")


class Laser(Section):
    """LASER: replaces chosen matrices of a model with their best approximations of lower rank."""

    laser: Name = Field(description="the model to start from")
    rank: Ranks = Field(
        description="how much is kept: {fraction: 0.9}, {energy: 0.99}, {budget: 0.9}, {clustered: {clusters: 4, keep: {fraction: 0.9}}}, a number, mp-edge, gavish-donoho, "
        "{gavish-donoho: 0.02}, laser-rmt, {svd-llm: {fraction: 0.9}}; with a guard also a list, tried in order"
    )
    matrices: Literal["all"] | list[MatrixName] = Field(
        description="which matrices: kinds such as [mlp.down_proj], single matrices such as "
        "[layers.31.self_attn.q_proj], or all"
    )
    layers: (
        Literal["all"] | Annotated[str, Field(pattern=r"^\d+-\d+$")] | list[Annotated[int, Field(ge=0)]]
    ) = Field(
        "all",
        description="layers of the kinds named: all, a range such as 20-29 (inclusive), or a list",
    )
    select: Select | None = None
    calibration: Name | None = Field(
        None, description="the calibration text, which svd-llm, `by: gradient` and a guard read"
    )
    guard: Guard | None = None
    search: Search | None = None

    @property
    def ranks(self) -> tuple[RankRule, ...]:
        """The rank rules, in the order in which they are tried."""
        return tuple(map(rank_rule, self.rank if isinstance(self.rank, list) else [self.rank]))

    @property
    def reads_text(self) -> bool:
        """Whether it needs calibration text."""
        return bool(self.guard) or self.by_gradient or any(rule.needs_text for rule in self.ranks)

    @property
    def by_gradient(self) -> bool:
        """Whether matrices are ranked by the gradient of their singular values."""
        return self.select is not None and self.select.by == "gradient"

    @field_validator("matrices", "layers", "rank")
    @classmethod
    def _some_and_each_once(cls, value: Any) -> Any:
        if isinstance(value, list) and (not value or len(set(map(repr, value))) < len(value)):
            raise ValueError("list at least one item, and each only once")
        return value

    @field_validator("matrices")
    @classmethod
    def _known(cls, value: Any) -> Any:
        wrong = [name for name in value if isinstance(value, list) and not re.match(MATRIX_PATTERN, name)]
        if wrong:
            raise ValueError(
                f"a layer has no matrix {wrong[0]!r}; a single matrix is written as in layers.31.mlp.up_proj"
                f"{did_you_mean(wrong[0], MATRICES)}"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Laser:
        if isinstance(self.rank, list) and not self.guard:
            raise ValueError(
                "several ranks need a guard, which tries them; give one rank, or add `guard: {}`"
            )
        if self.reads_text and self.calibration is None:
            raise ValueError(
                "svd-llm, `select: {by: gradient}` and `guard` read a text: name it in `calibration`"
            )
        if self.calibration and not self.reads_text:
            raise ValueError("`calibration` has no effect here, since nothing reads text; leave it out")
        return self


class Calibration(Section):
    """Text that LASER and the report on routers may read: a training or validation split, never text of an evaluation."""

    data: list[str] = Field(min_length=1, description="JSON Lines files, relative to the recipe")
    split: Literal["train", "validation"] = Field(
        description="the split of its data set that the text is from"
    )
    field: str = Field("text", description="the key under which a line contains its text")
    windows: int = Field(
        64, ge=30, description="how many windows are drawn; a guard draws as many more for the confirmation"
    )
    tokens: int = Field(256, ge=8, description="tokens of a window")
    seed: int = Field(0, ge=0, description="seed of the draw")

    @field_validator("data")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a file is named twice")
        return value
