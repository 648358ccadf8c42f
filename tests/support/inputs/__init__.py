"""Inputs that must not become a release as they are: what is wrong with each, and the message that refuses it.

One module for each kind of fault; ``tests/integration/test_inputs.py`` tries them all, and docs/inputs.md shows the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """An input that is refused.

    Args:
        wrong: What is wrong with it, as a row of the table in the documentation: a phrase without a full stop.
        make: Writes a recipe and its sources into an empty folder, and returns the recipe's path.
        message: A part of the message, which names the model and the file, key or tensor.
        slow: Whether it takes seconds, though another case takes the same way.
    """

    wrong: str
    make: Callable[[Path], Path]
    message: str
    slow: bool = False
