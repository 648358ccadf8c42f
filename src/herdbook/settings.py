"""The settings of a machine, as every step reads them: environment variables, and where the workflow takes them from.

None of them decides what a result is, so none is in a key or in a parameter of a rule: a result is not made a second
time because another machine, or another recipe, asks for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


KEYLESS = "keyless"  # in place of a key's path: signed with Sigstore


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        variable: The environment variable that holds it.
        meaning: What it says, in a sentence without its full stop.
        default: What holds where the variable is unset or empty; empty for nothing.
        key: Its key in ``config/config.yaml``; empty if the workflow finds it by itself.
        keeps: Whether the variable that is set already holds where ``config/config.yaml`` is silent.
    """

    variable: str
    meaning: str
    default: str = ""
    key: str = ""
    keeps: bool = False

    @property
    def value(self) -> str:
        """Its value now: the variable's, or the default."""
        return os.environ.get(self.variable) or self.default

    def configured(self, config: Mapping[str, Any]) -> str:
        """Return its value by a configuration of the workflow; empty for nothing.

        Args:
            config: The content of ``config/config.yaml``, with what the command line changes in it.
        """
        said = config.get(self.key)
        if said is None or said == "":
            return self.value if self.keeps else self.default
        return str(said)


RECIPE = Setting("HERDBOOK_RECIPE", "the recipe that is built", "config/miniature.yaml", "recipe")
DEVICE = Setting("HERDBOOK_DEVICE", "where matrices are decomposed and models run", "cpu", "device")
GPU_MEMORY = Setting("HERDBOOK_GPU_MEMORY", "the memory of one GPU in GB", key="gpu_memory")
SIGNING_KEY = Setting(
    "HERDBOOK_SIGNING_KEY",
    f"the path of the private key that signs, or `{KEYLESS}`; empty in jobs on other hosts, which sign nothing",
    key="signing_key",
)
CACHE = Setting(
    "HERDBOOK_CACHE", "the cache that results are shared by: a folder or an S3 place", key="cache", keeps=True
)
PRICE_PER_HOUR = Setting(
    "HERDBOOK_PRICE_PER_HOUR", "what an hour costs, for the summary of a build", key="price_per_hour"
)
PINS = Setting(
    "HERDBOOK_PINS",
    "with `--sdm conda`: the lock of packages that every environment is made from, whose versions are in the keys",
)
REQUIREMENT = Setting(
    "HERDBOOK_REQUIREMENT", "with `--sdm conda`: what pip installs in an environment to have this Herdbook"
)

SETTINGS = (RECIPE, DEVICE, GPU_MEMORY, SIGNING_KEY, CACHE, PRICE_PER_HOUR, PINS, REQUIREMENT)


def gpu_bytes() -> int | None:
    """Return the memory of one GPU in bytes; None if nobody says.

    Raises:
        ValueError: If what is said is no number.
    """
    return int(float(GPU_MEMORY.value) * 10**9) if GPU_MEMORY.value else None
