"""Making things again: the levels `recomputed` and `rebuild`, and the workspace in which they work."""
