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
        "kernels._adam_update": [
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
EQUIVALENT = {
    (name, after): reason
    for reason, of in REASONS.items()
    for name, statements in of.items()
    for after in statements
}
