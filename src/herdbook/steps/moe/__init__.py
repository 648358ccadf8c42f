"""Mixtures of Experts from dense models whose router was never trained with them (frankenMoEs)."""
