"""Provenance: the statements in a release about how and from what it was made."""
