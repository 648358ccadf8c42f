"""Weights files: their headers, bytes, digests and records."""
