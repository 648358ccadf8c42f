"""Settings in `config/config.yaml` that are unknown or invalid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import tiny
from support.inputs import Case

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def configured(line: str) -> Callable[[Path], Path]:
    """Return a maker of a recipe in a repository with one setting."""

    def make(folder: Path) -> Path:
        tiny.write_model(folder / "base", seed=1)
        (folder / "config").mkdir()
        (folder / "config/config.yaml").write_text(f"{line}\n", encoding="utf-8")
        return tiny.write_recipe(folder / "recipe.yaml", {"base": {"folder": "base"}})

    return make


CASES = [
    Case(f"`{line}`", configured(line), f"config/config.yaml: line 1: {message}")
    for line, message in (
        ("devise: cuda", "devise: unknown setting; did you mean 'device'?"),
        ("account: lab", "account: unknown setting"),
        (
            "device: cudaa",
            "device: 'cudaa' is not cpu, cuda (any GPU) or a GPU such as cuda:0; did you mean 'cuda'?",
        ),
        ("gpu_memory: lots", "gpu_memory: 'lots' is not a number of GB such as 80, or a size such as 80GB"),
        ("gpu_memory: 0", "gpu_memory: '0' is not a number of GB such as 80"),
        ("price_per_hour: cheap", "price_per_hour: 'cheap' is not a price"),
        ("gated: llama", "gated: 'llama' is not the name of a repository, owner/name"),
        (
            "container: my image.sif",
            "container: 'my image.sif' contains a space, as no image of Apptainer may",
        ),
        ("cache: [here]", "cache: expected text or a number"),
    )
]
