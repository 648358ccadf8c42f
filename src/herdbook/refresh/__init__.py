"""Refreshing a lock: what moved upstream, and what a build would make again for it."""
