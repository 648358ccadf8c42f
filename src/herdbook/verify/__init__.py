"""Verification: check a release's statements against its own files and against its sources.

Nothing that the release says of itself may loosen a check: ``proofs`` says what each field is derived from.
"""
