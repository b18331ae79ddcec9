"""The reference backend: pure PyTorch, any device and floating dtype, the definition of every operator.

Shapes of all functions: ``features`` is a list of Tensor[N, C, H_l, W_l] of one dtype, ``boxes`` Tensor[K, 5]
(image index, x1, y1, x2, y2 in image pixels) in the arithmetic dtype (float64 for float64 features, else
float32), and the last arguments are those of :class:`roi_ops.geometry.Geometry`. Gradients of features take
what :func:`roi_ops.maps.describe` tells of them. Every function is
differentiable by autograd in the tensors it is linear in and in the boxes: so second derivatives are made.
The compiled backends offer the same seven functions.
"""

from roi_ops.reference.linear import linear_backward_boxes, linear_backward_features, linear_forward
from roi_ops.reference.maximum import max_backward_boxes, max_backward_features, max_forward, max_gather

__all__ = [
    "linear_backward_boxes",
    "linear_backward_features",
    "linear_forward",
    "max_backward_boxes",
    "max_backward_features",
    "max_forward",
    "max_gather",
]
