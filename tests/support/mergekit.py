"""The real mergekit, which tests compare with; its requirements conflict with this program's, so it is installed separately."""

from herdbook.tools.external import Tool

MERGEKIT = Tool("mergekit", "0.1.5", "mergekit-yaml", "mergekit.scripts.run_yaml")

# Merges many configurations, which come as JSON with their folders, as mergekit-yaml does; one start for all. Its random numbers
# come from one stream for all tensors, ours do not, so both draw the same ones for each tensor here.
DRAW = 7
MERGE_ALL = f"""
import json, sys
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

def bernoulli(shares):
    drawn = torch.rand(shares.shape, generator=torch.Generator().manual_seed({DRAW}))
    return (drawn < shares).to(shares.dtype)

torch.set_num_threads(1)
torch.bernoulli = bernoulli
options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
for folder, config in json.load(sys.stdin):
    run_merge(MergeConfiguration.model_validate(config), folder, options)
"""


def merge_all(configs):
    """Make merges by mergekit; ``configs`` are by folder."""
    from support import tools  # which needs this module

    tools.with_mergekit(MERGE_ALL, [(str(folder), config) for folder, config in configs.items()])
