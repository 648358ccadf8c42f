"""Figures as SVG: self-contained, with a background of their own, so that they are legible on light and dark pages."""

from herdbook.figures.heatmap import draw_heatmap
from herdbook.figures.lineage import Box, Edge, draw_lineage
from herdbook.figures.losses import FilePoint, draw_losses
from herdbook.figures.measurements import MeasuredRow, Panel, draw_measurements
from herdbook.figures.spectrum import Cut, draw_spectrum

__all__ = [
    "Box",
    "Cut",
    "Edge",
    "FilePoint",
    "MeasuredRow",
    "Panel",
    "draw_heatmap",
    "draw_lineage",
    "draw_losses",
    "draw_measurements",
    "draw_spectrum",
]
