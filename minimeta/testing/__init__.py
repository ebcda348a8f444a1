"""The checks of minimeta, which also check users' own layers and algorithms.

``complex_step`` is the oracle: a directional derivative to rounding error,
without a difference. The files ``*_checks`` state the properties of a correct
layer, network, loss, objective, algorithm, inner rule or trajectory.
``oracles`` holds the definition of every algorithm, which its direction must
agree with. ``strategies`` draws random examples of these (needs hypothesis).
``without_hessian`` makes an objective first-order. ``strict`` is an array
module that refuses to mix with NumPy, as CuPy does.
"""

from .algorithm_checks import check_algorithm
from .asserts import assert_close, assert_same
from .complex_step import complex_step, real_difference
from .findings import CheckError
from .inner_checks import check_rule, check_trajectory
from .layer_checks import check_layer, check_network
from .objective_checks import check_loss, check_objective
from .without_hessian import without_hessian

__all__ = [
    "CheckError",
    "assert_close",
    "assert_same",
    "check_algorithm",
    "check_layer",
    "check_loss",
    "check_network",
    "check_objective",
    "check_rule",
    "check_trajectory",
    "complex_step",
    "real_difference",
    "without_hessian",
]
