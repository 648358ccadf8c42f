"""Recipes from mergekit's configurations: a file of its own, or the YAML inside a model's card.

What such a configuration leaves open is assumed, and every assumption is said: whose revisions, which mergekit, which
licence. The recipe asks for mergekit's semantics, so that what is built has its bits where it can.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from herdbook import recipe as recipes
from herdbook import yamlio
from herdbook.architectures.mergekit import EQUAL_ROWS
from herdbook.architectures.mixtures import FAMILIES
from herdbook.errors import RecipeError
from herdbook.layout import WEIGHTS_INDEX
from herdbook.recipe.moe import DRAWN_GATES, MERGEKIT_GATES
from herdbook.recipe.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable

HUB = re.compile(r"^[\w.-]+/[\w.-]+$")
FENCE = re.compile(r"^(?P<fence>`{3,20}|~{3,20})[^\n]*\n(?P<body>.*?)^(?P=fence)", re.MULTILINE | re.DOTALL)
# The key that tells a configuration, and of what it is one.
KINDS = {
    "experts": "mergekit-moe (`base_model` and `experts`)",
    "merge_method": "mergekit-yaml (`merge_method`)",
}
FRONT = re.compile(r"\A---\n(.*?)^---\s*$", re.MULTILINE | re.DOTALL)
NEWEST = "mergekit-0.1.5"
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
# What mergekit calls the families, in its order; `architecture` is the beginning of one, whatever its case.
ARCHITECTURES = {"mixtral": "mixtral", "deepseek moe": "deepseek", "qwen moe": "qwen2", "qwen3 moe": "qwen3"}
MEAN_UNTIL = "2024-01-03"  # commit 7fbe2b4


@dataclass
class Imported:
    """A recipe in the making.

    Args:
        models: Its models, as a recipe has them.
        assumed: What had to be assumed, one line each.
    """

    models: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)


def import_recipe(
    path: Path, *, name: str | None = None, license_: str | None = None, relative_to: Path = Path()
) -> tuple[str, list[str]]:
    """Make a recipe of a mergekit configuration.

    Args:
        path: The configuration, or a card that holds it.
        name: What the release shall be called; told by the card or the folder otherwise.
        license_: Its licence; told by the card otherwise.
        relative_to: Folder that the recipe will lie in; paths of local models are made relative to it.

    Returns:
        The recipe's text, and what had to be assumed, one line each.

    Raises:
        RecipeError: If there is no configuration, it is none that can be built, or it contradicts itself.
    """
    text = read_text(path)
    config, about = find_configuration(text, str(path))
    made = Imported()
    reader = _Reader(made, path, relative_to)
    released = reader.mixture(config)
    if name is None:
        name = _plain(str(about.get("model_name") or "")) or _plain(path.resolve().parent.name) or "Imported"
        made.assumed.append(
            f"release.name: {name}, after {'the card' if about.get('model_name') else 'the folder'}"
        )
    if license_ is None:
        said = about.get("license")
        license_ = str(said) if isinstance(said, str) else None
        made.assumed.append(
            f"release.license: {license_}, as the card says"
            if license_
            else "release.license: unknown; the sources' licences decide, `herdbook lock` writes them down"
        )
    recipe = {
        "models": made.models,
        "release": {"model": released, "name": name, "license": license_ or "unknown"},
    }
    head = [f"# Imported from {path.name}. Assumed:", *(f"# - {line}" for line in made.assumed)]
    body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=110)
    recipes.parse(body, str(path))
    return "\n".join(head) + "\n" + body, made.assumed


def find_configuration(
    text: str, file: str, kinds: Iterable[str] = ("experts",)
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration in a text, and what a card's front matter says (nothing if there is none).

    Args:
        text: The text.
        file: How errors call it.
        kinds: Keys that tell a configuration: ``experts`` of a mixture, ``merge_method`` of a dense merge.

    Raises:
        RecipeError: If there is none, or several that differ.
    """
    front = FRONT.match(text)
    about = _yaml(front[1], file) if front else {}
    blocks = [match["body"] for match in FENCE.finditer(text)] if front or FENCE.search(text) else [text]
    found = []
    for block in blocks:
        try:
            content = _yaml(block, file)
        except RecipeError:
            if len(blocks) == 1:
                raise
            continue
        if isinstance(content, dict) and any(key in content for key in kinds) and content not in found:
            found.append(content)
    if len(found) != 1:
        raise RecipeError(
            "holds several configurations that differ; put the one that is meant into a file of its own"
            if found
            else f"holds no configuration of {' or '.join(KINDS[key] for key in kinds)}",
            file,
        )
    return found[0], about if isinstance(about, dict) else {}


