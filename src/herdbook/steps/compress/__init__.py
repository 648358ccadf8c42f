"""Matrices in the formats for GPU servers and Macs: each format has a module of its own."""
