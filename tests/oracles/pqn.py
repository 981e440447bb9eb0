"""A round of PQN as a float64 NumPy twin, from the papers' equations; gradients by hand.

Networks are lists of layers ``{"kernel", "bias", "scale", "shift"}``; all but the last are followed
by layer normalisation (Ba et al. 2016) and a rectifier.
"""

import numpy as np

from tests.oracles.dqn import rescaled, unscaled

_EPSILON = 1e-6  # flax's, under the root of layer normalisation


def forward(layers, obs):
    """Q-values ``[B, A]``, and what the backward pass needs of each layer."""
    x, tape = np.asarray(obs, np.float64), []
    for layer in layers[:-1]:
        before = x @ layer["kernel"] + layer["bias"]
        centred = before - before.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + _EPSILON)
        unit = centred / deviation
        after = unit * layer["scale"] + layer["shift"]
        tape.append((x, unit, deviation, after > 0))
        x = np.maximum(after, 0)
    tape.append((x,))
    return x @ layers[-1]["kernel"] + layers[-1]["bias"], tape


def backward(layers, tape, d_output):
    """Gradients of all parameters, given that of the outputs ``[B, A]``."""
    (x,) = tape[-1]
    found = [{"kernel": x.T @ d_output, "bias": d_output.sum(axis=0)}]
    d_x = d_output @ layers[-1]["kernel"].T
    for layer, (x, unit, deviation, positive) in zip(layers[-2::-1], tape[-2::-1], strict=True):
        d_after = d_x * positive
        d_unit = d_after * layer["scale"]
        mean = lambda a: a.mean(axis=1, keepdims=True)  # noqa: E731
        d_before = (d_unit - mean(d_unit) - unit * mean(d_unit * unit)) / deviation
        found.append({
            "kernel": x.T @ d_before, "bias": d_before.sum(axis=0),
            "scale": (d_after * unit).sum(axis=0), "shift": d_after.sum(axis=0),
        })  # fmt: skip
        d_x = d_before @ layer["kernel"].T
    return found[::-1]


def act(layers, obs, coin, action, epsilon):
    """Epsilon-greedy actions of one step, from what was drawn for it."""
    q, _ = forward(layers, obs)
    return np.where(coin < epsilon, action, q.argmax(axis=1))


def targets(layers, reward, terminal, ends, next_obs, gamma, lambda_, epsilon=0.0):
    """Lambda returns ``[T, E]``, walked backwards; Gallici et al. 2025, section 4.

    ``terminal`` are ends that nothing follows, ``ends`` those of episodes; ``next_obs [T, E, ...]``
    comes before any reset. With an ``epsilon`` the network's values are rescaled, and so is what
    this returns.
    """
    found = np.zeros(reward.shape)
    for t, env in np.ndindex(reward.shape):
        weight, total, discount = 1.0, 0.0, 1.0
        for k in range(t, reward.shape[0]):
            total += discount * reward[k, env]
            discount = 0.0 if terminal[k, env] else discount * gamma
            q, _ = forward(layers, next_obs[k, env][None])
            here = total + (discount * unscaled(q.max(), epsilon) if discount else 0.0)
            if ends[k, env] or k == reward.shape[0] - 1:
                found[t, env] += weight * here
                break
            found[t, env] += weight * (1 - lambda_) * here
            weight *= lambda_
    return rescaled(found, epsilon)


def radam(grads, memory, learning_rate, epsilon=1e-8, b1=0.9, b2=0.999):
    """What RAdam adds to the parameters; ``memory`` (means, squares, count) changes in place.

    Source: Liu et al. 2020, algorithm 2; as in its code, rectified from a length of 5 on.
    """
    memory["count"] += 1
    t = memory["count"]
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    changes = []
    for grad, mean, square in zip(grads, memory["means"], memory["squares"], strict=True):
        change = {}
        for name, g in grad.items():
            mean[name] = b1 * mean[name] + (1 - b1) * g
            square[name] = b2 * square[name] + (1 - b2) * g**2
            step = mean[name] / (1 - b1**t)
            if length >= 5:
                factor = (length - 4) * (length - 2) * longest
                factor /= (longest - 4) * (longest - 2) * length
                step = np.sqrt(factor) * step / (np.sqrt(square[name] / (1 - b2**t)) + epsilon)
            change[name] = -learning_rate * step
        changes.append(change)
    return changes


def fresh(layers):
    """The memory of `radam` at the start."""
    zeros = lambda: [{k: np.zeros_like(v) for k, v in layer.items()} for layer in layers]  # noqa: E731
    return {"means": zeros(), "squares": zeros(), "count": 0}


def update(layers, memory, obs, action, target, learning_rate, max_grad_norm):
    """One step on half the mean square of ``target - Q``; new layers, loss and gradient's norm."""
    q, tape = forward(layers, obs)
    rows = np.arange(len(q))
    error = target - q[rows, action]
    d_output = np.zeros_like(q)
    d_output[rows, action] = -error / len(q)
    grads = backward(layers, tape, d_output)
    norm = np.sqrt(sum((g**2).sum() for grad in grads for g in grad.values()))
    scale = min(1.0, max_grad_norm / norm)
    grads = [{name: g * scale for name, g in grad.items()} for grad in grads]
    changes = radam(grads, memory, learning_rate)
    new = [{k: v + c[k] for k, v in old.items()} for old, c in zip(layers, changes, strict=True)]
    return new, 0.5 * np.mean(error**2), norm


def updates(layers, memory, steps, target, rows, rates, max_grad_norm):
    """All updates of a round, whose ``rows [U, B]`` count ``[T, E]`` row by row."""
    flat = {name: np.asarray(x).reshape(-1, *np.shape(x)[2:]) for name, x in steps.items()}
    target, losses, norms = target.reshape(-1), [], []
    for picked, rate in zip(rows, rates, strict=True):
        given = flat["obs"][picked], flat["action"][picked], target[picked]
        layers, loss, norm = update(layers, memory, *given, rate, max_grad_norm)
        losses.append(loss)
        norms.append(norm)
    return layers, losses, norms
