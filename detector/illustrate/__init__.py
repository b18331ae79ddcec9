"""The RoI operators drawn: the pictures of ``docs/roi_operators.md``.

Every number in a figure comes from ``roi_ops``: sample positions, neighbours and weights from its reference, results
from its public functions.
"""
