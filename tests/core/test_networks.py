"""Networks against flax's own layers, and initial weights against their published distributions."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.core import dense, networks, tabular
from dqx.core.convolution import TORSOS
from dqx.settings import SETTINGS, Config, ConfigError

ACTIVATIONS, INITIALIZERS, NETWORKS = (
    SETTINGS[name].names() for name in ("activation", "initializer", "network")
)
ORACLE_ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "swish": jax.nn.silu}


class Stack(nn.Module):
    """The same network of flax's own layers, with parameters of the same names."""

    sizes: tuple[int, ...]
    activation: str

    @nn.compact
    def __call__(self, x):
        for i, size in enumerate(self.sizes):
            x = nn.Dense(size)(x)
            if i < len(self.sizes) - 1:
                x = ORACLE_ACTIVATIONS[self.activation](x)
        return x


@pytest.mark.parametrize(
    ("activation", "hidden_sizes"),
    [*((name, (30, 17)) for name in ACTIVATIONS), ("relu", ()), ("relu", (128, 144))],
)
@pytest.mark.parametrize("batch", [1, 10, 31, 32, 128])
def test_mlp_equals_flaxs_dense_layers(batch, hidden_sizes, activation):
    obs = jax.random.normal(jax.random.key(0), (batch, 6))
    oracle = Stack((*hidden_sizes, 3), activation)
    params = oracle.init(jax.random.key(1), obs)
    params = jax.tree.map(lambda x: x + 0.1, params)  # biases count too
    ours = networks.MLP(3, hidden_sizes, activation)
    np.testing.assert_allclose(
        jax.jit(ours.apply)(params, obs), oracle.apply(params, obs), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("hidden_sizes", [(16, 8), (128, 144)])
@pytest.mark.parametrize("batch", [4, 64])
def test_gradient_equals_flaxs(batch, hidden_sizes):
    obs = jax.random.normal(jax.random.key(0), (batch, 6))
    oracle = Stack((*hidden_sizes, 3), "tanh")
    ours = networks.MLP(3, hidden_sizes, "tanh")
    params = oracle.init(jax.random.key(1), obs)
    gradients = [
        jax.grad(lambda p, f=f: jnp.sum(jnp.square(f.apply(p, obs))))(params)
        for f in (oracle, ours)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)


def test_parameters_are_laid_out_as_flaxs_whatever_the_batch():
    shapes = [
        jax.tree.map(jnp.shape, network.init(jax.random.key(0), jnp.zeros((batch, 6))))
        for network in (networks.MLP(3, (16, 8)), Stack((16, 8, 3), "relu"))
        for batch in (1, 64)
    ]
    assert all(shape == shapes[0] for shape in shapes)


def test_start_does_not_depend_on_the_batch():
    one, many = (
        networks.MLP(3, (16,)).init(jax.random.key(0), jnp.zeros((batch, 6))) for batch in (1, 64)
    )
    jax.tree.map(np.testing.assert_array_equal, one, many)


def layers(initializer, seed=0):
    """Kernel and bias of a wide layer: fan in 300, fan out 200."""
    layer = dense.Dense(200, False, initializer)
    params = layer.init(jax.random.key(seed), jnp.zeros((1, 300)))["params"]
    return np.asarray(params["kernel"]).ravel(), np.asarray(params["bias"])


# All thresholds on p-values are met by chance by all but one key in ten thousand; keys are fixed.
LEVEL = 1e-4


def test_lecun_normal_is_a_truncated_normal_of_variance_one_by_fan_in():
    kernel, bias = layers("lecun_normal")
    deviation = 300**-0.5
    # The variance of a standard normal cut at two standard deviations is 0.8796**2.
    scale = deviation / 0.87962566103423978
    distribution = scipy.stats.truncnorm(-2, 2, scale=scale)
    assert scipy.stats.kstest(kernel, distribution.cdf).pvalue > LEVEL
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    assert np.abs(kernel).max() <= 2 * scale * 1.0001
    assert np.all(bias == 0)


def test_glorot_uniform_is_bounded_by_both_fans():
    kernel, bias = layers("glorot_uniform")
    bound = np.sqrt(6 / (300 + 200))
    assert scipy.stats.kstest(kernel, scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > LEVEL
    assert np.abs(kernel).max() <= bound
    assert np.all(bias == 0)


def test_torch_is_uniform_within_one_by_root_fan_in_biases_too():
    kernel, bias = layers("torch")
    bound = 300**-0.5
    uniform = scipy.stats.uniform(-bound, 2 * bound).cdf
    assert scipy.stats.kstest(kernel, uniform).pvalue > LEVEL
    assert scipy.stats.kstest(bias, uniform).pvalue > LEVEL
    assert max(np.abs(kernel).max(), np.abs(bias).max()) <= bound
    assert not np.intersect1d(kernel, bias).size  # keys of their own


@pytest.mark.parametrize("initializer", ["lecun_normal", "glorot_uniform"])
def test_flaxs_initializers_draw_flaxs_numbers(initializer):
    ours = dense.Dense(20, False, initializer).init(jax.random.key(2), jnp.zeros((1, 30)))
    flaxs = nn.Dense(20, kernel_init=getattr(nn.initializers, initializer)())
    jax.tree.map(
        np.testing.assert_array_equal, ours, flaxs.init(jax.random.key(2), jnp.zeros((1, 30)))
    )


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_initializers_do_not_depend_on_the_memory_layout(initializer, batch):
    obs = jnp.zeros((batch, 7))
    given = networks.MLP(2, (5,), "relu", initializer).init(jax.random.key(1), obs)
    expected = networks.MLP(2, (5,), "relu", initializer).init(jax.random.key(1), obs[:1])
    jax.tree.map(np.testing.assert_array_equal, given, expected)


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.bool_, jnp.float32, jnp.float16])
def test_any_dtype_and_shape_is_flattened_and_cast(dtype, batch):
    whole = jax.random.randint(jax.random.key(0), (batch, 4, 3, 2), 0, 256)
    obs = whole.astype(dtype)
    network = networks.MLP(3, (8,))
    params = network.init(jax.random.key(1), obs)
    q_values = network.apply(params, obs)
    assert q_values.dtype == jnp.float32 and q_values.shape == (batch, 3)
    flat = np.asarray(obs).astype(np.float32).reshape(batch, 24)
    np.testing.assert_allclose(q_values, network.apply(params, flat), rtol=1e-6)
    assert np.ptp(np.asarray(q_values)) > 0


