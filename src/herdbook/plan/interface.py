"""What an operation is: its rule, and its JSON form in a key and in the record of a part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from herdbook.jsonio import Json

# Parameters as JSON has them, in keys and in records.
Parameters: TypeAlias = "dict[str, Json]"
# The parameters of one merged tensor, by name.
Values: TypeAlias = dict[str, Any]

Rule = Literal["fetch", "laser", "adapter", "merge", "moe", "compress"]


@dataclass(frozen=True)
class CalibrationText:
    """Text that a model reads, by everything that decides its tokens.

    Args:
        name: Its name in the recipe.
        data: SHA-256 of its files.
        split: The split of its data set.
        field: The key under which a line contains its text.
        windows: How many windows are drawn.
        tokens: Tokens of a window.
        seed: Seed of the draw.
    """

    name: str
    data: tuple[str, ...]
    split: str
    field: str
    windows: int
    tokens: int
    seed: int

    @property
    def parameters(self) -> Parameters:
        """Its JSON form in keys and records."""
        return {**asdict(self), "data": list(self.data)}


class Interface:
    """The interface of all operations, with defaults for those that read nothing but tensors."""

    @property
    def parameters(self) -> Parameters:
        """Its JSON form in a record."""
        raise NotImplementedError

    @property
    def canonical(self) -> Parameters:
        """Its JSON form in a key: everything that decides bytes of the result; by default the parameters."""
        return self.parameters

    @property
    def header(self) -> str:
        """The entry ``format`` in the header of the shard."""
        return "pt"

    @property
    def folders(self) -> tuple[str, ...]:
        """Keys of the models whose assembled folder (configuration, tokenizer, weights) is read."""
        return ()

    @property
    def search_key(self) -> str | None:
        """Key of the search whose result is read."""
        return None

    @property
    def text(self) -> CalibrationText | None:
        """The calibration text that is read."""
        return None
