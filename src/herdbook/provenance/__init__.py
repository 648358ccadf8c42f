"""Provenance: the statement that a release carries about how and from what it was made."""
