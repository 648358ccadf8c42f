"""Signatures: bundles, keys, keyless identities, the manifest of a model."""
