"""The card's front matter, which the Hub reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from herdbook import yamlio
from herdbook.architectures.modules import reads_images
from herdbook.errors import StepError
from herdbook.escape import Markdown, one_line
from herdbook.recipe import Adapter, Hub, Laser, Merge, Moe
from herdbook.steps.card.front_matter import check

if TYPE_CHECKING:
    from decimal import Decimal

    from herdbook.plan import Node, Plan
    from herdbook.quantization.scheme import Scheme
    from herdbook.recipe import Recipe, Section
    from herdbook.steps.card.results import Measurement

DECIMALS = 6  # of a result in the front matter
LINE_LENGTH = 110
FENCE = "---\n"


def build(recipe: Recipe, nodes: tuple[Node, ...], measured: Measurement | None) -> dict[str, Any]:
    """Return the front matter.

    Sources that are not on the Hub cannot be base models there, and are only listed in the card's lineage. The relation is
    ``merge`` for merges and Mixtures of Experts and ``finetune`` for a folded adapter; the Hub has no relation for LASER
    alone, so none is given.

    Args:
        recipe: The recipe.
        nodes: The released model and its ancestors, in the recipe's order.
        measured: The released model's measurement; None if it was not measured.
    """
    release, keys = recipe.release, recipe.card.hub.model_dump(exclude_defaults=True)
    sources = list(dict.fromkeys(filter(None, (_hub_id(node.recipe) for node in nodes))))
    mixed = any(isinstance(node.recipe, Moe) for node in nodes)
    adapted = any(isinstance(node.recipe, Adapter) for node in nodes)
    merged = any(isinstance(node.recipe, Merge) for node in nodes)
    cut = any(isinstance(node.recipe, Laser) for node in nodes)
    images = any(node.name == release.model and reads_images(node.config) for node in nodes)
    data: dict[str, Any] = {
        **({"language": list(release.language)} if release.language else {}),
        "license": release.license,
        **({"license_name": release.license_name} if release.license_name else {}),
        **({"license_link": release.license_link} if release.license_link else {}),
        "library_name": "transformers",
        "pipeline_tag": recipe.card.hub.pipeline_tag
        or ("image-text-to-text" if images else "text-generation"),
    }
    if sources:
        data["base_model"] = sources if len(sources) > 1 else sources[0]
        if mixed or merged or adapted:
            data["base_model_relation"] = "merge" if mixed or merged else "finetune"
    tags = [
        *(["merge"] if mixed or merged else []),
        *(["moe", "frankenmoe"] if mixed else []),
        *(["laser"] if cut else []),
        *(["lora"] if adapted else []),
    ]
    data["tags"] = list(dict.fromkeys([*tags, "herdbook", *recipe.card.hub.tags]))
    data |= {key: value for key, value in keys.items() if key not in data}
    if measured is not None:
        data["model-index"] = [{"name": release.name, "results": _results(measured)}]
    return data


def build_quantized(plan: Plan, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """Return the front matter of a repository with the quantized files alone: of the model that they were made from.

    Args:
        plan: The plan of that release.
        nodes: The released model and its ancestors, in the recipe's order.
    """
    data = build(plan.recipe, nodes, None)
    data.pop("new_version", None)
    kinds = ["gguf", *(["imatrix"] if plan.imatrix else [])]
    return data | {
        "library_name": "gguf",
        "base_model": plan.recipe.release.repo,
        "base_model_relation": "quantized",
        "quantized_by": (plan.repo or "").partition("/")[0],
        "tags": list(dict.fromkeys([*kinds, "herdbook", *plan.recipe.card.hub.tags])),
    }


def build_encoded(plan: Plan, nodes: tuple[Node, ...], scheme: Scheme) -> dict[str, Any]:
    """Return the front matter of a repository with the model in a format for GPU servers or Macs.

    Args:
        plan: The plan of that release.
        nodes: The released model and its ancestors, in the recipe's order.
        scheme: The format.
    """
    data = build(plan.recipe, nodes, None)
    data.pop("new_version", None)
    if repo := plan.recipe.release.repo:
        data |= {"base_model": repo, "base_model_relation": "quantized"}
    if plan.repo:
        data["quantized_by"] = plan.repo.partition("/")[0]
    if scheme.library == "mlx":
        data["library_name"] = scheme.library
    return data | {"tags": list(dict.fromkeys([*scheme.tags, "herdbook", *plan.recipe.card.hub.tags]))}


def _hub_id(model: Section) -> str | None:
    """Return the repository of a source on the Hub, or the one that the author states."""
    named = model.hub if isinstance(model, Hub) else getattr(model, "hub_id", None)
    return named.partition("@")[0] if named else None


def _results(measured: Measurement) -> list[dict[str, Any]]:
    return [
        {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {
                "name": one_line(result.title),
                "type": one_line(result.task),
                "args": {"documents": result.documents},
            },
            "metrics": [
                {
                    "type": score.kind,
                    "value": _number(score.value),
                    "name": one_line(score.name),
                    **({} if score.stderr is None else {"args": {"stderr": _number(score.stderr)}}),
                }
                for score in result.scores.values()
            ],
        }
        for result in measured.results.values()
    ]


def _number(value: Decimal) -> float:
    return float(round(value, DECIMALS))  # the nearest float prints with at most this number of decimals


def render(data: dict[str, Any]) -> Markdown:
    """Return the front matter as YAML between its two lines of dashes, after checking that it parses to the same data.

    Raises:
        StepError: If the Hub would not accept it.
    """
    check(data)
    body = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=LINE_LENGTH
    )
    text = f"{FENCE}{body}{FENCE}"
    if parse(text) != data:
        raise StepError("card: front matter: parses to other data than was written")
    return Markdown(text)


def parse(card: str) -> dict[str, Any]:
    """Read a card's front matter and check it.

    Args:
        card: The card's text, or its front matter alone.

    Raises:
        StepError: If the card has no front matter, or it is not YAML, has a duplicate key, or the Hub would not accept it.
    """
    body, end, _ = card.removeprefix(FENCE).partition("\n" + FENCE)
    if not card.startswith(FENCE) or not end:
        raise StepError("card: front matter: missing")
    try:
        data = yamlio.load(body)
    except yamlio.YamlError as error:
        raise StepError(f"card: front matter: {error}") from error
    if not isinstance(data, dict):
        raise StepError("card: front matter: is not a mapping")
    check(data)
    return data
