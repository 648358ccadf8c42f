"""Explaining: why a build would make something again, or that it would not."""
