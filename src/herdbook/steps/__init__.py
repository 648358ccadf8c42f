"""The steps of a build: one package for each kind of step."""
