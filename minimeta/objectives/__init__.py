"""Objectives: at this phi, on this mini-batch, what are the loss, the gradient, and the Hessian times a vector?"""

from .network import Network, as_inputs, mini_imagenet_convnet, mlp, omniglot_convnet
from .objective import (
    Altered,
    Batch,
    Differentiable,
    NetworkPoint,
    Objective,
    Point,
    Polynomial,
    PolynomialPoint,
    Quadratic,
    QuadraticPoint,
    Sphere,
    SpherePoint,
    check_vectors,
)

__all__ = [
    "Altered",
    "Batch",
    "Differentiable",
    "Network",
    "NetworkPoint",
    "Objective",
    "Point",
    "Polynomial",
    "PolynomialPoint",
    "Quadratic",
    "QuadraticPoint",
    "Sphere",
    "SpherePoint",
    "as_inputs",
    "check_vectors",
    "mini_imagenet_convnet",
    "mlp",
    "omniglot_convnet",
]
