"""Every figure is drawn here: training curves, sheets of images with their boxes, benchmark and study plots.

Figures are Matplotlib ``Figure`` objects on the Agg canvas: no pyplot, no display, no global style, so that drawing
inside somebody's notebook or training process changes nothing there.
"""

from detector.plots.ablation import plot_study
from detector.plots.benchmark import plot_benchmark
from detector.plots.comparison import draw_changes, plot_differences
from detector.plots.curves import plot_curves
from detector.plots.data import draw_augmentation, plot_data
from detector.plots.evaluation import plot_analysis
from detector.plots.sheet import draw_prediction_sheet

__all__ = [
    "draw_augmentation",
    "draw_changes",
    "draw_prediction_sheet",
    "plot_analysis",
    "plot_benchmark",
    "plot_curves",
    "plot_data",
    "plot_differences",
    "plot_study",
]
