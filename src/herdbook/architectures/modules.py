"""Models of several modules, such as read images as well as text: their configurations, and which tensors a module has.

Source: mergekit 0.1.5, ``_data/architectures`` (Gemma 3, Llama 4, Mistral 3, Qwen2-VL, Qwen2.5-VL, Qwen3-VL), for the names of
modules, and ``architecture/auto.py`` for types without a file: a beginning of tensors' names, and ``default`` for all others.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

IMAGES, WORDS = "vision_config", "text_config"
REST = "default"
# Of both ways in which versions of transformers name the tensors.
_TOWER = r"(?:model\.)?(?:visual\.(?!merger\.|deepstack_merger_list\.)|vision_tower\.|vision_model\.)"
MODULES = {
    "text_decoder": re.compile(r"(?:model\.)?(?:language_model|embed_tokens|layers|norm)\.|lm_head\."),
    "vision_tower": re.compile(_TOWER),
    "vision_model": re.compile(_TOWER),
    "multi_modal_projector": re.compile(
        r"(?:model\.)?(?:multi_modal_projector|visual\.merger|visual\.deepstack_merger_list)\."
    ),
}


def reads_images(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of a model that also reads images."""
    return isinstance(config.get(IMAGES), dict)


def sections(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configurations of a model's modules by their keys; what all have in common has an empty one."""
    inner = {
        key: value for key, value in config.items() if key.endswith("_config") and isinstance(value, dict)
    }
    if not reads_images(config):
        return {"": dict(config)}
    return {"": {key: value for key, value in config.items() if key not in inner}, **inner}


def module_of(tensor: str, modules: Iterable[str]) -> str | None:
    """Return which of some modules a tensor belongs to; None if it belongs to none of them."""
    others = [module for module in modules if module != REST]
    for module in others:
        pattern = MODULES.get(module)
        if pattern.match(tensor) if pattern else f"{tensor}.".startswith(f"{module}."):
            return module
    return REST if REST in modules else None


def split(tensors: Iterable[str], modules: Collection[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the tensors of each module, and those that belong to none."""
    held: dict[str, list[str]] = {module: [] for module in modules}
    rest: list[str] = []
    for tensor in tensors:
        module = module_of(tensor, modules)
        (rest if module is None else held[module]).append(tensor)
    return held, rest


def stated(config: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yield what a configuration states for a key: of a model of several modules, what all have in common, and its text decoder."""
    places = (
        (config, config[WORDS]) if reads_images(config) and isinstance(config.get(WORDS), dict) else (config,)
    )
    yield from (place[key] for place in places if place.get(key) is not None)
