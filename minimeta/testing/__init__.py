"""Floor 7: how minimeta checks itself, for users' own layers and algorithms too.

``complex_step`` is the oracle: a directional derivative to rounding error, without a difference. ``checks`` states what a
layer, loss, objective or algorithm must satisfy. ``strategies`` draws them (needs hypothesis). ``strict`` is an array
module that refuses to mix with NumPy, as CuPy does.
"""

from .asserts import assert_close, assert_same
from .checks import check_algorithm, check_layer, check_loss, check_objective
from .complex_step import complex_step, real_difference
from .findings import CheckError

__all__ = [
    "CheckError", "assert_close", "assert_same", "check_algorithm", "check_layer", "check_loss", "check_objective",
    "complex_step", "real_difference",
]  # fmt: skip
