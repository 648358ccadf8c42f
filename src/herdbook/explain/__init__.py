"""Explain: whether a build would run a job, and why."""