@pytest.mark.parametrize("batch", [5, 50])
def test_categories_are_one_hot_encoded(batch):
    obs = jnp.arange(batch, dtype=jnp.int32) % 5
    network = networks.MLP(3, (8,), num_categories=5)
    params = network.init(jax.random.key(1), obs)
    assert params["params"]["Dense_0"]["kernel"].shape == (5, 8)
    plain = networks.MLP(3, (8,)).apply(params, np.eye(5, dtype=np.float32)[np.asarray(obs)])
    np.testing.assert_allclose(network.apply(params, obs), plain, rtol=1e-6)
    assert network.apply(params, obs).dtype == jnp.float32


@pytest.mark.parametrize("batch", [5, 50])
def test_embedding_equals_flaxs_with_its_gradient(batch):
    obs = jax.random.randint(jax.random.key(0), (batch,), 0, 20, jnp.int32)
    ours = networks.Embedding(3, (8,), 20, 6, "tanh")
    params = ours.init(jax.random.key(1), obs)["params"]
    params = jax.tree.map(lambda x: x + 0.1, params)
    embed, stack = nn.Embed(20, 6), Stack((8, 3), "tanh")

    def flaxs(params, obs):
        layers = {name: params[name] for name in ("Dense_0", "Dense_1")}
        features = embed.apply({"params": params["Embed_0"]}, obs)
        return stack.apply({"params": layers}, features)

    q_values = ours.apply({"params": params}, obs)
    assert q_values.dtype == jnp.float32 and q_values.shape == (batch, 3)
    np.testing.assert_allclose(q_values, flaxs(params, obs), rtol=1e-5, atol=1e-6)
    gradients = [
        jax.grad(lambda p, f=f: jnp.sum(jnp.square(f(p))))(params)
        for f in (lambda p: ours.apply({"params": p}, obs), lambda p: flaxs(p, obs))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)
    seen = np.isin(np.arange(20), obs)
    moved = np.any(np.asarray(gradients[0]["Embed_0"]["embedding"]) != 0, axis=1)
    np.testing.assert_array_equal(moved, seen)


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_embeddings_start_as_their_frameworks_do(initializer):
    network = networks.Embedding(2, (), 500, 10, initializer=initializer)
    params = network.init(jax.random.key(3), jnp.zeros(1, jnp.int32))["params"]
    table = np.asarray(params["Embed_0"]["embedding"]).ravel()
    distributions = {
        "lecun_normal": scipy.stats.norm(0, 10**-0.5),
        "glorot_uniform": scipy.stats.uniform(-0.05, 0.1),
        "torch": scipy.stats.norm(),
    }
    assert scipy.stats.kstest(table, distributions[initializer].cdf).pvalue > LEVEL
    if initializer == "lecun_normal":  # flax's own
        own = nn.Embed(500, 10).init(jax.random.key(3), jnp.zeros(1, jnp.int32))["params"]
        np.testing.assert_allclose(table.std(), own["embedding"].std(), rtol=0.03)


