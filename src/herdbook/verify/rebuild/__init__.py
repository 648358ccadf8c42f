"""The levels `recomputed` and `rebuild`, and the workspace in which they rerun steps."""
