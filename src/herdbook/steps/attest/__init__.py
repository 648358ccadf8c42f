"""Attesting: the claims about a release, and signatures of them and of the model."""
