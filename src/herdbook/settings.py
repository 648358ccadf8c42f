"""The settings of a machine: the environment variables that every step reads, and their keys in the configuration.

They do not affect results, so they are neither in a key nor in a rule's params: another machine or another recipe reuses a
result instead of rebuilding it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from herdbook.humanize import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


KEYLESS = "keyless"  # in place of a key's path: sign with Sigstore


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        variable: Its environment variable.
        meaning: Its description, without a full stop.
        default: Its value if the variable is unset or empty; empty for none.
        key: Its key in ``config/config.yaml``; empty if the workflow determines it.
        keeps: Whether the variable stays in effect if ``config/config.yaml`` does not set the key.
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
        """Return its value under a configuration of the workflow; empty for none.

        Args:
            config: The content of ``config/config.yaml``, with the changes from the command line.
        """
        value = config.get(self.key)
        if value is None or value == "":
            return self.value if self.keeps else self.default
        return str(value)


RECIPE = Setting("HERDBOOK_RECIPE", "the recipe that is built", "config/miniature.yaml", "recipe")
DEVICE = Setting("HERDBOOK_DEVICE", "the device that decomposes matrices and runs models", "cpu", "device")
GPU_MEMORY = Setting("HERDBOOK_GPU_MEMORY", "the memory of one GPU in GB", key="gpu_memory")
SIGNING_KEY = Setting(
    "HERDBOOK_SIGNING_KEY",
    f"the private key that signs: its path, or `{KEYLESS}`; empty in jobs on other hosts, which sign nothing",
    key="signing_key",
)
CACHE = Setting(
    "HERDBOOK_CACHE", "the shared cache of results: a folder, or a bucket of S3", key="cache", keeps=True
)
PRICE_PER_HOUR = Setting(
    "HERDBOOK_PRICE_PER_HOUR", "the price of an hour, for the summary of a build", key="price_per_hour"
)
PINS = Setting(
    "HERDBOOK_PINS",
    "with `--sdm conda`: the lock of packages from which every environment is made; its versions are in the keys",
)
REQUIREMENT = Setting(
    "HERDBOOK_REQUIREMENT",
    "with `--sdm conda`: the requirement with which pip installs this Herdbook in an environment",
)

SETTINGS = (RECIPE, DEVICE, GPU_MEMORY, SIGNING_KEY, CACHE, PRICE_PER_HOUR, PINS, REQUIREMENT)


def problems(config: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a configuration, one line for each key; empty if nothing is.

    Args:
        config: The content of ``config/config.yaml``, with the changes of the command line.
    """
    known = [setting.key for setting in SETTINGS if setting.key]
    found = []
    for key, value in config.items():
        if key not in known:
            found.append(f"{key}: unknown setting{did_you_mean(str(key), known)}")
        elif isinstance(value, bool) or not isinstance(value, str | int | float | None):
            found.append(f"{key}: expected text or a number")
    return found


def gpu_bytes() -> int | None:
    """Return the memory of one GPU in bytes; None if it is not configured.

    Raises:
        ValueError: If the configured value is not a number.
    """
    return int(float(GPU_MEMORY.value) * 10**9) if GPU_MEMORY.value else None
