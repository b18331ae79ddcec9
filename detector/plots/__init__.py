"""Primitives of all figures: canvas, colours, grids, boxes, labels, fonts. Each drawing lives beside what it draws.

Figures are Matplotlib ``Figure`` objects on the Agg canvas: no pyplot, no display, no global style, so that drawing
inside somebody's notebook or training process changes nothing there.
"""
