"""Fetching sources: weights and the files beside them, each compared with its pin."""
