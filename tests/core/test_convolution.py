"""Convolutions against flax's, what the torsos are, and learning from frames."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
from dqx.agents import make_agent
from dqx.core import convolution, networks
from dqx.core.agent import Spec
from dqx.core.convolution import TORSOS, Layer, seed_by_seed, smallest_frame
from dqx.settings import SETTINGS, ConfigError
from tests import probes
from tests.shared import quickly

CONVOLUTIONS, INITIALIZERS = (SETTINGS[name].names() for name in ("convolution", "initializer"))

# Height, width, input channels, batch; layer. Kernels that are multiples of the stride and not,
# frames with rows left over, single outputs, single channels.
SHAPES = [
    ((40, 40, 1, 3), Layer(32, 8, 4)),
    ((9, 9, 32, 2), Layer(64, 4, 2)),
    ((3, 3, 64, 32), Layer(64, 3, 1)),
    ((10, 10, 4, 5), Layer(16, 3, 1)),
    ((11, 14, 3, 2), Layer(5, 4, 2)),
    ((12, 9, 3, 2), Layer(5, 3, 2)),
    ((13, 17, 2, 2), Layer(4, 5, 3)),
    ((16, 15, 1, 2), Layer(4, 7, 4)),
    ((14, 11, 2, 2), Layer(3, 2, 3)),
    ((8, 8, 1, 1), Layer(1, 8, 4)),
    ((5, 6, 2, 4), Layer(3, 1, 1)),
]


def starts(fan_in):
    return nn.initializers.lecun_normal(), nn.initializers.normal(1.0)


def assert_near(given, expected):
    """To 1e-5 of the largest number of each array."""

    def near(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1e-3, np.abs(b).max()))

    jax.tree.map(near, given, expected)


def outputs_and_gradients(shape, layer):
    """Of flax's convolution, and of both forms with the same parameters."""
    height, width, channels, batch = shape
    x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
    side, stride = (layer.kernel, layer.kernel), (layer.stride, layer.stride)
    flaxs = nn.Conv(layer.features, side, stride, padding="VALID")
    forms = {form: convolution.Conv(layer, form, starts) for form in CONVOLUTIONS}
    params = forms["blocks"].init(jax.random.key(1), x)
    weights = jax.random.normal(jax.random.key(2), flaxs.apply(params, x).shape)

    def both(network):
        def loss(params, x):
            outputs = network.apply(params, x)
            return jnp.sum(weights * outputs), outputs

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    return both(flaxs), {form: both(network) for form, network in forms.items()}


@pytest.fixture(scope="module")
def computed():
    return quickly(lambda: [outputs_and_gradients(*case) for case in SHAPES])()


@pytest.mark.parametrize("form", CONVOLUTIONS)
@pytest.mark.parametrize("case", range(len(SHAPES)), ids=[str(case) for case in SHAPES])
def test_convolution_equals_flaxs_with_its_gradients(computed, case, form):
    expected, given = computed[case]
    assert expected[1].size
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(expected))
    assert_near(given[form], expected)


class Stack(nn.Module):
    """The same network of flax's own layers, with parameters of the same names."""

    layers: tuple
    sizes: tuple

    @nn.compact
    def __call__(self, x):
        for features, side, stride in self.layers:
            x = nn.relu(nn.Conv(features, (side, side), (stride, stride), padding="VALID")(x))
        x = x.reshape(len(x), -1)
        for size in self.sizes[:-1]:
            x = nn.relu(nn.Dense(size)(x))
        return nn.Dense(self.sizes[-1])(x)


ARTICLES = {
    # The wall-dodge article's and Nature DQN's are one torso with different dense layers.
    "wall-dodge": ("nature_cnn", ((32, 8, 4), (64, 4, 2), (64, 3, 1)), (100,), (32, 40, 40, 1)),
    "nature": ("nature_cnn", ((32, 8, 4), (64, 4, 2), (64, 3, 1)), (512,), (2, 84, 84, 4)),
    "minatar": ("minatar_cnn", ((16, 3, 1),), (128,), (32, 10, 10, 4)),
    "ours for large frames": ("coarse_cnn", ((32, 8, 8), (64, 4, 2)), (128,), (4, 80, 80, 1)),
}


def configured(name, hidden_sizes, num_actions=3, **fields):
    config = dataclasses.replace(dqx.Config(), network=name, hidden_sizes=hidden_sizes, **fields)
    return networks.make_network(config, num_actions, None)


