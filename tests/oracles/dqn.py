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
    target: str = "max"
    n_step: int = 1
    epsilon_start: float = 1.0
    munchausen_scale: float = 0.9
    munchausen_temperature: float = 0.03
    munchausen_clip: float | None = 1.0
    value_rescaling: float = 0.0


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


def rescaled(x, epsilon):
    """Pohlen et al. 2018, equation for h in section 3.2."""
    return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + epsilon * x if epsilon else x


def unscaled(x, epsilon):
    """The inverse, proposition A.2 there."""
    if not epsilon:
        return x
    root = (np.sqrt(1 + 4 * epsilon * (np.abs(x) + 1 + epsilon)) - 1) / (2 * epsilon)
    return np.sign(x) * (root**2 - 1)


def _soft(q, temperature):
    """Probabilities and their logarithms, of ``exp(q / temperature)``."""
    logs = (q - q.max()) / temperature
    logs = logs - np.log(np.sum(np.exp(logs)))
    return np.exp(logs), logs


def next_value(q_next, q_select, epsilon, s):
    """What the next Q-values ``[A]`` are worth by the target rule; two heads: ``[A, 2]``."""
    best = int(np.argmax(q_select if q_select.ndim == 1 else q_select[:, 0]))
    if s.target == "clipped_double":  # Fujimoto et al. 2018, equation 10
        return min(q_next[best, 0], q_next[best, 1])
    if s.target == "expected_sarsa":  # van Seijen et al. 2009, equation 5
        return epsilon * np.mean(q_next) + (1 - epsilon) * q_next[best]
    if s.target == "munchausen":  # Vieillard et al. 2020, equation 2
        policy, logs = _soft(q_next, s.munchausen_temperature)
        return np.sum(policy * (q_next - s.munchausen_temperature * logs))
    return q_next[best]


def rewards_of(batch, i, s):
    """The return of transition ``i``'s steps and the discount of what follows them."""
    rewards = np.atleast_1d(batch["reward"][i]).astype(np.float64)
    count = int(batch["lengths"][i]) if "lengths" in batch else 1
    total = 0.0
    for k in range(count):
        clip = np.inf if s.reward_clip is None else s.reward_clip
        total += s.gamma**k * max(-clip, min(clip, rewards[k]))
    return total, s.gamma**count * float(batch["discount"][i])


def td_errors(layers, target_layers, batch, s):
    """``target - Q(s, a)`` for each transition [B], of two heads [B, 2]; and Q-values, the tape.

    The target is ``h(r + gamma * d * V(s'))``, by `next_value`.
    """
    heads = 2 if s.target == "clipped_double" else 1

    def q_of(weights, obs):
        q, tape = forward(weights, batch[obs], s.activation)
        return q.reshape(len(q), -1, heads) if heads > 1 else q, tape

    q, tape = q_of(layers, "obs")
    next_target, now_target = (q_of(target_layers, obs)[0] for obs in ("next_obs", "obs"))
    selecting = q_of(layers, "next_obs")[0] if s.double else next_target
    errors = np.empty((len(q), heads))
    for i in range(len(q)):
        action, (reward, discount) = batch["action"][i], rewards_of(batch, i, s)
        value = next_value(
            unscaled(next_target[i], s.value_rescaling), selecting[i], s.epsilon_start, s
        )
        if s.target == "munchausen":
            own = unscaled(now_target[i], s.value_rescaling)
            log = s.munchausen_temperature * _soft(own, s.munchausen_temperature)[1][action]
            limit = np.inf if s.munchausen_clip is None else s.munchausen_clip
            reward += s.munchausen_scale * max(-limit, log)
        target = rescaled(reward + discount * value, s.value_rescaling)
        errors[i] = target - q[i, action]
    return (errors if heads > 1 else errors[:, 0]), q, tape


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
    size, num_actions = q.shape[:2]
    values, d_q = np.zeros(size), np.zeros_like(q)
    for i, of_heads in enumerate(errors):
        times = 1.0 if weight is None else float(weight[i])
        for head, error in enumerate(np.atleast_1d(of_heads)):
            value, slope = loss_and_slope(error, num_actions, s)
            values[i] += times * value
            # The error falls as the prediction rises.
            at = (i, batch["action"][i], head)[: q.ndim]
            d_q[at] = -times * slope / size
    d_q = d_q.reshape(size, -1)
    q = unscaled(q if q.ndim == 2 else q[:, :, 0], s.value_rescaling)
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
