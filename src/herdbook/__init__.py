"""Herdbook: reproducible releases of merged language models, and proof of what they are made of."""

__version__ = "0.2.0"
