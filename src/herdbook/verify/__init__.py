"""Verification: check a release's statements against its own files and against its sources."""