class _Reader:
    def __init__(self, made: Imported, path: Path, relative_to: Path) -> None:
        self.made, self.path, self.relative_to = made, path, relative_to
        self.names: dict[str, str] = {}

    def fail(self, line: str) -> RecipeError:
        return RecipeError(line, str(self.path))

    def mixture(self, config: dict[str, Any]) -> str:
        """Add a mixture and its sources; return its name."""
        self._ignored(config, MOE_KEYS, "")
        if "base_model" not in config or not isinstance(config["experts"], list):
            raise self.fail("`base_model` and a list of `experts` are needed")
        gate = config.get("gate_mode") or "hidden"
        gate = "hidden" if gate == "hidden_last" else gate
        if gate not in MERGEKIT_GATES:
            raise self.fail(f"gate_mode: mergekit knows no {gate!r}, only {', '.join(MERGEKIT_GATES)}")
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
            self.made.assumed.append("dtype: the base's, as none is named")
        self._randomness(gate, mixture)
        self.made.models["mixture"] = {"moe": mixture}
        return "mixture"

    def model(self, reference: Any, where: str) -> str:
        """Add a source, and an adapter on it if there is one; return the name of the model that is meant."""
        model, lora = split_reference(reference)
        if model is None:
            raise self.fail(f"{where}: {reference!r} is no model")
        name = self._source(model, where)
        if lora is None:
            return name
        key = f"{model}+{lora}"
        if key not in self.names:
            folder = self._folder(lora)
            self.names[key] = self._name(lora)
            adapter = folder if folder is not None else {"hub": self._hub(lora, where)}
            self.made.models[self.names[key]] = {"adapter": adapter, "on": name}
        return self.names[key]

    def _source(self, reference: str, where: str) -> str:
        if reference not in self.names:
            folder = self._folder(reference)
            self.names[reference] = self._name(reference)
            self.made.models[self.names[reference]] = (
                {"folder": folder} if folder is not None else {"hub": self._hub(reference, where)}
            )
        return self.names[reference]

    def _hub(self, reference: str, where: str) -> str:
        path, _, revision = reference.partition("@")
        if not HUB.match(path):
            raise self.fail(f"{where}: {path!r} is neither a folder here nor owner/name on the Hub")
        if not revision:
            self.made.assumed.append(
                f"{path}: no revision is named; `herdbook lock` pins what it is now, not what it was then"
            )
        return reference

    def _folder(self, reference: str) -> str | None:
        """Return a local model's path as the recipe needs it, or None if it is not on this machine."""
        for start in (Path(), self.path.parent):
            if (start / reference).is_dir():
                return os.path.relpath((start / reference).resolve(), self.relative_to.resolve())
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
            raise self.fail(f"{where}: `source_model` is needed")
        self._ignored(expert, EXPERT_KEYS, f"{where}.")
        made: dict[str, Any] = {"model": self.model(expert["source_model"], f"{where}.source_model")}
        for theirs, ours in (("positive_prompts", "prompts"), ("negative_prompts", "negative_prompts")):
            if expert.get(theirs) and gate not in DRAWN_GATES:
                made[ours] = expert[theirs]
        return made | {
            key: expert[key] for key in ("noise_scale", "residual_scale") if expert.get(key) is not None
        }

    def _ignored(self, found: dict[str, Any], known: Iterable[str], prefix: str) -> None:
        for key in found:
            if key not in set(known):
                self.made.assumed.append(f"{prefix}{key}: left out, since mergekit-moe ignores it too")

    def _family(self, architecture: Any, shared: int) -> str | None:
        if not architecture:
            return None
        wanted = str(architecture).lower().strip()
        begun = [family for name, family in ARCHITECTURES.items() if name.startswith(wanted)]
        if not begun:
            raise self.fail(
                f"architecture: mergekit-moe knows no {architecture!r}, only {', '.join(ARCHITECTURES)}"
            )
        counted = [
            name
            for name in begun
            if any(f.name == name and shared in f.shared_counts for f in FAMILIES.values())
        ]
        return counted[0] if counted else begun[0]

    def _per_token(self, asked: Any, family: str | None, shared: int) -> int:
        if asked:
            return int(asked)
        count = 1 if shared and family in {None, "deepseek"} else 2
        self.made.assumed.append(f"experts_per_token: {count}, mergekit's default here")
        return count

    def _semantics(self) -> str:
        """Return whose semantics are asked for, and say what the era means."""
        version = None
        index = self.path.parent / WEIGHTS_INDEX
        if index.is_file():
            try:
                version = json.loads(index.read_text(encoding="utf-8"))["metadata"].get("mergekit_version")
            except (ValueError, KeyError, TypeError, AttributeError):
                version = None
        if version:
            era = f"the model was made with mergekit {version}, as its index says"
        else:
            era = "the version of mergekit is not named"
        self.made.assumed.append(
            f"semantics: {era}; the formulas of {NEWEST.removeprefix('mergekit-')} are taken, which those since 2024-04-15 "
            f"share. Between {EQUAL_ROWS[0]} and {EQUAL_ROWS[1]} mergekit wrote routers with equal rows, and until {MEAN_UNTIL} "
            "`hidden` was the mean over a prompt: a model of that time has other routers (`herdbook routers` looks at them)"
        )
        return "mergekit-0.1.4" if version == "0.1.4" else NEWEST

    def _randomness(self, gate: str, mixture: dict[str, Any]) -> None:
        noisy = any(e.get("noise_scale") for e in [*mixture["experts"], *mixture.get("shared_experts", [])])
        if noisy or gate in DRAWN_GATES:
            what = " and ".join(["the routers"] * (gate in DRAWN_GATES) + ["the noise"] * noisy)
            self.made.assumed.append(
                f"seed: 0, for {what}; mergekit draws in the order of writing, so its own draw cannot be had again"
            )


def split_reference(reference: Any) -> tuple[str | None, str | None]:
    """Return a model reference as ``path[@revision]`` and the adapter on it, if any, likewise."""
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
    """Return what a text says to mergekit, which reads with PyYAML. Raises RecipeError if it is not YAML."""
    try:
        return yamlio.load(text, yamlio.PyYamlLoader)
    except yamlio.YamlError as error:
        raise RecipeError(str(error), file) from error
