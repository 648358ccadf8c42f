"""Recipes from mergekit's configurations: a file of its own, or the YAML inside a model's card.

What such a configuration leaves open is assumed, and every assumption is reported: revisions, the version of mergekit, the
license. The recipe sets mergekit's semantics, so that the build reproduces mergekit's output bit for bit where possible.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from herdbook import jsonio, limits, yamlio
from herdbook import recipe as recipes
from herdbook.architectures.mergekit import EQUAL_ROWS
from herdbook.architectures.mixtures import FAMILIES
from herdbook.errors import RecipeError
from herdbook.layout import WEIGHTS_INDEX
from herdbook.recipe.hub_values import Licensed
from herdbook.recipe.moe import DRAWN_GATES, MERGEKIT_GATES
from herdbook.recipe.reading import read_text
from herdbook.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

HUB = re.compile(r"^[\w.-]+/[\w.-]+$")
FENCE = re.compile(r"^(?P<fence>`{3,20}|~{3,20})[^\n]*\n(?P<body>.*?)^(?P=fence)", re.MULTILINE | re.DOTALL)
# The keys that identify a configuration, each with its program and its required keys.
KINDS = {
    "experts": "mergekit-moe (`base_model` and `experts`)",
    "merge_method": "mergekit-yaml (`merge_method`)",
}
FRONT = re.compile(r"\A---\n(.*?)^---\s*$", re.MULTILINE | re.DOTALL)
NEWEST = "mergekit-0.1.5"
UNKNOWN = "unknown"  # the Hub's identifier of an unknown license
MOE_KEYS = {
    "base_model",
    "experts",
    "gate_mode",
    "dtype",
    "experts_per_token",
    "shared_experts",
    "architecture",
}
EXPERT_KEYS = {"source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale"}
# mergekit's names of the families, in its order; `architecture` is the beginning of a name, in upper or lower case.
ARCHITECTURES = {"mixtral": "mixtral", "deepseek moe": "deepseek", "qwen moe": "qwen2", "qwen3 moe": "qwen3"}
MEAN_UNTIL = "2024-01-03"  # commit 7fbe2b4


@dataclass
class Imported:
    """A recipe that is being imported.

    Args:
        models: The recipe's ``models``.
        assumed: The assumptions, one line each.
    """

    models: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)


def import_recipe(
    path: Path, *, name: str | None = None, license_: str | None = None, relative_to: Path = Path()
) -> tuple[str, list[str]]:
    """Convert a mergekit configuration to a recipe.

    Args:
        path: The configuration, or a card that contains it.
        name: The release's name; taken from the card or the folder if None.
        license_: The release's license; taken from the card if None.
        relative_to: The folder that the recipe will be written to; paths of local models are made relative to it.

    Returns:
        The recipe's text, and the assumptions, one line each.

    Raises:
        RecipeError: If the file contains no configuration, or one that cannot be built or that contradicts itself.
    """
    text = read_text(path)
    config, front_matter = find_configuration(text, str(path))
    imported = Imported()
    reader = _Reader(imported, path, relative_to)
    released = reader.mixture(config)
    if name is None:
        card_name = _plain(str(front_matter.get("model_name") or ""))
        name = card_name or _plain(path.resolve().parent.name) or "Imported"
        imported.assumed.append(
            f"release.name: {name}, from {'the card' if front_matter.get('model_name') else 'the folder'}"
        )
    if license_ is None:
        licensed, assumed = _license_on(front_matter)
        imported.assumed.append(assumed)
    else:
        licensed = {"license": license_}
    recipe = {"models": imported.models, "release": {"model": released, "name": name, **licensed}}
    head = [f"# Imported from {path.name}. Assumed:", *(f"# - {line}" for line in imported.assumed)]
    body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110)
    if (
        visible(body) != body
    ):  # a terminal would not show it as it is: written with YAML's escape sequences instead
        body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=False, width=110)
    recipes.parse(body, str(path))
    return "\n".join(head) + "\n" + body, imported.assumed


def _license_on(front_matter: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Return the keys of the license on a card, as a recipe has them, and the assumption that they make."""
    found = {key: str(front_matter[key]) for key in Licensed.model_fields if front_matter.get(key)}
    try:
        Licensed.model_validate(found)
    except ValidationError:
        stated = f"the card's, {found}, is not one that the Hub accepts; " if found else ""
        return {"license": UNKNOWN}, (
            f"release.license: {UNKNOWN}; {stated}it depends on the sources' licenses, which `herdbook lock` records"
        )
    return found, f"release.license: {found['license']}, from the card"


