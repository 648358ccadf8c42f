"""The steps of a build: one package a rule."""
