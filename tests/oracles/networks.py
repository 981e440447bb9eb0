"""Dense layers as float64 NumPy: layer normalisation, noise on weights, dueling heads."""

import functools

import numpy as np

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def layer_norm(x, scale, bias, epsilon=1e-6):
    """Each row less its mean, by the root of its variance; Ba et al. 2016."""
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * scale + bias


def dense(layer, x, noise=None):
    """One row at a time, with a kernel of its own where the noise differs by row."""
    rows = []
    for i, row in enumerate(np.asarray(x, np.float64)):
        kernel, bias = (np.asarray(layer[part], np.float64) for part in ("kernel", "bias"))
        if noise is not None:
            inputs, outputs = (np.asarray(part, np.float64) for part in noise)
            inputs, outputs = (p[i] if p.ndim == 2 else p for p in (inputs, outputs))
            kernel = kernel + np.asarray(layer["kernel_sigma"]) * np.outer(inputs, outputs)
            bias = bias + np.asarray(layer["bias_sigma"]) * outputs
        rows.append(row @ kernel + bias)
    return np.stack(rows)


def dueling(head, value, advantages):
    """Value [...], advantages [A, ...] of one state: keras-rl's three, one action after another."""
    total = [value + a for a in advantages]
    if head == "dueling_avg":
        total = [q - sum(advantages) / len(advantages) for q in total]
    if head == "dueling_max":
        total = [q - np.max(np.stack(list(advantages)), axis=0) for q in total]
    return np.stack(total)


def forward(params, x, num_actions, *, hidden=1, streams=0, head="plain", layer_norms=False,
            activation="relu", shape=(), noise=None, levels=None):  # fmt: skip
    """Q-values [B, A, *shape] of an MLP whose layers are numbered in the order of their use.

    With ``levels [B, N]`` the quantile of each level, [B, A, N], computed for one level at a time.
    """
    if levels is not None:
        with_level = functools.partial(
            _forward, params, x, num_actions, hidden, streams, head, layer_norms, activation,
            shape, noise,
        )  # fmt: skip
        return np.stack([with_level(level) for level in np.transpose(levels)], axis=-1)
    return _forward(params, x, num_actions, hidden, streams, head, layer_norms, activation, shape,
                    noise, None)  # fmt: skip


def embedding(layer, level):
    """Features of one quantile level; Dabney et al. 2018b, equation 4."""
    kernel, bias = (np.asarray(layer[part], np.float64) for part in ("kernel", "bias"))
    cosines = np.cos(np.pi * np.arange(len(kernel)) * level)
    return np.maximum(cosines @ kernel + bias, 0)


def _forward(params, x, num_actions, hidden, streams, head, layer_norms, activation, shape, noise,
             level):  # fmt: skip
    layers, count, norms = params["params"], 0, 0

    def apply(x):
        nonlocal count
        name = f"Dense_{count}"
        count += 1
        return dense(layers[name], x, None if noise is None else noise[name])

    def hiddens(x, number):
        nonlocal norms
        for _ in range(number):
            x = apply(x)
            if layer_norms:
                norm = layers[f"LayerNorm_{norms}"]
                x, norms = layer_norm(x, norm["scale"], norm["bias"]), norms + 1
            x = ACTIVATIONS[activation](x)
        return x

    x = hiddens(np.asarray(x, np.float64), hidden)
    if level is not None:
        x = x * np.stack([embedding(layers["Levels"], one) for one in level])
    numbers = int(np.prod(shape))
    if head == "plain":
        return apply(x).reshape(len(x), num_actions, *shape)
    if streams:
        value, advantages = apply(hiddens(x, streams)), apply(hiddens(x, streams))
    else:
        both = apply(x)
        value, advantages = both[:, :numbers], both[:, numbers:]
    value = value.reshape(len(x), *shape)
    advantages = advantages.reshape(len(x), num_actions, *shape)
    return np.stack([dueling(head, v, a) for v, a in zip(value, advantages, strict=True)])
