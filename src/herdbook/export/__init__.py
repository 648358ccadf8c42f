"""Exports: a release in the words of others."""
