"""The settings of a machine: the environment variables that every step reads, and their keys in the configuration.

They do not affect results, so they are neither in a key nor in a rule's params: another machine or another recipe reuses a
result instead of rebuilding it.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from herdbook.humanize import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


KEYLESS = "keyless"  # in place of a key's path: sign with Sigstore
# The keys of a cluster's file (profiles/README.md) that profiles/slurm reads itself. Snakemake merges that file into the
# configuration, so they also reach the workflow, which has no use for them.
CLUSTER_KEYS = ("account", "partition", "gpu_partition", "gpu")

_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")
_MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[a-z]*)", re.ASCII | re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_MEMORY_UNITS = {"": 10**9, "gb": 10**9, "mb": 10**6, "gib": 2**30, "mib": 2**20}


def parse_device(text: str) -> str:
    """Return the name of a device.

    Raises:
        ValueError: If Herdbook does not compute on it.
    """
    if not _DEVICE.fullmatch(text):
        lower = text.lower()
        hint = did_you_mean(lower, [lower] if _DEVICE.fullmatch(lower) else ["cuda", "cuda:0"])
        raise ValueError(f"{text!r} is not cpu, cuda (any GPU) or a GPU such as cuda:0{hint}")
    return text


def parse_gpu_memory(text: str) -> int:
    """Return a GPU's memory in bytes.

    Args:
        text: A number of GB, such as ``80``, or a number with its unit: ``80GB``, ``80 gb``, ``81559MiB``.

    Raises:
        ValueError: If it is neither.
    """
    match = _MEMORY.fullmatch(text.strip())
    unit = match and _MEMORY_UNITS.get(match["unit"].lower())
    if match is None or unit is None or not float(match["number"]):
        raise ValueError(
            f"{text!r} is not a number of GB such as 80, or a size such as 80GB (GB, MB, GiB, MiB)"
        )
    return int(float(match["number"]) * unit)


def parse_price(text: str) -> float:
    """Return a price.

    Raises:
        ValueError: If it is not a number above zero.
    """
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price > 0):
        raise ValueError(f"{text!r} is not a price, a number such as 2.5")
    return price


def parse_image(text: str) -> str:
    """Return the address or path of an image of a container.

    Raises:
        ValueError: If it contains a space, which Snakemake and Apptainer do not take.
    """
    if re.search(r"\s", text):
        raise ValueError(f"{text!r} contains a space, as no image of Apptainer may")
    return text


def parse_repositories(text: str) -> tuple[str, ...]:
    """Return names of repositories.

    Args:
        text: One or more of ``owner/name``, with commas or spaces between them.

    Raises:
        ValueError: If one is not such a name.
    """
    names = tuple(text.replace(",", " ").split())
    for name in names:
        if not _REPOSITORY.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a repository, owner/name")
    return names


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        variable: Its environment variable.
        meaning: Its description, without a full stop.
        default: Its value if the variable is unset or empty; empty for none.
        key: Its key in ``config/config.yaml``; empty if the workflow determines it.
        keeps: Whether the variable stays in effect if ``config/config.yaml`` does not set the key.
        parse: Returns what its text means; raises ValueError if it means nothing.
        form: Keywords of JSON Schema for what editors check; what ``parse`` takes has it.
    """

    variable: str
    meaning: str
    default: str = ""
    key: str = ""
    keeps: bool = False
    parse: Callable[[str], Any] = str
    form: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def value(self) -> str:
        """Its value now: the variable's, or the default."""
        return os.environ.get(self.variable) or self.default

    @property
    def parsed(self) -> Any:
        """What its value now means; None if it has none. Raises ValueError if the value means nothing."""
        return self.parse(self.value) if self.value else None

    def configured(self, config: Mapping[str, Any]) -> str:
        """Return its value under a configuration of the workflow; empty for none.

        Args:
            config: The content of ``config/config.yaml``, with the changes from the command line.
        """
        value = config.get(self.key)
        if value is None or value == "":
            return self.value if self.keeps else self.default
        return str(value)


