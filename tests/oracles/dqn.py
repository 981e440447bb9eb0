"""One update of DQN as a float64 NumPy twin, from the papers and PyTorch's and optax's definitions.

Networks are lists of ``(kernel [in, out], bias [out])``; gradients are derived by hand.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Settings:
    """Everything that one update depends on; None means that a thing is not done.

    ``loss`` may be a function from an error to the loss and its derivative.
    """

    activation: str = "relu"
    double: bool = False
    loss: str = "squared"
    huber_delta: float = np.inf
    gamma: float = 0.99
    reward_clip: float | None = None
    td_error_clip: float | None = None
    max_grad_norm: float | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.0
    momentum: float = 0.0
    rmsprop_decay: float = 0.9
    optimizer_epsilon: float = 1e-8
    tau: float = 1.0


def _activate(name, x):
    """The activation and its derivative."""
    if name == "relu":
        return np.where(x > 0, x, 0), (x > 0) * 1.0
    if name == "tanh":
        return np.tanh(x), 1 - np.tanh(x) ** 2
    sigmoid = 1 / (1 + np.exp(-x))
    return x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))


def forward(layers, obs, activation):
    """Q-values [B, A], and what the backward pass needs: each layer's input and slope."""
    x, tape = np.asarray(obs, np.float64).reshape(len(obs), -1), []
    for i, (kernel, bias) in enumerate(layers):
        before = x @ kernel + bias
        last = i == len(layers) - 1
        after, slope = (before, np.ones_like(before)) if last else _activate(activation, before)
        tape.append((x, slope))
        x = after
    return x, tape


def backward(layers, tape, d_output):
    """Gradients of all kernels and biases, given that of the outputs [B, A]."""
    gradients = []
    for (kernel, _), (x, slope) in zip(reversed(layers), reversed(tape), strict=True):
        d_before = d_output * slope
        gradients.append((x.T @ d_before, d_before.sum(axis=0)))
        d_output = d_before @ kernel.T
    return gradients[::-1]


def td_errors(layers, target_layers, batch, s):
    """``r + gamma * d * Q'(s', a*) - Q(s, a)`` for each transition [B]; van Hasselt et al. 2016."""
    q, tape = forward(layers, batch["obs"], s.activation)
    next_target, _ = forward(target_layers, batch["next_obs"], s.activation)
    selecting = forward(layers, batch["next_obs"], s.activation)[0] if s.double else next_target
    errors = np.empty(len(q))
    for i in range(len(q)):
        reward = float(batch["reward"][i])
        if s.reward_clip is not None:
            reward = max(-s.reward_clip, min(s.reward_clip, reward))
        best = int(np.argmax(selecting[i]))
        bootstrap = s.gamma * float(batch["discount"][i]) * next_target[i, best]
        errors[i] = reward + bootstrap - q[i, batch["action"][i]]
    return errors, q, tape


def loss_and_slope(error, num_actions, s):
    """Loss of one TD error, and the derivative of that loss by the error.

    Clipping an error (Mnih et al. 2015) replaces it in the gradient instead of cutting it off.
    """
    if callable(s.loss):
        return s.loss(error)
    if s.td_error_clip is not None:
        error = max(-s.td_error_clip, min(s.td_error_clip, error))
    if s.loss == "squared":
        return error**2, 2 * error
    if s.loss == "keras_mse":
        return error**2 / num_actions, 2 * error / num_actions
    if abs(error) <= s.huber_delta:
        return 0.5 * error**2, error
    return s.huber_delta * (abs(error) - 0.5 * s.huber_delta), s.huber_delta * np.sign(error)


def norm(layers):
    """The norm of all numbers as one long vector."""
    return np.sqrt(sum(np.sum(np.square(x)) for layer in layers for x in layer))


def zeros(layers):
    return [tuple(np.zeros_like(x) for x in layer) for layer in layers]


def _map(function, *layers):
    return [
        tuple(function(*arrays) for arrays in zip(*parts, strict=True))
        for parts in zip(*layers, strict=True)
    ]


def step_of(gradients, memory, s):
    """The direction that the learning rate multiplies, and the optimizer's memory afterwards.

    ``memory`` is a dict of the count of updates and of averages shaped as the layers.
    """
    count = memory["count"] + 1
    if s.optimizer == "adam":  # Kingma and Ba 2015, algorithm 1
        first = _map(lambda m, g: 0.9 * m + 0.1 * g, memory["first"], gradients)
        second = _map(lambda v, g: 0.999 * v + 0.001 * g * g, memory["second"], gradients)
        step = _map(
            lambda m, v: (
                (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + s.optimizer_epsilon)
            ),
            first,
            second,
        )
        return step, {"count": count, "first": first, "second": second}
    if s.optimizer == "rmsprop":  # Hinton 2012, with epsilon under the root as in Mnih et al. 2015
        rho = s.rmsprop_decay
        second = _map(lambda v, g: rho * v + (1 - rho) * g * g, memory["second"], gradients)
        gradients = _map(lambda g, v: g / np.sqrt(v + s.optimizer_epsilon), gradients, second)
    else:
        second = memory["second"]
    first = _map(lambda m, g: s.momentum * m + g, memory["first"], gradients)
    return first, {"count": count, "first": first, "second": second}


def update(layers, target_layers, memory, batch, s, sync, weight=None):
    """One update: new layers, target and memory, and the metrics that DQN tells of.

    The loss of transition ``i`` counts ``weight[i]`` times (Schaul et al. 2016, section 3.4).
    """
    errors, q, tape = td_errors(layers, target_layers, batch, s)
    size, num_actions = q.shape
    values, d_q = np.empty(size), np.zeros_like(q)
    for i, error in enumerate(errors):
        times = 1.0 if weight is None else float(weight[i])
        values[i], slope = (times * x for x in loss_and_slope(error, num_actions, s))
        d_q[i, batch["action"][i]] = -slope / size  # the error falls as the prediction rises
    gradients = backward(layers, tape, d_q)
    grad_norm = norm(gradients)
    if s.max_grad_norm is not None and grad_norm > s.max_grad_norm:
        gradients = _map(lambda g: g * (s.max_grad_norm / grad_norm), gradients)
    rate = s.learning_rate / (1 + s.learning_rate_decay * memory["count"])
    step, memory = step_of(gradients, memory, s)
    layers = _map(lambda p, d: p - rate * d, layers, step)
    if sync:
        target_layers = _map(lambda t, p: (1 - s.tau) * t + s.tau * p, target_layers, layers)
    metrics = {
        "loss": values.mean(),
        "q_mean": np.mean([q[i, a] for i, a in enumerate(batch["action"])]),
        "q_max": q.max(),
        "td_error_abs": np.abs(errors).mean(),
        "grad_norm": grad_norm,
        "weight_norm": norm(layers),
    }
    return layers, target_layers, memory, metrics
