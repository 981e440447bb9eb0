"""Heads, layer normalisation and noisy layers against NumPy, flax and the papers' definitions."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.core import dense, networks, noise
from dqx.core.dense import Form
from dqx.settings import SETTINGS, Config, ConfigError, Hyper, override, validate
from tests.jaxprs import traced
from tests.oracles import networks as oracle
from tests.shared import quickly

HEADS = SETTINGS["head"].names()
ACTIONS, OBS = 3, 6
# Below and above the size from which on the batch lies along the last axis.
BATCHES = [5, 40]


def perturbed(params):
    """Parameters of which none is what it starts as, such as zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + rng.normal(size=x.shape, scale=0.3).astype("f4"), params)


def made(form, hidden=(7,), batch=5, activation="relu"):
    """A network, parameters for it, and observations."""
    network = networks.MLP(ACTIONS, hidden, activation, dense=form)
    obs = np.random.default_rng(1).normal(size=(batch, OBS)).astype(np.float32)
    return network, perturbed(quickly(network.init)(jax.random.key(1), obs)), obs


def product(short, **axes):
    """Parameters of a test: the rows of ``short``, and all other combinations in the long tests."""
    rows = [tuple(row) for row in itertools.product(*axes.values())]
    marked = [pytest.param(*r, marks=() if r in short else pytest.mark.long) for r in rows]
    return pytest.mark.parametrize(tuple(axes), marked)


def test_wide_networks_have_the_batch_first_and_the_same_numbers():
    network, params, obs = made(Form("dueling_max", layer_norm=True), (128, 144), 40)
    expected = oracle.forward(params, obs, ACTIONS, hidden=2, head="dueling_max", layer_norms=True)
    given = quickly(network.apply)(params, obs)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    program = str(jax.make_jaxpr(network.apply)(params, obs))
    assert "f32[40,144]" in program and "f32[144,40]" not in program


def test_every_head_is_there():
    assert set(HEADS) == {"plain", *dense.HEADS}


@product(
    {("plain", (), (2,), 5), ("dueling_avg", (4,), (2, 4), 40), ("dueling_avg", (), (), 5),
     ("dueling_max", (), (2,), 40), ("dueling_naive", (), (), 40)},
    head=HEADS, streams=[(), (4,)], shape=[(), (2,), (2, 4)], batch=BATCHES,
)  # fmt: skip
def test_heads_equal_numpys(head, streams, shape, batch):
    if head == "plain" and streams:
        streams = ()
    network, params, obs = made(Form(head, streams, shape=shape), batch=batch)
    expected = oracle.forward(params, obs, ACTIONS, head=head, streams=len(streams), shape=shape)
    given = quickly(network.apply)(params, obs)
    assert given.shape == (batch, ACTIONS, *shape) and given.dtype == jnp.float32
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)


def test_heads_by_hand():
    value, advantages = np.array([[10.0]]), np.array([[1.0, 2.0, 6.0]])
    expected = {
        "dueling_avg": [8.0, 9.0, 13.0],
        "dueling_max": [5.0, 6.0, 10.0],
        "dueling_naive": [11.0, 12.0, 16.0],
    }
    for head, q in expected.items():
        np.testing.assert_allclose(dense._dueling(head, value, advantages, False), [q])
        np.testing.assert_allclose(dense._dueling(head, value.T, advantages.T, True).T, [q])
        np.testing.assert_allclose(oracle.dueling(head, 10.0, advantages[0]), q)


@product({("relu", 5), ("tanh", 40)}, activation=["relu", "tanh"], batch=BATCHES)
def test_layer_norm_equals_numpys(activation, batch):
    network, params, obs = made(Form(layer_norm=True), (7, 9), batch, activation)
    expected = oracle.forward(
        params, obs, ACTIONS, hidden=2, layer_norms=True, activation=activation
    )
    np.testing.assert_allclose(quickly(network.apply)(params, obs), expected, rtol=1e-4, atol=1e-4)


