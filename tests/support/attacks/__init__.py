"""Attacks on releases: what is done to one, and what catches it.

One module a kind, whose ``CASES`` are rows of the tables in docs/verify.md: what is done to a folder; how; what catches it
(level, check, and what the subject holds); options, which are ``KEY`` where only who knows the key can tell.
"""

KEY = {"with_key": True}