def find_configuration(
    text: str, file: str, kinds: Iterable[str] = ("experts",)
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration in a text, and the front matter if the text is a card (empty if it has none).

    Args:
        text: The text.
        file: The file's name in errors.
        kinds: Keys that identify a configuration: ``experts`` of a mixture, ``merge_method`` of a dense merge.

    Raises:
        RecipeError: If the text contains no configuration, or several that differ.
    """
    match = FRONT.match(text)
    front_matter = _yaml(match[1], file) if match else {}
    fenced = [block["body"] for block in FENCE.finditer(text)]
    blocks = fenced if match or fenced else [text]
    configurations: list[dict[str, Any]] = []
    for block in blocks:
        try:
            content = _yaml(block, file)
        except RecipeError:
            if len(blocks) == 1:
                raise
            continue
        is_configuration = isinstance(content, dict) and any(key in content for key in kinds)
        if is_configuration and content not in configurations:
            configurations.append(content)
    if len(configurations) != 1:
        raise RecipeError(
            "contains several different configurations; put the one to import into a file of its own"
            if configurations
            else f"contains no configuration of {' or '.join(KINDS[key] for key in kinds)}",
            file,
        )
    return configurations[0], front_matter if isinstance(front_matter, dict) else {}


class _Reader:
    def __init__(self, imported: Imported, path: Path, relative_to: Path) -> None:
        self.imported, self.path, self.relative_to = imported, path, relative_to
        self.names: dict[str, str] = {}

    def fail(self, line: str) -> RecipeError:
        return RecipeError(line, str(self.path))

    def mixture(self, config: dict[str, Any]) -> str:
        """Add a mixture and its sources; return its name."""
        self._ignored(config, MOE_KEYS, "")
        if "base_model" not in config or not isinstance(config["experts"], list):
            raise self.fail("`base_model` and a list of `experts` are required")
        gate = config.get("gate_mode") or "hidden"
        gate = "hidden" if gate == "hidden_last" else gate
        if gate not in MERGEKIT_GATES:
            raise self.fail(f"gate_mode: mergekit has no {gate!r}, only {', '.join(MERGEKIT_GATES)}")
        shared = config.get("shared_experts") or []
        family = self._family(config.get("architecture"), len(shared))
        mixture: dict[str, Any] = {
            "base": self.model(config["base_model"], "base_model"),
            "semantics": self._semantics(),
            "gate": gate,
            "experts_per_token": self._per_token(config.get("experts_per_token"), family, len(shared)),
            "experts": [self._expert(e, f"experts.{i}", gate) for i, e in enumerate(config["experts"])],
        }
        if shared:
            mixture["shared_experts"] = [
                self._expert(expert, f"shared_experts.{i}", gate) for i, expert in enumerate(shared)
            ]
        if family:
            mixture["family"] = family
        if config.get("dtype"):
            mixture["dtype"] = config["dtype"]
        else:
            self.imported.assumed.append("dtype: the base's, as the configuration names none")
        self._randomness(gate, mixture)
        self.imported.models["mixture"] = {"moe": mixture}
        return "mixture"

    def model(self, reference: Any, where: str) -> str:
        """Add a source, and an adapter on it if there is one; return the name of the resulting model."""
        model, lora = split_reference(reference)
        if model is None:
            raise self.fail(f"{where}: {reference!r} is not a model")
        name = self._source(model, where)
        if lora is None:
            return name
        key = f"{model}+{lora}"
        if key not in self.names:
            folder = self._folder(lora)
            self.names[key] = self._name(lora)
            adapter = folder if folder is not None else {"hub": self._hub(lora, where)}
            self.imported.models[self.names[key]] = {"adapter": adapter, "on": name}
        return self.names[key]

    def _source(self, reference: str, where: str) -> str:
        if reference not in self.names:
            folder = self._folder(reference)
            self.names[reference] = self._name(reference)
            self.imported.models[self.names[reference]] = (
                {"folder": folder} if folder is not None else {"hub": self._hub(reference, where)}
            )
        return self.names[reference]

    def _hub(self, reference: str, where: str) -> str:
        path, _, revision = reference.partition("@")
        if not HUB.match(path):
            raise self.fail(
                f"{where}: {path!r} is neither a folder on this machine nor owner/name on the Hub"
            )
        if not revision:
            self.imported.assumed.append(
                f"{path}: no revision is named; `herdbook lock` pins the current one, not the one that was merged"
            )
        return reference

    def _folder(self, reference: str) -> str | None:
        """Return a local model's path relative to the recipe, or None if the model is not on this machine."""
        for start in (Path(), self.path.parent):
            if (start / reference).is_dir():
                folder = (start / reference).absolute()  # a link is named, not what it leads to
                return os.path.relpath(folder.parent.resolve() / folder.name, self.relative_to.resolve())
        return None

    def _name(self, reference: str) -> str:
        last = reference.partition("@")[0].rstrip("/").rpartition("/")[2]
        base = re.sub(r"[^a-z0-9_-]+", "-", last.lower()).strip("-_") or "model"
        name, number = base, 2
        while name in {*self.names.values(), "mixture"}:
            name, number = f"{base}-{number}", number + 1
        return name

    def _expert(self, expert: Any, where: str, gate: str) -> dict[str, Any]:
        if not isinstance(expert, dict) or "source_model" not in expert:
            raise self.fail(f"{where}: `source_model` is required")
        self._ignored(expert, EXPERT_KEYS, f"{where}.")
        entry: dict[str, Any] = {"model": self.model(expert["source_model"], f"{where}.source_model")}
        for theirs, ours in (("positive_prompts", "prompts"), ("negative_prompts", "negative_prompts")):
            if expert.get(theirs) and gate not in DRAWN_GATES:
                entry[ours] = expert[theirs]
        return entry | {
            key: expert[key] for key in ("noise_scale", "residual_scale") if expert.get(key) is not None
        }

    def _ignored(self, section: dict[str, Any], known: Iterable[str], prefix: str) -> None:
        for key in section:
            if key not in set(known):
                self.imported.assumed.append(f"{prefix}{key}: left out, since mergekit-moe ignores it too")

    def _family(self, architecture: Any, shared: int) -> str | None:
        if not architecture:
            return None
        prefix = str(architecture).lower().strip()
        matches = [family for name, family in ARCHITECTURES.items() if name.startswith(prefix)]
        if not matches:
            raise self.fail(
                f"architecture: mergekit-moe has no {architecture!r}, only {', '.join(ARCHITECTURES)}"
            )
        fitting = [
            name
            for name in matches
            if any(f.name == name and shared in f.shared_counts for f in FAMILIES.values())
        ]
        return fitting[0] if fitting else matches[0]

    def _per_token(self, configured: Any, family: str | None, shared: int) -> int:
        if configured:
            return int(configured)
        count = 1 if shared and family in {None, "deepseek"} else 2
        self.imported.assumed.append(f"experts_per_token: {count}, mergekit's default here")
        return count

    def _semantics(self) -> str:
        """Return the semantics to set, and add the assumption about the version of mergekit."""
        version = None
        index = self.path.parent / WEIGHTS_INDEX
        if index.is_file():
            try:
                version = jsonio.load(index.read_bytes(), limits.DOCUMENT)["metadata"].get("mergekit_version")
            except (ValueError, KeyError, TypeError, AttributeError):
                version = None
        if version:
            era = f"the model was made with mergekit {version}, according to its index"
        else:
            era = "the version of mergekit is unknown"
        self.imported.assumed.append(
            f"semantics: {era}; the formulas of {NEWEST.removeprefix('mergekit-')} are used, which are those of all versions "
            f"since 2024-04-15. From {EQUAL_ROWS[0]} to {EQUAL_ROWS[1]} mergekit wrote routers with equal rows, and until "
            f"{MEAN_UNTIL} `hidden` was the mean over a prompt: a model of that time has different routers (check with "
            "`herdbook routers`)"
        )
        return "mergekit-0.1.4" if version == "0.1.4" else NEWEST

    def _randomness(self, gate: str, mixture: dict[str, Any]) -> None:
        noisy = any(e.get("noise_scale") for e in [*mixture["experts"], *mixture.get("shared_experts", [])])
        if noisy or gate in DRAWN_GATES:
            what = " and ".join(["the routers"] * (gate in DRAWN_GATES) + ["the noise"] * noisy)
            self.imported.assumed.append(
                f"seed: 0, for {what}; mergekit draws in the order of writing, so its draw cannot be reproduced"
            )


def split_reference(reference: Any) -> tuple[str | None, str | None]:
    """Return the model of a reference as ``path[@revision]``, and the adapter on it, if any, in the same form."""
    if isinstance(reference, str):
        model, _, lora = reference.partition("+")
        return model or None, lora or None
    if not isinstance(reference, dict):
        return None, None
    return _path(reference.get("model")), _path(reference.get("lora"))


def _path(value: Any) -> str | None:
    path, revision = (value.get("path"), value.get("revision")) if isinstance(value, dict) else (value, None)
    if not isinstance(path, str) or not path:
        return None
    return f"{path}@{revision}" if revision else path


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2]).strip("-._")


def _yaml(text: str, file: str) -> Any:
    """Parse YAML as mergekit does, with PyYAML. Raises RecipeError if the text is not YAML."""
    try:
        return yamlio.load(text, yamlio.PyYamlLoader)
    except yamlio.YamlError as error:
        raise RecipeError(str(error), file) from error