@pytest.mark.parametrize(("name", "layers", "hidden", "shape"), ARTICLES.values(), ids=ARTICLES)
def test_torsos_are_the_articles(name, layers, hidden, shape):
    oracle = Stack(layers, (*hidden, 3))
    obs = jax.random.randint(jax.random.key(0), shape, 0, 256).astype(jnp.uint8)
    variants = [
        (configured(name, hidden, convolution=form, scale_pixels=scaled), scaled)
        for form in CONVOLUTIONS
        for scaled in (False, True)
    ]

    @quickly
    def run(obs):
        frames = obs.astype(jnp.float32)
        start = oracle.init(jax.random.key(1), frames[:1])
        params = jax.tree.map(lambda x: x + 0.01, start)  # biases count too
        expected = {s: oracle.apply(params, frames / (255 if s else 1)) for s in (False, True)}
        starts = [network.init(jax.random.key(1), obs) for network, _ in variants]
        return start, starts, expected, [network.apply(params, obs) for network, _ in variants]

    start, starts, expected, given = run(obs)
    for (_, scaled), own_start, q_values in zip(variants, starts, given, strict=True):
        # Flax's numbers at the start, so that its parameters and both forms' are interchangeable.
        assert_near(own_start, start)
        assert q_values.dtype == jnp.float32
        assert_near(q_values, expected[scaled])


def test_dense_networks_scale_frames_too():
    obs = jax.random.randint(jax.random.key(0), (4, 5, 5, 1), 0, 256).astype(jnp.uint8)
    network = configured("mlp", (8,))
    params = network.init(jax.random.key(1), obs)
    given = configured("mlp", (8,), scale_pixels=True).apply(params, obs)
    assert_near(given, network.apply(params, obs.astype(jnp.float32) / 255))


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_initializers_take_the_fan_in_of_the_whole_kernel(initializer):
    network = configured("minatar_cnn", (8,), initializer=initializer)
    params = quickly(network.init)(jax.random.key(0), jnp.zeros((1, 5, 5, 30)))["params"]
    kernel, bias = (np.asarray(params["Conv_0"][name]) for name in ("kernel", "bias"))
    fan_in, fan_out = 9 * 30, 9 * 16
    if initializer == "torch":
        assert np.abs(kernel).max() <= fan_in**-0.5 and np.abs(bias).max() <= fan_in**-0.5
        assert np.all(bias != 0)
    else:
        assert np.all(bias == 0)
    variances = {
        "lecun_normal": 1 / fan_in,
        "glorot_uniform": 2 / (fan_in + fan_out),
        "torch": 1 / (3 * fan_in),
    }
    np.testing.assert_allclose(kernel.std(), variances[initializer] ** 0.5, rtol=0.05)


def loss_and_gradient(network):
    def loss(params, obs, scale):
        return scale * jnp.mean(jnp.square(network.apply(params, obs)))

    return jax.value_and_grad(loss)


def test_seeds_in_turn_compute_what_each_does_alone():
    num_seeds = 3
    gradient = loss_and_gradient(configured("minatar_cnn", (8,)))
    keys = jax.random.split(jax.random.key(0), num_seeds)
    obs = jax.random.normal(jax.random.key(1), (num_seeds, 4, 6, 6, 2))
    params = quickly(jax.vmap(lambda k: configured("minatar_cnn", (8,)).init(k, obs[0])))(keys)
    # The last argument is shared by all seeds.
    chunk = quickly(jax.vmap(seed_by_seed(gradient), in_axes=(0, 0, None)))
    together, one = chunk(params, obs, 2.0), quickly(gradient)
    for i in range(num_seeds):
        alone = one(jax.tree.map(lambda x, i=i: x[i], params), obs[i], 2.0)
        assert_near(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_seeds_are_taken_in_turn_on_a_cpu_only_where_there_are_several():
    def program(function, num_seeds, platform):
        x = jax.ShapeDtypeStruct((num_seeds, 7, 7), jnp.float32)
        traced = jax.jit(jax.vmap(function)).trace(x)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    square = seed_by_seed(lambda x: x @ x)
    assert "stablehlo.while" in program(square, 3, "cpu")
    assert "stablehlo.while" not in program(square, 3, "cuda")
    assert "stablehlo.while" not in program(square, 1, "cpu")


@pytest.mark.parametrize(
    ("name", "side"), [("nature_cnn", 36), ("minatar_cnn", 3), ("coarse_cnn", 32)]
)
def test_the_smallest_frame_leaves_one_output(name, side):
    assert smallest_frame(TORSOS[name]) == side

    def outputs(size):
        x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        for layer in TORSOS[name]:
            kernel, stride = (layer.kernel, layer.kernel), (layer.stride, layer.stride)
            conv = nn.Conv(layer.features, kernel, stride, padding="VALID")
            x, _ = jax.eval_shape(conv.init_with_output, jax.random.key(0), x)
        return x.shape[1:3]

    assert outputs(side) == (1, 1) and outputs(side - 1) == (0, 0)


# --- What is refused.


def observing(shape=(40, 40, 1), dtype=jnp.uint8, num_categories=None):
    return Spec("Some-v0", shape, dtype, num_categories, num_actions=2)


REFUSED = [
    ("nature_cnn", observing((35, 80, 1)), ["36 x 36", "[35, 80, 1]", "mlp or minatar_cnn"]),
    ("nature_cnn", observing((80, 2, 1)), ["36 x 36", "[80, 2, 1]", "set network = mlp"]),
    ("minatar_cnn", observing((2, 9, 4)), ["3 x 3", "[2, 9, 4]", "set network = mlp"]),
    ("nature_cnn", observing((4,), jnp.float32), ["frames", "float32", "[4]", "mlp"]),
    ("minatar_cnn", observing((), jnp.int32, 500), ["frames", "below 500", "embedding"]),
    ("embedding", observing((4,), jnp.float32), ["Discrete", "[4]", "set network = mlp"]),
    ("embedding", observing(), ["Discrete", "uint8", "mlp or nature_cnn or minatar_cnn"]),
]


@pytest.mark.parametrize(("network", "spec", "words"), REFUSED)
def test_observations_that_a_network_cannot_take_are_refused(network, spec, words):
    with pytest.raises(ConfigError) as caught:
        make_agent(dqx.Config(network=network), spec)
    message = str(caught.value)
    named = (f"'{network}'", "Some-v0 gives", *words)
    assert all(word in message for word in named), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("network", "spec"),
    [
        ("nature_cnn", observing((36, 36, 1))),
        ("minatar_cnn", observing((3, 3, 1), jnp.bool_)),
        ("coarse_cnn", observing((32, 32, 1))),
        ("embedding", observing((), jnp.int32, 500)),
        ("mlp", observing()),
        ("mlp", observing((), jnp.int32, 500)),
    ],
)
def test_observations_that_a_network_can_take_pass(network, spec):
    agent = make_agent(dqx.Config(network=network), spec)
    params = jax.eval_shape(agent.init, jax.random.key(0)).params
    obs = jax.ShapeDtypeStruct((7, *spec.obs_shape), spec.obs_dtype)
    assert jax.eval_shape(agent.q_values, params, obs).shape == (7, 2)