def test_layer_norm_of_large_features_loses_no_digits():
    x = 1e4 + np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    norm = nn.LayerNorm()  # flax's parameters
    params = norm.init(jax.random.key(0), x)

    class One(nn.Module):
        @nn.compact
        def __call__(self, x):
            return dense.normalised(x, 1)

    given = One().apply({"params": {"LayerNorm_0": params["params"]}}, x)
    expected = oracle.layer_norm(np.asarray(x, np.float64), 1.0, 0.0)
    np.testing.assert_allclose(given, expected, atol=2e-3)
    assert np.abs(norm.apply(params, x) - expected).max() > 0.1  # by the mean of squares


@pytest.mark.long
def test_frames_are_normalised_over_the_channels_of_each_position():
    config = Config(network="minatar_cnn", hidden_sizes=(8,), layer_norm=True)
    network = networks.make_network(config, 3, None)
    frames = jax.random.uniform(jax.random.key(0), (4, 5, 5, 2))
    params = perturbed(network.init(jax.random.key(1), frames))
    names = {name: jax.tree.map(jnp.shape, layer) for name, layer in params["params"].items()}
    assert names["LayerNorm_0"] == {"scale": (16,), "bias": (16,)}  # a channel each
    assert names["LayerNorm_1"] == {"scale": (8,), "bias": (8,)}
    conv, norm = params["params"]["Conv_0"], params["params"]["LayerNorm_0"]
    x = nn.Conv(16, (3, 3), padding="VALID").apply({"params": conv}, frames)
    x = oracle.layer_norm(np.asarray(x, np.float64), norm["scale"], norm["bias"])
    rest = {k.replace("LayerNorm_1", "LayerNorm_0"): v for k, v in params["params"].items()
            if k not in ("Conv_0", "LayerNorm_0")}  # fmt: skip
    expected = oracle.forward({"params": rest}, np.maximum(x, 0).reshape(4, -1), 3,
                              layer_norms=True)  # fmt: skip
    np.testing.assert_allclose(
        quickly(network.apply)(params, frames), expected, rtol=1e-4, atol=1e-4
    )


# --- Noise.


def noises(params, batch, by_row):
    """A row of noise, or one for each row of the batch, and as the oracle takes it."""
    size = noise.noise_size(params)
    rows = noise.rows_of_noise(noise.draw_rows_of_noise(jax.random.key(7), size, batch))
    given = noise.noise_of(params, rows if by_row else rows[0])
    return given, {name: (part["inputs"], part["outputs"]) for name, part in given.items()}


@product(
    {("plain", True, 5), ("dueling_avg", False, 40), ("plain", True, 40)},
    head=["plain", "dueling_avg"], by_row=[False, True], batch=BATCHES,
)  # fmt: skip
def test_noisy_layers_equal_numpys(head, by_row, batch):
    network, params, obs = made(Form(head, noisy=True), (7, 4), batch)
    given, expected = noises(params, batch, by_row)
    q = quickly(network.apply)({**params, "noise": given}, obs)
    twin = oracle.forward(params, obs, ACTIONS, hidden=2, head=head, noise=expected)
    np.testing.assert_allclose(q, twin, rtol=1e-4, atol=1e-4)
    # Without noise only the means count.
    quiet = quickly(network.apply)(params, obs)
    np.testing.assert_allclose(
        quiet, oracle.forward(params, obs, ACTIONS, hidden=2, head=head), rtol=1e-5, atol=1e-5
    )
    assert np.abs(quiet - q).max() > 0.1


def test_the_gradient_of_noisy_layers_is_that_of_the_kernel_they_make():
    network, params, obs = made(Form(noisy=True), (7,), 40)
    given, _ = noises(params, 40, by_row=False)

    def loss(params):
        return jnp.sum(jnp.square(network.apply({**params, "noise": given}, obs)))

    gradient = quickly(jax.grad(loss))(params)["params"]
    for name, layer in params["params"].items():
        inputs, outputs = given[name]["inputs"], given[name]["outputs"]
        outer = np.outer(inputs, outputs)
        np.testing.assert_allclose(
            gradient[name]["kernel_sigma"], outer * gradient[name]["kernel"], rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            gradient[name]["bias_sigma"], outputs * gradient[name]["bias"], rtol=1e-4, atol=1e-4
        )
        assert np.abs(layer["kernel"]).max() > 0


