"""Recipes, as people write them: a graph of models, each made in exactly one way, and what is released from it.

Reading a recipe uses no network and imports no torch.
"""

from herdbook.recipe.card import SECTIONS, Card, HubKeys, Image
from herdbook.recipe.compress import (
    Compress,
    compressed_name,
    of_scheme,
    with_compressed,
    without_compressed,
)
from herdbook.recipe.dense import Dense, Merge, Modular
from herdbook.recipe.evaluate import (
    Asked,
    AskedSuite,
    AskedTask,
    Bounded,
    Evaluate,
    Suite,
    beside_suite,
    is_file,
    measured,
)
from herdbook.recipe.laser import Calibration, Guard, Laser, Select
from herdbook.recipe.merge import (
    Dare,
    Filtered,
    Linear,
    Mergekit,
    Passthrough,
    Slerp,
    TaskArithmetic,
    Ties,
)
from herdbook.recipe.moe import Expert, Mixture, Moe
from herdbook.recipe.places import located, with_recipe
from herdbook.recipe.publish import Publish, Waiver
from herdbook.recipe.rank import RankRule, SvdLlm, rank_rule
from herdbook.recipe.ranks import Bounds, Leaderboard
from herdbook.recipe.reading import (
    json_schema,
    load,
    parse,
    parse_suite,
    read_text,
    readable_models,
    readable_section,
)
from herdbook.recipe.release import LicenseWaiver, Release, Signer
from herdbook.recipe.search import Point, Search, Space
from herdbook.recipe.section import Section
from herdbook.recipe.source import Adapter, Folder, Hub, HubFile, Pypi
from herdbook.recipe.tokenizer import ModelToken, Tokenizer, Zero
from herdbook.recipe.whole import (
    Recipe,
    ancestry,
    keeper_of,
    parents,
    search_of,
    searched,
    tokenizer_of,
    without_searches,
)

__all__ = [
    "SECTIONS",
    "Adapter",
    "Asked",
    "AskedSuite",
    "AskedTask",
    "Bounded",
    "Bounds",
    "Calibration",
    "Card",
    "Compress",
    "Dare",
    "Dense",
    "Evaluate",
    "Expert",
    "Filtered",
    "Folder",
    "Guard",
    "Hub",
    "HubFile",
    "HubKeys",
    "Image",
    "Laser",
    "Leaderboard",
    "LicenseWaiver",
    "Linear",
    "Merge",
    "Mergekit",
    "Mixture",
    "ModelToken",
    "Modular",
    "Moe",
    "Passthrough",
    "Point",
    "Publish",
    "Pypi",
    "RankRule",
    "Recipe",
    "Release",
    "Search",
    "Section",
    "Select",
    "Signer",
    "Slerp",
    "Space",
    "Suite",
    "SvdLlm",
    "TaskArithmetic",
    "Ties",
    "Tokenizer",
    "Waiver",
    "Zero",
    "ancestry",
    "beside_suite",
    "compressed_name",
    "is_file",
    "json_schema",
    "keeper_of",
    "load",
    "located",
    "measured",
    "of_scheme",
    "parents",
    "parse",
    "parse_suite",
    "rank_rule",
    "read_text",
    "readable_models",
    "readable_section",
    "search_of",
    "searched",
    "tokenizer_of",
    "with_compressed",
    "with_recipe",
    "without_compressed",
    "without_searches",
]
