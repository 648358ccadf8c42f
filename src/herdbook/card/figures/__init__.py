"""Figures as SVG: self-contained, on a ground of their own so that they read on light and on dark pages alike."""

from herdbook.card.figures.lineage import Box, Edge, draw_lineage
from herdbook.card.figures.measurements import Panel, Row, draw_measurements

__all__ = ["Box", "Edge", "Panel", "Row", "draw_lineage", "draw_measurements"]
