"""The card, as far as it follows from the plan: its files, what it is made from, and its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from herdbook import licensing
from herdbook import lock as locks
from herdbook.files import sha256_file
from herdbook.key import digest
from herdbook.layout import (
    CARD,
    COMPARISONS,
    LINEAGE_FIGURE,
    MEASUREMENTS_FIGURE,
    NOTICE,
    ROUTING_FIGURE,
    SPECTRUM_FIGURE,
    eval_results,
    heat_map,
)
from herdbook.plan.code import DOCUMENTS, Code
from herdbook.plan.comparison import compared
from herdbook.plan.edition import Edition
from herdbook.plan.material import ancestry
from herdbook.recipe import Laser
from herdbook.tools.installed import card_templates, homepage

if TYPE_CHECKING:
    from pathlib import Path

    from herdbook.plan.model import Node
    from herdbook.plan.plan import Plan

# a card states Herdbook's version
CARD_CODE = Code("card", ("herdbook.steps.card.step", *DOCUMENTS), packages=("herdbook",))


def card_files(plan: Plan) -> list[str]:
    """Return the names of the files that make up a card, relative to its folder."""
    lasered = [node for node in ancestry(plan) if isinstance(node.recipe, Laser)]
    always = [
        CARD,
        NOTICE,
        *(name for source in plan.licensed for name in source.files),
        *([COMPARISONS] if compared(plan) else []),
    ]
    if plan.edition is Edition.GGUF or plan.edition.scheme:
        return always
    return [
        *always,
        LINEAGE_FIGURE,
        *([MEASUREMENTS_FIGURE] if plan.evaluations else []),
        *(eval_results(benchmark.task) for benchmark in plan.recipe.benchmarks),
        *([ROUTING_FIGURE] if plan.report and plan.report.texts else []),
        *(heat_map(node.name) for node in lasered),
        *([SPECTRUM_FIGURE] if any(map(shows_spectrum, lasered)) else []),
    ]


def card_inputs(plan: Plan) -> list[Path]:
    """Return the files that a card is made from."""
    return [
        plan.recipe_path,
        *(plan.layout.record(part) for node in described(plan) for part in node.parts),
        *(plan.layout.search(node.search) for node in described(plan) if node.search),
        *(plan.layout.evaluation(item) for item in plan.evaluations),
        *(plan.layout.samples(item) for item in compared(plan)),
        *([plan.layout.report(plan.report)] if plan.report else []),
        *(plan.layout.quantized_record(item) for item in plan.quantized),
        *(plan.layout.loss(item) for item in plan.losses),
        *(plan.beside_recipe(board.snapshot) for board in plan.recipe.leaderboards.values()),
        *(plan.beside_recipe(template.name) for template in plan.lock.templates.values()),
    ]


def card_key(plan: Plan) -> str:
    """Return the digest of everything that a card is made from: models, measurements, recipe, lock, code, templates."""
    folder = card_templates()
    templates = sorted(path for path in folder.rglob("*.j2"))
    return digest(
        {
            "models": {name: node.key for name, node in plan.nodes.items()},
            "evaluations": [item.key for item in plan.evaluations],
            "quantized": [item.key for item in plan.quantized],
            "losses": [item.key for item in plan.losses],
            "imatrix": plan.imatrix.key if plan.imatrix else None,
            "routing": plan.report.key if plan.report else None,
            "recipe": sha256_file(plan.recipe_path),
            "lock": sha256_file(locks.path_for(plan.recipe_path)),
            "code": CARD_CODE.describe().json,
            "licenses": sha256_file(licensing.PATH),
            "page": homepage(),
            "templates": {path.relative_to(folder).as_posix(): sha256_file(path) for path in templates},
        }
    )


def described(plan: Plan) -> tuple[Node, ...]:
    """Return the models whose records a card reads: the released one, and the lasered ones that it descends from."""
    return tuple(
        node for node in ancestry(plan) if node.name == plan.released.name or isinstance(node.recipe, Laser)
    )


def shows_spectrum(node: Node) -> bool:
    """Return whether a lasered model's records are sure to contain a spectrum: no search, and no rule that reads text."""
    cuts = any(tensor.action == "laser" for part in node.parts for tensor in part.tensors)
    return cuts and isinstance(node.recipe, Laser) and node.search is None and not node.recipe.reads_text