def test_noise_is_the_signed_root_of_a_normal_and_every_number_is_used_once():
    _, params, _ = made(Form(noisy=True), (7, 4))
    assert noise.noise_size(params) == (OBS + 7) + (7 + 4) + (4 + ACTIONS)
    size = 20_000
    drawn = np.asarray(noise.draw_noise(jax.random.key(3), size), np.float64)
    assert scipy.stats.kstest(np.sign(drawn) * drawn**2, "norm").pvalue > 1e-4
    numbered = jnp.arange(noise.noise_size(params), dtype=jnp.float32)
    used = np.concatenate(jax.tree.leaves(noise.noise_of(params, numbered)))
    np.testing.assert_array_equal(np.sort(used), numbered)
    assert noise.noise_size({"params": {"Dense_0": {"kernel": np.zeros((2, 3))}}}) == 0


def test_rows_of_noise_differ_in_uncorrelated_signs_alone():
    size, rows = 1_003, 8
    drawn = noise.draw_rows_of_noise(jax.random.key(3), size, rows)
    assert drawn.signs.shape == (rows, 32)  # a bit each, in words
    found = np.asarray(noise.rows_of_noise(drawn), np.float64)
    assert found.shape == (rows, size)
    np.testing.assert_array_equal(
        np.abs(found), np.abs(np.broadcast_to(drawn.numbers, found.shape))
    )
    assert scipy.stats.kstest(np.sign(found[5]) * found[5] ** 2, "norm").pvalue > 1e-4
    signs = np.sign(np.concatenate([found, found * np.roll(found, 1, axis=1)]))
    correlation = np.corrcoef(signs) - np.eye(2 * rows)
    assert np.abs(correlation).max() < 5 / size**0.5
    # Words are used from their lowest bit on.
    one = noise.RowsOfNoise(jnp.ones(40), jnp.array([[0b101, 0b10]], jnp.uint32))
    np.testing.assert_array_equal(
        np.flatnonzero(np.asarray(noise.rows_of_noise(one)[0]) < 0), [0, 2, 33]
    )


def test_noisy_layers_start_as_published():
    # Fortunato et al. 2018, section 3.2: means uniform within 1 / sqrt(inputs), deviations
    # sigma_0 / sqrt(inputs), biases too.
    layer = dense.Dense(4, False, "torch", noisy=True)
    start = layer.init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    np.testing.assert_allclose(start["kernel_sigma"], np.full((100, 4), 0.05), rtol=1e-6)
    params = noise.with_sigma({"params": {"Dense_0": start}}, 0.4)["params"]["Dense_0"]
    np.testing.assert_allclose(params["kernel_sigma"], np.full((100, 4), 0.04), rtol=1e-6)
    np.testing.assert_allclose(params["bias_sigma"], np.full(4, 0.04), rtol=1e-6)
    assert 0.09 < np.abs(params["kernel"]).max() <= 0.1
    # The means start as those of a plain layer.
    plain = dense.Dense(4, False, "torch").init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    for name, value in plain.items():
        np.testing.assert_array_equal(params[name], value)


def test_the_gradient_of_the_largest_asks_for_no_equal():
    """It could be 0 / 0 where a compiler computes advantages twice and rounds them differently."""

    def said(advantages):
        return dense.HEADS["dueling_max"](advantages, -1) @ jnp.arange(1.0, 4)

    gradient = jax.grad(said)(jnp.array([2.0, 5.0, 5.0]))
    np.testing.assert_allclose(gradient, [1, 2 - 6, 3])  # of equal ones the first
    of_floats = [
        equation.primitive.name
        for equation in traced(jax.grad(said), jnp.zeros(3))
        if equation.invars and equation.invars[0].aval.dtype == jnp.float32
    ]
    assert of_floats and not {"eq", "div"} & set(of_floats)


# --- Quantile levels.


