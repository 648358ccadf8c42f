"""Verification: check a release's statements against its own files and against its sources.

No statement of the release about itself may loosen a check: ``proofs`` lists what each field is derived from.
"""
