"""Verification: proving that a release is what it says, from the release alone."""