KINDS = {"mlp": networks.MLP, "embedding": networks.Embedding}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_in_the_configuration_is_built(name):
    kind = KINDS.get(name, networks.ConvNet)
    config = Config(network=name, embedding_size=7, convolution="plain")
    network = networks.make_network(config, 3, 20)
    assert type(network) is kind and network.num_actions == 3
    if kind is networks.ConvNet:
        assert network.layers == TORSOS[name] and network.form == "plain"
    if name == "embedding":
        assert network.num_categories == 20
    assert getattr(network, "embedding_size", 7) == 7


def test_categories_must_be_counted():
    with pytest.raises(ConfigError, match="'embedding' needs the number of categories"):
        networks.make_network(Config(network="embedding"), 3, None)


def test_a_table_gives_the_row_of_each_category():
    network = tabular.Table(3, 5, initial_q=2.5)
    obs = jnp.array([4, 0, 4], jnp.int32)
    params = network.init(jax.random.key(0), obs)
    np.testing.assert_array_equal(params["params"]["table"], np.full((5, 3), 2.5, np.float32))
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    q_values = network.apply({"params": {"table": table}}, obs)
    assert q_values.dtype == jnp.float32
    np.testing.assert_array_equal(q_values, table[[4, 0, 4]])


def test_make_network_follows_the_configuration():
    config = dataclasses.replace(
        Config(), hidden_sizes=(9, 4), activation="tanh", initializer="torch"
    )
    params = networks.make_network(config, 3, None).init(jax.random.key(0), jnp.zeros((1, 6)))
    shapes = jax.tree.map(jnp.shape, params["params"])
    assert shapes == {
        "Dense_0": {"kernel": (6, 9), "bias": (9,)},
        "Dense_1": {"kernel": (9, 4), "bias": (4,)},
        "Dense_2": {"kernel": (4, 3), "bias": (3,)},
    }
    assert np.all(np.asarray(params["params"]["Dense_0"]["bias"]) != 0)  # torch's, not flax's
    obs = jax.random.normal(jax.random.key(1), (10, 6))
    np.testing.assert_allclose(
        networks.make_network(config, 3, None).apply(params, obs),
        Stack((9, 4, 3), "tanh").apply(params, obs),
        rtol=1e-5,
    )


def test_every_name_in_the_configuration_is_built():
    assert set(ACTIVATIONS) == set(dense.ACTIVATIONS) == set(ORACLE_ACTIVATIONS)
    for initializer in INITIALIZERS:
        params = networks.MLP(2, (4,), "relu", initializer).init(
            jax.random.key(0), jnp.zeros((1, 3))
        )
        assert np.all(np.asarray(params["params"]["Dense_0"]["kernel"]) != 0)