@product(
    {("plain", (), 5, 3, False), ("dueling_avg", (4,), 40, 3, False), ("plain", (), 40, 0, True),
     ("dueling_max", (), 5, 3, False)},
    head=["plain", "dueling_avg", "dueling_max"], streams=[(), (4,)], batch=BATCHES, drawn=[0, 3],
    noisy=[False, True],
)  # fmt: skip
def test_quantiles_of_levels_equal_numpys(head, streams, batch, drawn, noisy):
    streams = () if head == "plain" else streams
    network, params, obs = made(Form(head, streams, noisy, cosines=6), batch=batch)
    given = {"fixed": np.array([0.1, 0.7], np.float32)}
    levels = np.random.default_rng(2).random((batch, drawn)).astype(np.float32)
    if drawn:
        given["drawn"] = levels
    variables, expected = {**params, "levels": given}, None
    if noisy:
        variables["noise"], expected = noises(params, batch, by_row=True)
    q = quickly(network.apply)(variables, obs)
    assert q.shape == (batch, ACTIONS, drawn + 1)
    more = {"head": head, "streams": len(streams), "noise": expected}
    assert_quantiles(q, params, obs, levels, **more)


def assert_quantiles(q, params, obs, drawn, **more):
    """Those of the levels drawn ``[B, N]``, and the mean over 0.1 and 0.7, are the twin's."""
    levels = np.concatenate([drawn, np.broadcast_to([0.1, 0.7], (len(obs), 2))], axis=1)
    twin = oracle.forward(params, obs, ACTIONS, levels=levels, **more)
    mean = twin[..., -2:].mean(axis=-1, keepdims=True)
    twin = np.concatenate([twin[..., :-2], mean], axis=-1)
    np.testing.assert_allclose(q, twin, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["plain", "dueling_max"])
def test_quantiles_of_wide_layers_equal_numpys_in_large_batches_too(head):
    network, params, obs = made(Form(head, cosines=6), hidden=(128,), batch=40)
    drawn = np.random.default_rng(3).random((40, 3)).astype(np.float32)
    variables = {**params, "levels": {"fixed": np.array([0.1, 0.7], np.float32), "drawn": drawn}}
    q = quickly(network.apply)(variables, obs)
    assert_quantiles(q, params, obs, drawn, head=head)


def test_cosines_equal_numpys():
    levels = np.random.default_rng(0).random(1_000).astype(np.float32)
    levels[:4] = 0, 0.25, 0.5, 1
    given = dense.cosines(levels, 64)
    assert given.shape == (64, 1_000) and given.dtype == jnp.float32
    expected = np.cos(np.pi * np.arange(64)[:, None] * levels.astype(np.float64))
    # A rounded angle alone is off by up to 63 half turns times 2^-24.
    np.testing.assert_allclose(given, expected, atol=2e-5)
    np.testing.assert_allclose(given[:4], expected[:4], atol=1e-6)
    np.testing.assert_array_equal(dense.cosines(levels, 64, axis=1), given.T)


# --- Settings.


def test_the_configuration_reaches_the_network():
    config = Config(head="dueling_max", stream_sizes=(5, 4), dense="noisy", layer_norm=True)
    for name in ("mlp", "embedding", "nature_cnn"):
        network = networks.make_network(dataclasses.replace(config, network=name), 3, 20, (11,))
        assert network.dense == Form("dueling_max", (5, 4), True, True, (11,))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stream_sizes": (5,)}, "stream_sizes = 5 belongs to heads with streams .dueling_avg"),
        ({"noisy_sigma": 0.4}, "noisy_sigma = 0.4 belongs to denses with sigmas .noisy."),
        ({"agent": "tabular", "head": "dueling_avg"}, "head = dueling_avg belongs to agents with"),
        (
            {"agent": "tabular", "layer_norm": True},
            "layer_norm = true belongs to agents with a net",
        ),
        ({"head": "duelling"}, "head must be one of plain, dueling_avg"),
        ({"dense": "noisy", "noisy_sigma": 0.0}, "noisy_sigma must be finite and greater than 0"),
    ],
)
def test_what_does_not_fit_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        validate(*override(Config(), Hyper(), **fields))
