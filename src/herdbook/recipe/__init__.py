"""Recipes: what a person writes. A graph of models, each made in exactly one way, and what is released of it.

Reading a recipe touches no network and imports no torch.
"""

from herdbook.recipe.laser import Calibration, Laser, SvdLlm, spell_rank
from herdbook.recipe.merge import Filtered, Linear, Merge, Mergekit, ModelStock, Passthrough, Slerp
from herdbook.recipe.moe import Expert, Mixture, Moe
from herdbook.recipe.publish import Publish, Waiver
from herdbook.recipe.reading import json_schema, load, parse
from herdbook.recipe.release import Leaderboard, Release
from herdbook.recipe.section import Section
from herdbook.recipe.source import Adapter, Folder, Hub, Pypi
from herdbook.recipe.whole import Recipe, parents

__all__ = [
    "Adapter",
    "Calibration",
    "Expert",
    "Filtered",
    "Folder",
    "Hub",
    "Laser",
    "Leaderboard",
    "Linear",
    "Merge",
    "Mergekit",
    "Mixture",
    "ModelStock",
    "Moe",
    "Passthrough",
    "Publish",
    "Pypi",
    "Recipe",
    "Release",
    "Section",
    "Slerp",
    "SvdLlm",
    "Waiver",
    "json_schema",
    "load",
    "parents",
    "parse",
    "spell_rank",
]
