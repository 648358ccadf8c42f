"""Attesting: the claims about a release, and signatures of the claims and of the model."""
