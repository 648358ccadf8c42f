"""Merges of others: what can be said of one that only has a mergekit configuration in its card."""
