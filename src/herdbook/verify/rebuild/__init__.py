"""Making things again: the levels `recomputed` and `rebuild`, and the workshop in which they work."""
