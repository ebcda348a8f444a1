"""Objectives: loss, gradient and Hessian-vector products at one phi."""

from .architectures import convnet, mini_imagenet_convnet, mlp, omniglot_convnet
from .derived import Derived
from .described import described, objective_in
from .network import Network, as_inputs
from .objective import NetworkPoint, Objective
from .polynomial import Polynomial, PolynomialPoint
from .protocols import (
    Batch,
    Cost,
    Differentiable,
    Examples,
    HasCost,
    HasEntropy,
    HasExamples,
    HasInputGradient,
    HasParts,
    HasPredictions,
    HasThirdDerivative,
    Point,
    Predicting,
    asked,
    check_generator,
    check_vectors,
    cost_of,
    part_of,
)
from .quadratic import Quadratic, QuadraticPoint
from .sphere import Sphere, SpherePoint

__all__ = [
    "Batch",
    "Cost",
    "Derived",
    "Differentiable",
    "Examples",
    "HasCost",
    "HasEntropy",
    "HasExamples",
    "HasInputGradient",
    "HasParts",
    "HasPredictions",
    "HasThirdDerivative",
    "Network",
    "NetworkPoint",
    "Objective",
    "Point",
    "Polynomial",
    "PolynomialPoint",
    "Predicting",
    "Quadratic",
    "QuadraticPoint",
    "Sphere",
    "SpherePoint",
    "as_inputs",
    "asked",
    "check_generator",
    "check_vectors",
    "convnet",
    "cost_of",
    "described",
    "mini_imagenet_convnet",
    "mlp",
    "objective_in",
    "omniglot_convnet",
    "part_of",
]
