"""The real mergekit, which tests compare with; its requirements conflict with this program's, so it is installed separately."""

from herdbook.tools.external import Tool

MERGEKIT = Tool("mergekit", "0.1.5", "mergekit-yaml", "mergekit.scripts.run_yaml")
