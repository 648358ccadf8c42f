"""Herdbook: reproducible releases of merged language models, with proof of what they are made from."""

__version__ = "0.10.0"
