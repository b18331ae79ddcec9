"""The RoI operators drawn: what ``docs/roi_operators.md`` is illustrated with.

Every number in a figure comes from ``roi_ops``: sample positions, neighbours and weights from its reference, results
from its public functions.
"""

from detector.illustrate.anatomy import KINDS, TITLES, Anatomy, dissect
from detector.illustrate.figures import draw_matrices, draw_one_bin, draw_side_by_side, number_map
from detector.illustrate.motion import draw_motion, responses
from detector.illustrate.photograph import brightness, draw_photograph

__all__ = [
    "KINDS",
    "TITLES",
    "Anatomy",
    "brightness",
    "dissect",
    "draw_matrices",
    "draw_motion",
    "draw_one_bin",
    "draw_photograph",
    "draw_side_by_side",
    "number_map",
    "responses",
]