def test_only_bytes_can_be_scaled():
    config = dqx.Config(scale_pixels=True)
    make_agent(config, observing())
    with pytest.raises(ConfigError, match="scale_pixels .*Some-v0 gives float32 arrays"):
        make_agent(config, observing((4,), jnp.float32))


def test_a_run_is_refused_before_anything_compiles():
    config = dqx.Config(env="Breakout-MinAtar", network="nature_cnn")
    with pytest.raises(
        ConfigError, match="36 x 36 pixels on, and Breakout-MinAtar gives .*10, 10, 4"
    ):
        dqx.train(config)


# --- Learning.


class Lamp(probes.Probe):
    """One pixel of 6 x 6 shines, and its column's half asks for an action: reward 1, else -1."""

    marks = 36

    def observation_space(self, params):
        return probes.spaces.Box(0, 255, (6, 6, 1), jnp.uint8)

    def look(self, state):
        return (255 * jax.nn.one_hot(state.mark, 36)).astype(jnp.uint8).reshape(6, 6, 1)

    def reward(self, state, action):
        return jnp.where(action == (state.mark % 6 >= 3), 1.0, -1.0)


@pytest.mark.long
def test_frames_are_stored_as_bytes_and_learned_from():
    config = dqx.Config(
        network="minatar_cnn", hidden_sizes=(16,), scale_pixels=True, num_envs=4, train_period=4,
        learning_starts=400, batch_size=32, replay_capacity=1_000, epsilon_schedule="constant",
    )  # fmt: skip
    hyper = dqx.Hyper(learning_rate=3e-3, epsilon_start=1.0)
    env = probes.adapted(Lamp)
    trainer = dqx.make_trainer(config, env)
    keys = jax.random.split(jax.random.key(3), 2)
    _, lanes, _, _ = probes.run_trainer(trainer, hyper, keys, config.learning_starts, 4_000)
    assert lanes.replay_rows["uint8"].shape == (2, 1_000, 2 * 36)  # an observation and the next
    frames = jax.vmap(lambda i: Lamp().look(probes.State(time=0, mark=i)))(jnp.arange(36))
    right = np.arange(36) % 6 >= 3
    expected = np.where(np.stack([~right, right], axis=1), 1.0, -1.0)
    for i in range(2):
        params = jax.tree.map(lambda x, i=i: x[i], lanes.agent.params)
        for form in CONVOLUTIONS:  # trained by the one, read by either
            agent = dqx.make_agent(dataclasses.replace(config, convolution=form), env)
            np.testing.assert_allclose(agent.q_values(params, frames), expected, atol=0.1)
