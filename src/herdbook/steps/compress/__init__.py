"""Matrices of linear layers in the formats of GPU servers."""
