"""Why each mutant that survives is no error."""

from __future__ import annotations

# For each reason: the functions, and the statements that their mutants have.
REASONS: dict[str, dict[str, list[str]]] = {
    "the axis has length 1": {
        "FiLM.backward": [
            "return (dx, {'context': dc[:, -1], 'weight': dW, 'bias': s[:, 0]})",
            "return (dx, {'context': dc[:, 0], 'weight': dW, 'bias': s[:, -1]})",
        ],
        "FiLM.backward_tangent": [
            ("return (dx_dot, {'context': dc_dot[:, -1], 'weight': dW_dot, 'bias': s_dot[:, 0]})"),
            ("return (dx_dot, {'context': dc_dot[:, 0], 'weight': dW_dot, 'bias': s_dot[:, -1]})"),
        ],
        "FiLM._halves": [
            "return (both[:, -1, :self.channels], both[:, 0, self.channels:])",
            "return (both[:, 0, :self.channels], both[:, -1, self.channels:])",
        ],
        "kernels.channel_sums": [
            "return (_ones(a) @ a)[:, -1]",
        ],
        "QuadraticPoint.__init__": [
            "slopes = (matrices @ offset[..., None])[..., -1]",
        ],
        "SpherePoint.__init__": [
            "self.loss = ((distance - radii) ** 2)[..., -1].mean(axis=1) / 2",
        ],
        "QuadraticPoint.hvp": [
            "return (self._hessian @ v[..., None])[..., -1]",
        ],
        "PolynomialPoint.__init__": [
            "self._u = (directions @ phi[..., None])[..., -1]",
        ],
        "Entropy.forward": [
            "return ((log_sum - mean)[..., -1].mean(axis=1), (p, shifted - mean))",
        ],
        "PolynomialPoint._onto": [
            "return (self._directions @ v[..., None])[..., -1]",
        ],
    },
    "this pass does not use theta, nor the cache": {
        "Context.backward_tangent": [
            "return self.backward(theta_dot, cache, dy_dot)",
            "return self.backward(theta, cache_dot, dy_dot)",
        ],
    },
    "this pass does not use theta": {
        "Dense.backward_tangent": [
            "return self.backward(theta_dot, x, dy_dot, on_data)",
        ],
        "MaxPool2D.backward_tangent": [
            "return self.backward(theta_dot, cache, dy_dot)",
        ],
    },
    "used twice in one pass, or in a function and in its derivative: the two signs cancel": {
        "kernels.beside": [
            "return -parts[0]",
        ],
    },
    "an optimization: it spares a copy, or work whose result is not used": {
        "kernels.channel_combination": [
            "if True:",
            "total, ours = (_plus(total, term, ours), False)",
        ],
        "kernels.product_sum": [
            "total = _plus(total, term, False)",
        ],
        "kernels._shifted": [
            "if True:",
            "if False:",
            "if total.size > _LARGE:",
            "if total.size <= _LARGE:",
        ],
        "kernels._plus": [
            "if False:",
            "if ours and total.dtype != term.dtype:",
        ],
        "kernels.beside": [
            "if False:",
            "if len(parts) == 0:",
            "if True:",
            "if len(tasks) >= 1:",
            "if len(tasks) > 0:",
        ],
        "kernels.channel_sums": [
            "if True:",
            "if a.ndim != 2:",
        ],
        "network._views": [
            (
                "return tuple(({name: rows[:, place].reshape(count, *shape) for name, place, "
                "shape in of_layer} for of_layer in slots))"
            ),
            (
                "return tuple(({name: rows[:, place] if len(shape) == 0 else rows[:, place]"
                ".reshape(count, *shape) for name, place, shape in of_layer} for of_layer in "
                "slots))"
            ),
        ],
        "kernels._then": [
            "return array_module(y).concatenate([y, rest], axis=axis)",
            (
                "return array_module(y).concatenate([y, rest], axis=axis) if rest.shape[axis "
                "- 1] else y"
            ),
        ],
        "NetworkPoint._gradients": [
            "if True:",
            (
                "self._backward = self._network.backward(self._theta, self._caches, dz, "
                "on_data=False)[1:]"
            ),
        ],
        "NetworkPoint.hvp": [
            (
                "z_dot, caches_dot = network.forward_tangent(theta, theta_dot, self._caches, "
                "x_dot, on_data=False)"
            ),
        ],
        "Trajectory.pullback": [
            "dstate, dlr = (None, RateGradient(self.rule.lr))",
            "return (v, dlr.total(v))",
        ],
        "trajectory._back_one": [
            "if True:",
        ],
        "MAML.direction": [
            "direction, _ = trajectory.pullback(grad, rates=True)",
        ],
        "TAML.direction": [
            "direction, _ = trajectory.pullback(grad, rates=True)",
        ],
        "EntropyTAML.direction": [
            "direction, _ = trajectory.pullback(grad, rates=True)",
        ],
    },
    "an optimization: on_data changes no result (check_layer sees that)": {
        "Dense.forward_tangent": [
            "if True:",
        ],
        "Dense.backward_tangent": [
            "if False:",
        ],
        "Conv2D.backward": [
            "dx = self._transpose(cache, (dy, self._matrix(theta)))",
        ],
        "Conv2D.forward_tangent": [
            "patches_dot = patches(x_dot, self.kernel, self.stride)",
        ],
        "Network.backward": [
            "if False:",
            "if on_data and i == -1:",
            "dy, dthetas[i] = theta.stages[i].backward(*given, on_data=False)",
        ],
        "Network.forward_tangent": [
            "if False:",
            "if on_data and i == -1:",
            "x_dot, cache_dot = stage.forward_tangent(*given, on_data=False)",
        ],
    },
    "a default that is never read": {
        "kernels.channel_combination": [
            "total, ours = (None, True)",
        ],
    },
    "would give an argument itself for a copy of it; test_kernels.py sees it": {
        "kernels.channel_combination": [
            "if False:",
        ],
    },
    "pairs are pairs, of arrays of one module": {
        "kernels.patches_transpose": [
            "a, b = (beside(each) for each in zip(*pairs, strict=False))",
        ],
        "kernels.beside": [
            "return parts[-1]",
            "xp, tasks = (array_module(parts[1]), set(map(len, parts)))",
            "xp, tasks = (array_module(parts[-1]), set(map(len, parts)))",
        ],
    },
    "for a network without parameters; test_network.py sees it": {
        "network._as_rows": [
            "if False:",
            "return array_module(like).empty((tasks, 1), dtype=like.dtype)",
            "return array_module(like).empty((tasks, -1), dtype=like.dtype)",
            "return -array_module(like).empty((tasks, 0), dtype=like.dtype)",
            "return 2.0 * array_module(like).empty((tasks, 0), dtype=like.dtype)",
        ],
    },
    "the arrays of a sum, an array and its dot, and lists by stage have one shape": {
        "kernels.channel_combination": [
            "shape = terms[-1][1].shape",
            "given = (terms[-1][1], *(each for term in terms for each in term), shift)",
        ],
        "BatchNorm.backward_tangent": [
            "(u, r), (u_dot, r_dot), P = (cache, cache_dot, _count(dy_dot))",
        ],
        "network._as_rows": [
            (
                "parts = [dtheta[name].reshape(tasks, -1) for stage, dtheta in zip(stages, "
                "dthetas, strict=False) for name in stage.shapes]"
            ),
        ],
    },
    "an optimization: where the inner axis has length 1, a * b is a @ b": {
        "kernels.product_sum": [
            "term = a @ b",
            "term = a * b if a.shape[-1] == 0 else a @ b",
        ],
    },
    "p_target is 1 less the others; only digits near 1 are lost, which test_losses.py sees": {
        "SoftmaxCrossEntropy.backward": [
            "others = p",
        ],
    },
    "any shift of z_dot cancels; a certain class loses digits (test_losses.py sees that)": {
        "softmax.from_likeliest": [
            "return v + array_module(p).take_along_axis(v, likeliest, axis=-1)",
            "return v",
        ],
    },
    "an array of one axis: its first is its last": {
        "LogVariance.gradient": [
            "return 2 * self._centred(x) / (x.shape[-1] * x)",
        ],
        "inequality._relative": [
            "if x.ndim != 1 or x.shape[-1] == 0:",
            "return (x / mu, x.shape[-1] * mu)",
        ],
    },
    "a quadratic's matrices are symmetric": {
        "QuadraticPoint.__init__": [
            "slopes = (matrices.swapaxes(-1, -2) @ offset[..., None])[..., 0]",
        ],
        "QuadraticPoint.hvp": [
            "return (self._hessian.swapaxes(-1, -2) @ v[..., None])[..., 0]",
        ],
    },
    "twice zero": {
        "PolynomialPoint._derivative": [
            "value = 2.0 * (0 * self._u)",
        ],
    },
    "where s is 0 so is m^, a factor of what is divided: the divisor does not matter": {
        "Adam._root_slope_divisor": [
            "return array_module(s).where(s == 0, 2, s * (s + self.eps))",
        ],
    },
    "makes a step more than is needed, or the same steps; test_trajectory.py counts them": {
        "_Checkpoints._segment": [
            ("way = part.part(0, len(part.minibatches) + 1).stored(*self.starts[i], 'iterates')"),
            "way = part.part(0, len(part.minibatches)).stored(*self.starts[i], 'iterates')",
            "way = part.part(0, -1).stored(*self.starts[i], 'iterates')",
            ("way = part.part(0, len(part.minibatches) - 0).stored(*self.starts[i], 'iterates')"),
        ],
    },
    "at a bound, clipping to it changes nothing": {
        "adml.fgsm": [
            "x = xp.where(x.real <= low, float(low), x)",
            "return (xp.where(x.real >= high, float(high), x), batch[1])",
        ],
    },
    "refuses a box with no room; test_adml.py sees the refusal": {
        "adml.fgsm": [
            "pass",
        ],
    },
    "refuses a v that does not fit; test_network.py sees the refusal": {
        "NetworkPoint.hvp": [
            "pass",
        ],
    },
    "refuses another shape; test_inequality.py and test_losses.py see the refusal": {
        "inequality._relative": [
            "if False:",
            "if x.ndim != 1 or x.shape[0] == -1:",
        ],
        "Entropy.forward": [
            "if False:",
        ],
    },
    "refuses an empty meta-batch, which has no derivative; tests/algorithms see the refusal": {
        "base.unrolled": [
            "pass",
        ],
        "ADML.direction": [
            "pass",
        ],
        "FOMAML.direction": [
            "pass",
        ],
        "Reptile.direction": [
            "pass",
        ],
    },
    "refuses a single mini-batch; test_imaml.py and test_taml.py see the refusal": {
        "IMAML.direction": [
            "if False:",
            "if len(minibatches) < 1:",
        ],
        "EntropyTAML.direction": [
            "if False:",
            "if len(minibatches) < 1:",
        ],
    },
    "refuses a part that is not there, and several rates; test_family.py sees the refusal": {
        "base.only_on": [
            "if False:",
            "if place == slice(1, 0):",
            "if place == slice(-1, 0):",
            "if place == slice(0, -1):",
        ],
    },
    "refuses a meta of another shape; test_family.py sees the refusal": {
        "MetaSGD.problem": [
            "if False:",
        ],
    },
    "leaves out the last mini-batch, which is left out already": {
        "FOMAML.direction": [
            "phi, state, _ = descend(descended, phi, minibatches[:-1][:last], rule, state)",
        ],
        "IMAML.direction": [
            "phi, state, _ = descend(regularized, phi, minibatches[:-1][:last], rule, state)",
            "train = regularized.at(phi, minibatches[:-1][last - 1])",
        ],
    },
    "an optimization: with beta1 = 0, g is m' to the last bit": {
        "kernels.adam_moments": [
            "return ((1 - beta1) * g, square)",
            "return (g if beta1 == 1 else (1 - beta1) * g, square)",
            "return (g if beta1 == -1 else (1 - beta1) * g, square)",
            "return (beta1 * m + (1 - beta1) * g, beta2 * v + square)",
            "return (g if beta1 == 1 else beta1 * m + (1 - beta1) * g, beta2 * v + square)",
            "return (g if beta1 == -1 else beta1 * m + (1 - beta1) * g, beta2 * v + square)",
        ],
    },
    "only rounding makes a sum of squares negative; test_inner.py sees it": {
        "Adam.merge": [
            (
                "v = one_after_another(self.beta2, v0, xp.maximum(states.v - self.beta2 ** k * v0, "
                "-1))"
            ),
        ],
    },
    "for logits near the largest of a dtype; test_losses.py sees it": {
        "Entropy.forward": [
            "shifted = shifted.astype(z.dtype, copy=False)",
            (
                "shifted = array_module(z).where(p == 1, _NEVER, shifted).astype(z.dtype, "
                "copy=False)"
            ),
            (
                "shifted = array_module(z).where(p == -1, _NEVER, shifted).astype(z.dtype, "
                "copy=False)"
            ),
        ],
    },
    "an optimization: it spares a copy that is not used": {
        "Entropy.forward": [
            ("shifted = array_module(z).where(p == 0, _NEVER, shifted).astype(z.dtype, copy=True)"),
        ],
    },
    "an optimization: 1 divides nothing": {
        "kernels.adam_update": [
            "return (phi - rate * (m / c1 / root), m, v)",
            "return (phi - rate * ((m if c1 == 2 else m / c1) / root), m, v)",
            "return (phi - rate * ((m if c1 == 0 else m / c1) / root), m, v)",
        ],
        "Adam._after": [
            "return (m / c1, array_module(v).sqrt(v * (1 / c2)), c1, c2)",
            "return (m if c1 == 2 else m / c1, array_module(v).sqrt(v * (1 / c2)), c1, c2)",
            "return (m if c1 == 0 else m / c1, array_module(v).sqrt(v * (1 / c2)), c1, c2)",
        ],
    },
    "the index of the last, counted from the end": {
        "IMAML.direction": [
            "last = -1",
        ],
    },
    "matters only for a g of 0, whose first curvature is 0 too: the task rests all the same": {
        "conjugate_gradients": [
            "live = ~(square.real < enough)",
        ],
    },
    "a quotient that is not used; the divisor only spares a warning": {
        "conjugate_gradients": [
            "length = xp.where(live, square / curvature, at_rest)",
            "length = xp.where(live, square / xp.where(live, curvature, 2), at_rest)",
            "length = xp.where(live, square / xp.where(live, curvature, 0), at_rest)",
            "turn = xp.where(live, square / before, 0.0)",
            "turn = xp.where(live, square / xp.where(live, before, 2), 0.0)",
            "turn = xp.where(live, square / xp.where(live, before, 0), 0.0)",
        ],
        "agreement_weights": [
            "return xp.where(total == 0, xp.ones_like(s) / len(s), s / total)",
            (
                "return xp.where(total == 0, xp.ones_like(s) / len(s), s / xp.where(total == "
                "1, xp.ones_like(total), total))"
            ),
            (
                "return xp.where(total == 0, xp.ones_like(s) / len(s), s / xp.where(total == "
                "-1, xp.ones_like(total), total))"
            ),
        ],
    },
    "the direction of a task at rest: its steps have length 0": {
        "conjugate_gradients": [
            "turn = square / xp.where(live, before, 1)",
            "turn = xp.where(live, square / xp.where(live, before, 1), 1.0)",
            "turn = xp.where(live, square / xp.where(live, before, 1), -1.0)",
        ],
    },
    "a factor that all tasks share cancels in the weights": {
        "agreement_weights": [
            "s = 2.0 * (per_task @ per_task.sum(axis=0))",
            "s = per_task @ per_task.mean(axis=0)",
        ],
    },
    "a number that is spread over the tasks": {
        "agreement_weights": [
            (
                "return xp.where(total == 0, 1 / len(s), s / xp.where(total == 0, "
                "xp.ones_like(total), total))"
            ),
        ],
    },
}
# The same for the twins (mutation_twins.py).
REASONS_OF_TWINS: dict[str, dict[str, list[str]]] = {
    "the loop goes through all places, only from another one on": {
        "host_kernels._sums": [
            "part[c] += a[t, p - 1, c]",
        ],
        "host_kernels._convolve": [
            "rows[p - 1, c] = constant[c]",
        ],
        "host_kernels._add_shift": [
            "y[t, p - 1, c] += constant[c]",
        ],
        "host_perceptron.gradient": [
            "dW[k - 1] = 0",
        ],
        "host_perceptron.column_sums": [
            "sums[j - 1] = 0",
        ],
        "host_norm.forward_tangent_of_task": [
            "sums[1, c] += moving[p - 1, c]",
        ],
        "host_norm._moments": [
            "found[part, c - 1] *= share",
            "mean[c - 1] = 0",
            "square[c - 1] = 0",
        ],
    },
    "an optimization: it spares a reshape that changes nothing": {
        "host_kernels._rows": [
            "if True:",
            "if a.ndim != 2:",
        ],
    },
    "an array and its dot, and all arrays of a call, have one dtype and shape": {
        "host_kernels.channel_combination": [
            "shape, dtype = (terms[-1][1].shape, terms[0][1].dtype)",
            "shape, dtype = (terms[0][1].shape, terms[-1][1].dtype)",
            "total = np.empty(given[-1][1].shape, dtype)",
        ],
        "host_kernels.product_sum": [
            "(a, b), dtype = (pairs[-1], pairs[0][0].dtype)",
            "(a, b), dtype = (pairs[0], pairs[-1][0].dtype)",
            "(a, b), dtype = (pairs[0], pairs[0][1].dtype)",
            "(a, b), dtype = (pairs[0], pairs[0][-1].dtype)",
        ],
        "host_perceptron.backward_tangent": [
            "dphi_dot = np.empty((tasks, phi_dot.shape[1]), dtype)",
        ],
        "host_perceptron._backward_tangent": [
            ("into, place, at, below = (dphi_dot[t], row_dot.shape[0], e.shape[1], a.shape[1])"),
            ("into, place, at, below = (dphi_dot[t], row.shape[0], e.shape[1], a_dot.shape[1])"),
        ],
        "host_norm.forward_tangent": [
            "x_dot, y_dot = (contiguous(x_dot), np.empty(chosen.shape, x_dot.dtype))",
            "mu_dot, r_dot = np.empty((2, *r.shape), x_dot.dtype)",
            (
                "_forward_tangent(x_dot.dtype, pixels_together(x.shape), *moving, mu_dot, r"
                "_dot, _images(y_dot))"
            ),
            (
                "_forward_tangent(x.dtype, pixels_together(x_dot.shape), *moving, mu_dot, r"
                "_dot, _images(y_dot))"
            ),
        ],
        "host_norm.backward_tangent": [
            (
                "dx_dot, (dgamma_dot, dbeta_dot) = (np.empty(x_dot.shape, x.dtype), np.empt"
                "y((2, *r.shape), x.dtype))"
            ),
            (
                "dx_dot, (dgamma_dot, dbeta_dot) = (np.empty(x.shape, x_dot.dtype), np.empt"
                "y((2, *r.shape), x.dtype))"
            ),
            (
                "dx_dot, (dgamma_dot, dbeta_dot) = (np.empty(x.shape, x.dtype), np.empty((2"
                ", *r_dot.shape), x.dtype))"
            ),
            (
                "dx_dot, (dgamma_dot, dbeta_dot) = (np.empty(x.shape, x.dtype), np.empty((2"
                ", *r.shape), x_dot.dtype))"
            ),
            ("_backward_tangent(x_dot.dtype, pixels_together(x.shape), *given, *pulled, *made)"),
            ("_backward_tangent(x.dtype, pixels_together(x_dot.shape), *given, *pulled, *made)"),
        ],
        "host_norm._forward_tangent": [
            "for t in range(x_dot.shape[0]):",
        ],
        "host_norm._backward_tangent": [
            "dx = np.empty(x_dot.shape[1:], x.dtype)",
            "dx = np.empty(x.shape[1:], x_dot.dtype)",
            "for t in range(x_dot.shape[0]):",
        ],
        "host_norm.forward_tangent_of_task": [
            (
                "rows, moving, channels = (_rows(x, together), _rows(x_dot, together), mu_d"
                "ot.shape[0])"
            ),
            "sums = np.zeros((2, width), x_dot.dtype)",
            (
                "factors, a, a_dot, m, m_dot, shift = (np.empty((5, width), x_dot.dtype), 0"
                ", 1, 2, 3, 4)"
            ),
            "pooled = chosen.shape != x_dot.shape",
            "z_dot = np.empty(x_dot.shape, x.dtype) if pooled else y_dot",
            "z_dot = np.empty(x.shape, x_dot.dtype) if pooled else y_dot",
        ],
        "host_norm.backward_tangent_of_task": [
            (
                "rows, moving, channels = (_rows(x, together), _rows(x_dot, together), mu_d"
                "ot.shape[0])"
            ),
            "factors = np.empty((8, width), x_dot.dtype)",
            (
                "sums, sigma, total, sigma_dot, total_dot = (np.zeros((8, width), x_dot.dty"
                "pe), 0, 1, 2, 3)"
            ),
        ],
        "kernels.alike": [
            "dtype = arrays[1].dtype",
            "dtype = arrays[-1].dtype",
        ],
    },
    "one term: the first is the last": {
        "host_kernels.channel_combination": [
            "_combine_one(dtype, *given[-1], shift, total)",
        ],
    },
    "a guard: no function writes there": {
        "host_kernels._one_for_all": [
            "constant.flags.writeable = True",
        ],
    },
    "an array of one axis: its first is its last": {
        "host_kernels.fill": [
            "for c in range(into.shape[-1]):",
            "into[c] = row[c if row.shape[-1] > 1 else 0]",
        ],
        "host_kernels._masked": [
            "for i in range(a.shape[-1]):",
        ],
        "host_blas._add_by_loops": [
            "for j in range(row.shape[-1]):",
        ],
        "host_perceptron._backward": [
            "place, at, below = (row.shape[-1], e.shape[1] - dy.shape[1], a.shape[1])",
        ],
        "host_perceptron._backward_tangent": [
            "into, place, at, below = (dphi_dot[t], row.shape[-1], e.shape[1], a.shape[1])",
        ],
        "host_perceptron._dot": [
            "size = a.shape[-1]",
        ],
        "host_perceptron.copy": [
            "for i in range(into.shape[-1]):",
        ],
        "host_perceptron._rectify": [
            "for i in range(values.shape[-1]):",
        ],
        "host_perceptron._mask": [
            "for i in range(values.shape[-1]):",
        ],
    },
    "the axis has length 1": {
        "host_kernels.fill": [
            "into[c] = row[c if row.shape[0] > 1 else -1]",
        ],
        "host_rows.of_task": [
            "return a[t if a.shape[0] > 1 else -1]",
        ],
    },
    "an optimization: with beta1 = 0, g is m' to the last bit": {
        "host_kernels._adam": [
            "if False:",
            "if beta1 == 1:",
            "if beta1 == -1:",
        ],
    },
    "an optimization: it spares a copy, or makes one that changes nothing": {
        "Patches.__init__": [
            "self.x = np.ascontiguousarray(x)",
        ],
        "host_kernels._matrices": [
            ("rows_are = b.strides[2] != b.itemsize and b.strides[1] == b.shape[2] * b.itemsize"),
            ("rows_are = b.strides[1] == b.itemsize and b.strides[1] == b.shape[2] * b.itemsize"),
            ("rows_are = b.strides[2] == b.itemsize and b.strides[2] == b.shape[2] * b.itemsize"),
            ("rows_are = b.strides[2] == b.itemsize and b.strides[0] == b.shape[2] * b.itemsize"),
            ("rows_are = b.strides[2] == b.itemsize and b.strides[1] == b.shape[2] / b.itemsize"),
            "rows_are = b.strides[2] == b.itemsize and b.strides[1] == b.shape[2]",
            "rows_are = b.strides[2] == b.itemsize and b.strides[1] == b.itemsize",
            (
                "rows_are = b.strides[2] == b.itemsize and b.strides[1] == 2.0 * (b.shape[2"
                "] * b.itemsize)"
            ),
            ("rows_are = b.strides[2] == b.itemsize and b.strides[1] == b.shape[1] * b.itemsize"),
            "return np.ascontiguousarray(b)",
        ],
        "kernels.alike": [
            "if False:",
            "if all((each.dtype != dtype for each in arrays)):",
        ],
        "host_rows.contiguous": [
            "taken = type(a) is not np.ndarray and a.flags.c_contiguous",
            "return np.ascontiguousarray(a)",
        ],
    },
    "the transposed patches are the transposed array, which takes longer": {
        "Patches.swapaxes": [
            "if True:",
            "if {one, other} != {2, 2}:",
            "if {one, other} != {1, 3}:",
            "if {one, other} != {1, 1}:",
        ],
    },
    "NumPy converts what __array__ gives": {
        "Patches.__array__": [
            "return np.asarray(seen, None)",
        ],
        "PatchesTransposed.__array__": [
            "return np.asarray(self.patches, None).swapaxes(1, 2)",
        ],
    },
    "only the first numbers of the slice are read or written": {
        "host_kernels._gather": [
            "into = seen[g * wide + q, i * run:]",
            "into = seen[g * wide + q, i * run:(i + 2) * run]",
            "source = x[n, row, start:]",
        ],
        "host_kernels._scatter": [
            "source = seen[g * wide + q, i * run + low:]",
            "into = x[n, row, start + low:]",
        ],
        "host_perceptron._forward": [
            "W, b = (row[place:], row[place + n * m:place + (n + 1) * m])",
            "W, b = (row[place:place + n * m], row[place + n * m:])",
            "W, b = (row[place:place + n * m], row[place + n * m:place + (n + 2) * m])",
        ],
        "host_perceptron._backward": [
            "source, W = (a[t, below:], row[place:place + n * m])",
            "source, W = (a[t, below:below + count * n], row[place:])",
            "gradient(address, count, n, m, source, above, 0, into[place:])",
            "column_sums(count, m, above, into[place + n * m:])",
            "column_sums(count, m, above, into[place + n * m:place + (n + 2) * m])",
        ],
        "host_perceptron._forward_tangent": [
            "W, W_dot = (row[place:], row_dot[place:place + n * m])",
            "W, W_dot = (row[place:place + n * m], row_dot[place:])",
            "b_dot = row_dot[place + n * m:]",
            "b_dot = row_dot[place + n * m:place + (n + 2) * m]",
            "source = a[t, at - count * n:]",
            "_mask(a[t, at:], into)",
        ],
        "host_perceptron._backward_tangent": [
            "above, source = (e[t, at:], a[t, below:below + count * n])",
            "above, source = (e[t, at:at + count * m], a[t, below:])",
            "W, W_dot = (row[place:], row_dot[place:place + n * m])",
            "W, W_dot = (row[place:place + n * m], row_dot[place:])",
            "dW_dot = into[place:]",
            "source_dot = a_dot[t, below:]",
            "column_sums(count, m, above_dot, into[place + n * m:])",
            "column_sums(count, m, above_dot, into[place + n * m:place + (n + 2) * m])",
        ],
        "host_perceptron.affine": [
            "row = y[i * m:]",
            "row = y[i * m:(i + 2) * m]",
        ],
        "host_perceptron.add_product": [
            "row, factor = (y[i * m:], a[i])",
            "row, factor = (y[i * m:(i + 2) * m], a[i])",
        ],
        "host_perceptron.gradient": [
            "row, factor = (a[i * n:], e[i])",
            "row, factor = (a[i * n:(i + 2) * n], e[i])",
            "row, factor = (e[i * m:], a[i])",
            "row, factor = (e[i * m:(i + 2) * m], a[i])",
        ],
        "host_perceptron.pulled": [
            "row, factor = (before[i * n:], e[i])",
            "row, factor = (before[i * n:(i + 2) * n], e[i])",
        ],
        "host_perceptron.column_sums": [
            "row = e[i * m:]",
            "row = e[i * m:(i + 2) * m]",
        ],
    },
    "an optimization: the general way gives the same numbers": {
        "host_kernels._gather": [
            "if True:",
            "if not inside or start <= 0 or start + run > line:",
            "if not inside or start < 1 or start + run > line:",
            "if not inside or start < 0 or start + run >= line:",
            "if False:",
            "if run > 16:",
            "if run <= 16:",
            "if run < 17:",
            "if run < 15:",
        ],
        "host_kernels.product_sum": [
            "if True:",
            "if False:",
            "term = a @ b",
            "term = a * b if a.shape[-1] == 0 else a @ b",
            (
                "if shift.ndim != 2 and shift.shape[1] == total.shape[2] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 3 and shift.shape[1] == total.shape[2] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 1 and shift.shape[1] == total.shape[2] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[1] != total.shape[2] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[0] == total.shape[2] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[1] == total.shape[1] and (len(shift) in"
                " (1, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[1] == total.shape[2] and (len(shift) no"
                "t in (1, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[1] == total.shape[2] and (len(shift) in"
                " (2, len(total))):"
            ),
            (
                "if shift.ndim == 2 and shift.shape[1] == total.shape[2] and (len(shift) in"
                " (0, len(total))):"
            ),
        ],
        "host_kernels._follow": [
            "if True:",
            "if type(a) is np.ndarray or len(pairs) >= 2:",
            "if type(a) is np.ndarray or len(pairs) > 1:",
            "matrices = (tasks,)",
            "matrices = (tasks,) if isinstance(a, PatchesTransposed) else (0, tasks)",
            (
                "fit = all((type(each) is not type(a) and each.shape == a.shape and (each.g"
                "eometry == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices"
                ") and (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs)"
                ")"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape != a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try != a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim != 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 4) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 2) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] != (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[2:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[0:] == (inner, b.shape[2])) for each, matrix in pairs))"
            ),
            (
                "fit = all((type(each) is type(a) and each.shape == a.shape and (each.geome"
                "try == a.geometry) and (matrix.ndim == 3) and (len(matrix) in matrices) an"
                "d (matrix.shape[1:] == (inner, b.shape[1])) for each, matrix in pairs))"
            ),
            (
                "return fit and (shift is None or (shift.shape[1:] != (b.shape[2],) and len"
                "(shift) in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[:] == (b.shape[2],) and len("
                "shift) in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[2:] == (b.shape[2],) and len"
                "(shift) in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[0:] == (b.shape[2],) and len"
                "(shift) in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[1:] == (b.shape[1],) and len"
                "(shift) in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[1:] == (b.shape[2],) and len"
                "(shift) not in (1, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[1:] == (b.shape[2],) and len"
                "(shift) in (2, tasks)))"
            ),
            (
                "return fit and (shift is None or (shift.shape[1:] == (b.shape[2],) and len"
                "(shift) in (0, tasks)))"
            ),
        ],
        "host_perceptron.add_product": [
            "if False:",
            "if n == 0:",
            "if m == 0:",
        ],
        "host_perceptron.gradient": [
            "if True:",
            "if n >= 1 and m > 1:",
            "if n > 0 and m > 1:",
            "if n > 1 and m >= 1:",
            "if n > 1 and m > 0:",
        ],
        "host_perceptron.pulled": [
            "if True:",
            "if m >= 1:",
            "if m > 0:",
        ],
        "kernels._adam_twin": [
            "twin = None",
        ],
        "host_kernels._convolve_transpose": [
            "if False:",
            "if stride == 0 and dy.shape[2] == dz.shape[2]:",
            "if stride == 1 and dy.shape[1] == dz.shape[2]:",
            "if stride == 1 and dy.shape[2] == dz.shape[1]:",
        ],
    },
    "blocks of another size give the same sums": {
        "host_kernels._rows_together": [
            "return max(2, min(lines, ROWS // wide))",
            "return max(1, min(lines, ROWS % wide))",
            "return max(1, min(lines, ROWS))",
        ],
        "host_kernels._convolve_transpose": [
            "together = max(2, min(lines, BLOCK // max(1, wide * width * x.itemsize)))",
            "together = max(1, min(lines, BLOCK % max(1, wide * width * x.itemsize)))",
            "together = max(1, min(lines, BLOCK))",
            "together = max(1, min(lines, BLOCK // max(2, wide * width * x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(0, wide * width * x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(1, wide * width / x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(1, wide * width)))",
            "together = max(1, min(lines, BLOCK // max(1, x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(1, wide / width * x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(1, wide * x.itemsize)))",
            "together = max(1, min(lines, BLOCK // max(1, width * x.itemsize)))",
        ],
    },
    "all pairs have the shape of one, whichever it is": {
        "host_kernels._follow": [
            "a, b = pairs[-1]",
        ],
    },
    "a truth, of another size": {
        "host_kernels._follow": [
            (
                "return -(fit and (shift is None or (shift.shape[1:] == (b.shape[2],) and l"
                "en(shift) in (1, tasks))))"
            ),
            (
                "return 2.0 * (fit and (shift is None or (shift.shape[1:] == (b.shape[2],) "
                "and len(shift) in (1, tasks))))"
            ),
        ],
    },
    "loops and BLAS give the same product, also of empty matrices": {
        "host_blas.gemm": [
            "if False:",
            "if address != 0 and m < 0 and (n > 0) and (k > 0):",
            "if address != 0 and m > 1 and (n > 0) and (k > 0):",
            "if address != 0 and m > 0 and (n < 0) and (k > 0):",
            "if address != 0 and m > 0 and (n > 1) and (k > 0):",
            "if address != 0 and m > 0 and (n > 0) and (k < 0):",
            "if address != 0 and m > 0 and (n > 0) and (k > 1):",
        ],
        "host_blas.gemm_of_flat": [
            "if False:",
        ],
    },
    "a place in memory that is larger than is needed, or as large": {
        "host_perceptron.backward": [
            "dx = np.empty((tasks, count, widths[0]), dtype)",
            "dx = np.empty((tasks, 1 if on_data else count, widths[0]), dtype)",
        ],
        "host_perceptron.backward_tangent": [
            "dx_dot = np.empty((tasks, count, widths[0]), dtype)",
            "dx_dot = np.empty((tasks, 1 if on_data else count, widths[0]), dtype)",
        ],
        "host_perceptron._backward_tangent": [
            "last, widest = (len(widths) - 2, 1)",
            "last, widest = (len(widths) - 2, -1)",
            "spare = np.empty((3, count * widest), dphi_dot.dtype)",
        ],
    },
    "the index of the last, counted from the end": {
        "host_perceptron._backward": [
            "place, at, below = (row.shape[0], -dy.shape[1], a.shape[1])",
        ],
    },
    "an optimization: on_data states that x_dot is zero": {
        "host_perceptron._forward_tangent": [
            "if True:",
            "if layer >= 0 or not on_data:",
            "if layer > -1 or not on_data:",
        ],
        "host_perceptron._backward_tangent": [
            "if True:",
            "if layer >= 0 or not on_data:",
            "if layer > -1 or not on_data:",
        ],
    },
    "two places in turn, counted from another one": {
        "host_perceptron._backward_tangent": [
            "before_dot = spare[(last - layer - 1) % 2, :count * n]",
            "before_dot = spare[(last + layer + 1) % 2, :count * n]",
        ],
    },
    "a sum starts at zero, however it is written": {
        "host_perceptron._dot": [
            "one, two, three, four = (0, a[0] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (2.0 * (a[0] * 0), a[0] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[1] * 0, a[0] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[-1] * 0, a[0] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, 2.0 * (a[0] * 0), a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[1] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[-1] * 0, a[0] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, 2.0 * (a[0] * 0), a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[1] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[-1] * 0, a[0] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[0] * 0, 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[0] * 0, 2.0 * (a[0] * 0))",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[0] * 0, a[1] * 0)",
            "one, two, three, four = (a[0] * 0, a[0] * 0, a[0] * 0, a[-1] * 0)",
        ],
    },
    "a step of 4 ends before the last 4 all the same": {
        "host_perceptron._dot": [
            "for k in range(0, size - size % 4 - 1, 4):",
        ],
    },
    "twice zero, or zero times zero": {
        "host_perceptron._rectify": [
            "values[i] = v if v.real >= 0 else v * 0",
            "values[i] = v if v.real > 0 else 2.0 * (v * 0)",
        ],
    },
    "the array has one axis": {
        "host_norm.forward_of_task": [
            "rows, channels = (_rows(x, together), mu.shape[-1])",
        ],
        "host_norm.backward_of_task": [
            ("rows, pulled, channels = (_rows(x, together), _rows(dz, together), mu.shape[-1])"),
        ],
        "host_norm.forward_tangent_of_task": [
            ("rows, moving, channels = (_rows(x, together), _rows(x_dot, together), mu.shape[-1])"),
        ],
        "host_norm.backward_tangent_of_task": [
            ("rows, moving, channels = (_rows(x, together), _rows(x_dot, together), mu.shape[-1])"),
        ],
        "host_norm._moments": [
            "channels, real = (mean.shape[-1], mean.real.dtype.type)",
        ],
        "host_norm.select_transpose": [
            "for i in range(into.shape[-1]):",
        ],
    },
    "a row more than is needed": {
        "host_norm.forward_of_task": [
            "factors, a, m, b = (np.empty((4, width), x.dtype), 0, 1, 2)",
        ],
        "host_norm.backward_of_task": [
            "sums, sigma, total = (np.zeros((5, width), x.dtype), 0, 1)",
            "factors, a, m, of_u, shift = (np.empty((5, width), x.dtype), 0, 1, 2, 3)",
        ],
        "host_norm.forward_tangent_of_task": [
            "sums = np.zeros((3, width), x.dtype)",
            ("factors, a, a_dot, m, m_dot, shift = (np.empty((6, width), x.dtype), 0, 1, 2, 3, 4)"),
        ],
        "host_norm.backward_tangent_of_task": [
            "factors = np.empty((9, width), x.dtype)",
            (
                "sums, sigma, total, sigma_dot, total_dot = (np.zeros((9, width), x.dtype),"
                " 0, 1, 2, 3)"
            ),
        ],
        "host_norm._moments": [
            "found, m, s, part = (np.zeros((4, width), rows.dtype), 0, 1, 2)",
        ],
    },
    "twice zero is zero, and twice NaN is NaN": {
        "host_norm.forward_of_task": [
            "into[p, c] = z if positive else 2.0 * (z * 0)",
        ],
        "host_norm._select_largest": [
            "y[n, h, w, c] = best if positive else 2.0 * (best * 0)",
        ],
    },
    "the total is the same without parts": {
        "host_norm.forward_tangent_of_task": [
            "sums[0, c] += moving[p, c]",
            "sums[0, c] += u * u_dot",
        ],
    },
    (
        "x less its mean, or x_dot less its own, sums to zero: a constant times tha"
        "t sum is rounding"
    ): {
        "host_norm.forward_tangent_of_task": [
            "u, u_dot = (rows[p, c] + factors[m, c], moving[p, c] - factors[m_dot, c])",
            "u, u_dot = (rows[p, c], moving[p, c] - factors[m_dot, c])",
            "u, u_dot = (rows[p, c] - factors[m_dot, c], moving[p, c] - factors[m_dot, c])",
            "u, u_dot = (rows[p, c] - factors[m, c], moving[p, c] + factors[m_dot, c])",
            "u, u_dot = (rows[p, c] - factors[m, c], moving[p, c])",
            "u, u_dot = (rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot - 1, c])",
            "u, u_dot = (rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot, c - 1])",
            "u, u_dot = (rows[p, c] - factors[m, c], moving[p, c] - factors[m, c])",
        ],
    },
    "the sizes of images of one pixel": {
        "host_norm._images": [
            "return a if a.ndim == 5 else a.reshape(a.shape[0], -1, 2, 1, a.shape[-1])",
            "return a if a.ndim == 5 else a.reshape(a.shape[0], -1, 1, 2, a.shape[-1])",
        ],
    },
    "an optimization: it spares a backward pass": {
        "Perceptron.backward_tangent": [
            "if True:",
            "if pulled is not None or pulled[0] is not dy:",
            "if pulled is None or pulled[1] is not dy:",
            "if pulled is None or pulled[-1] is not dy:",
            "if pulled is None or pulled[0] is not dy_dot:",
        ],
    },
    "rows of zeros: any of them is the first": {
        "host_kernels.adam_update": [
            "m = v = np.zeros((2, g.shape[-1]), g.dtype)",
        ],
        "host_kernels._convolve_transpose": [
            (
                "none, around = (np.zeros((2, channels), x.dtype), (dy.shape[0], x.shape[1]"
                ", high, wide * outputs))"
            ),
        ],
    },
    "the gradients have two axes": {
        "host_kernels.adam_update": [
            "m = v = np.zeros((1, g.shape[1]), g.dtype)",
        ],
    },
    "an optimization: a second matrix that is not there is not read": {
        "host_kernels._convolve_transpose": [
            "other = _turned(V, kernel, channels)",
        ],
    },
    "an index counted from the end": {
        "host_kernels._turned": [
            "into = turned[t, (-1 - tap) * outputs + o]",
        ],
    },
    "the last row is a part, which is zero": {
        "host_rows.fold": [
            "for k in range(sums.shape[0] - 1):",
        ],
    },
}
EQUIVALENT = {
    (name, after): reason
    for reason, of in [*REASONS.items(), *REASONS_OF_TWINS.items()]
    for name, statements in of.items()
    for after in statements
}
