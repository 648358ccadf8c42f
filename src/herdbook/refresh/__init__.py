"""Refreshing a lock: what moved upstream, and what a build would rebuild because of it."""