RECIPE = Setting("HERDBOOK_RECIPE", "the recipe that is built", key="recipe")
RESULTS = Setting("HERDBOOK_RESULTS", "the results folder; below the `prefix` of a module", "results")
DEVICE = Setting(
    "HERDBOOK_DEVICE",
    "the device that decomposes matrices and runs models: `cpu`, `cuda`, `cuda:1`, ...",
    "cpu",
    "device",
    parse=parse_device,
    form={"type": ["string", "null"], "pattern": f"^({_DEVICE.pattern})?$"},
)
GPU_MEMORY = Setting(
    "HERDBOOK_GPU_MEMORY",
    "the memory of one GPU in GB, or with its unit",
    key="gpu_memory",
    parse=parse_gpu_memory,
    form={"pattern": r"^(\s*[0-9]+(\.[0-9]+)? ?([gGmM][iI]?[bB])?\s*)?$", "exclusiveMinimum": 0},
)
SIGNING_KEY = Setting(
    "HERDBOOK_SIGNING_KEY",
    f"the private key that signs: its path, or `{KEYLESS}`; empty in jobs on other hosts, which sign nothing",
    key="signing_key",
)
CACHE = Setting(
    "HERDBOOK_CACHE", "the shared cache of results: a folder, or a bucket of S3", key="cache", keeps=True
)
GATED = Setting(
    "HERDBOOK_GATED",
    "the gated repositories whose weights, and what is made of them, may be stored in a cache in a bucket",
    key="gated",
    parse=parse_repositories,
)
RUN = Setting(
    "HERDBOOK_RUN",
    "on machines that share no disk: the name of this run; a result that the cache does not accept is then a failure",
    keeps=True,
)
TRIALS = Setting(
    "HERDBOOK_TRIALS",
    "set by `herdbook tune`: the recipe of its trials, which the workflow builds in place of the recipe that they are of",
    keeps=True,
)
PRICE_PER_HOUR = Setting(
    "HERDBOOK_PRICE_PER_HOUR",
    "the price of an hour, for the summary of a build",
    key="price_per_hour",
    parse=parse_price,
    form={"pattern": r"^(\s*[0-9_.]+([eE][-+]?[0-9]+)?\s*)?$", "exclusiveMinimum": 0},
)
CONTAINER = Setting(
    "HERDBOOK_CONTAINER",
    "with `--sdm apptainer`: the image in which all steps run, an address such as `docker://...` or the path of a file",
    key="container",
    parse=parse_image,
    form={"type": ["string", "null"], "pattern": r"^\S*$"},
)
PINS = Setting(
    "HERDBOOK_PINS",
    "with `--sdm conda`: the lock of packages from which every environment is made; its versions are in the keys",
)
REQUIREMENT = Setting(
    "HERDBOOK_REQUIREMENT",
    "with `--sdm conda`: the requirement with which pip installs this Herdbook in an environment",
)

SETTINGS = (
    RECIPE,
    RESULTS,
    DEVICE,
    GPU_MEMORY,
    SIGNING_KEY,
    CACHE,
    GATED,
    RUN,
    TRIALS,
    PRICE_PER_HOUR,
    CONTAINER,
    PINS,
    REQUIREMENT,
)
OF_A_BUILD = (RECIPE, RESULTS)  # what each module of a workflow has for itself; the others are of the machine


def pass_on(config: Mapping[str, Any], results: str, of_machine: dict[str, str]) -> None:
    """Set the environment variables that every step reads.

    Args:
        config: The content of ``config/config.yaml``, or the configuration of a module.
        results: The results folder.
        of_machine: What other modules of the same workflow have set; extended.

    Raises:
        ValueError: If another module of the workflow has set one of the machine to something else.
    """
    variables = {one.variable: one.configured(config) for one in SETTINGS} | {RESULTS.variable: results}
    os.environ.update(variables)
    for one in SETTINGS:
        value = variables[one.variable]
        if one not in OF_A_BUILD and (other := of_machine.setdefault(one.variable, value)) != value:
            raise ValueError(
                f"{one.key or one.variable}: is {value!r} in this module of the workflow and {other!r} in another; set the same "
                "in both, since it is a setting of the machine"
            )


def are_set() -> bool:
    """Return whether all settings are set in the environment, as they are in the jobs of a build."""
    return all(one.variable in os.environ for one in SETTINGS)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``config/config.yaml``, for editors. It accepts all settings in which ``problems`` finds nothing."""
    properties = {
        one.key: {
            "description": one.meaning,
            "type": ["string", "number", "null"],
            **({"default": one.default} if one.default else {}),
            **one.form,
        }
        for one in SETTINGS
        if one.key
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a machine",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def problems(config: Mapping[str, Any], others: Iterable[str] = ()) -> list[str]:
    """Return what is wrong with a configuration, one line for each key; empty if nothing is.

    Args:
        config: The content of ``config/config.yaml``, with the changes of the command line.
        others: Keys that may be in it, too, and are not read.
    """
    known = {setting.key: setting for setting in SETTINGS if setting.key}
    found = []
    for key, value in config.items():
        if key in others or (key in known and value in (None, "")):
            continue
        if key not in known:
            found.append(f"{key}: unknown setting{did_you_mean(str(key), [*known, *others])}")
        elif isinstance(value, bool) or not isinstance(value, str | int | float):
            given = {bool: "true or false", dict: "a mapping", list: "a list"}.get(type(value), "a date")
            found.append(f"{key}: expected text or a number, the {known[key].meaning} (found {given})")
        else:
            try:
                known[key].parse(str(value))
            except ValueError as error:
                found.append(f"{key}: {error}")
    return found
