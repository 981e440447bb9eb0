"""Which devices a run gets, and that the prediction of memory is what is really taken."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dqx
import envs  # noqa: F401 (splits the CPU into cores)
from dqx import devices, memory
from dqx.config import Config, ConfigError, Hyper, validate
from dqx.environment import Environment, make_environment
from dqx.loop import make_trainer
from dqx.networks import ACTIVATIONS
from dqx.parallel import Programs
from envs._cores import cpu_cores

CPU = jax.local_devices(backend="cpu")


def test_cpu_is_every_core():
    assert len(CPU) == cpu_cores()
    assert devices.select_devices("cpu") == tuple(CPU)


@pytest.mark.parametrize("count", range(1, len(CPU) + 1))
def test_a_number_takes_as_many(count):
    assert devices.select_devices(f"cpu:{count}") == tuple(CPU[:count])


def test_nothing_is_every_device_of_the_default_kind():
    chosen = devices.select_devices(None)
    assert chosen == tuple(jax.local_devices(backend=jax.default_backend()))


def test_devices_themselves_pass():
    assert devices.select_devices(CPU[-1:]) == (CPU[-1],)
    assert devices.select_devices(tuple(CPU)) == tuple(CPU)


def test_no_devices_are_refused():
    with pytest.raises(ConfigError, match="devices"):
        devices.select_devices([])


@pytest.mark.parametrize(
    "spec",
    ["cpu:0", "cpu:-1", "cpu:1.5", "cpu:two", "cpu:", "cpu:1:2", "", ":", ":1", "CPU", "nonsense"],
)
def test_specs_that_cannot_be_read_are_refused(spec):
    with pytest.raises(ConfigError) as caught:
        devices.select_devices(spec)
    message = str(caught.value)
    assert "cpu, gpu or tpu" in message and "cpu:2" in message and repr(spec) in message


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ConfigError, match=f"'cpu:999'.*only {len(CPU)} cpu.*cpu:{len(CPU)}"):
        devices.select_devices("cpu:999")


@pytest.mark.parametrize("spec", ["gpu", "tpu", "gpu:1", "tpu:4"])
def test_kinds_that_are_absent_are_refused(spec):
    kind = spec.partition(":")[0]
    if kind == jax.default_backend():
        pytest.skip(f"this machine has a {kind}")
    with pytest.raises(ConfigError, match=f"{spec!r}.*finds no {kind} here") as caught:
        devices.select_devices(spec)
    assert "\n" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device that reports memory as JAX's GPU devices do."""

    stats: dict | None
    platform: str = "gpu"

    def memory_stats(self):
        return self.stats


def test_free_memory_of_accelerators_is_what_the_fullest_leaves_on_each():
    full = Accelerator({"bytes_limit": 1000, "bytes_in_use": 900})
    empty = Accelerator({"bytes_limit": 1000, "bytes_in_use": 0})
    assert devices.free_bytes([empty]) == 1000
    assert devices.free_bytes([empty, empty]) == 2000
    assert devices.free_bytes([full, empty]) == 200  # lanes are spread evenly
    assert devices.free_bytes([Accelerator(None)]) >= 2**62


def test_free_memory_of_cpu_devices_is_the_machines(monkeypatch):
    class Virtual:
        available = 12345

    monkeypatch.setattr(devices.psutil, "virtual_memory", lambda: Virtual)
    assert devices.free_bytes(CPU) == devices.free_bytes(CPU[:1]) == 12345


SMALL = Config(
    hidden_sizes=(16, 8),
    num_envs=2,
    total_steps=480,
    learning_starts=40,
    train_period=4,
    log_period=24,
    eval_period=120,
    replay_capacity=96,
    batch_size=16,
)
PIXELS = Environment(
    obs_shape=(4, 5, 3),
    obs_dtype=jnp.uint8,
    num_categories=None,
    num_actions=3,
    max_steps=10,
    reset=lambda key: (jnp.zeros((4, 5, 3), jnp.uint8), {"time": jnp.int32(0), "on": jnp.bool_(1)}),
    step=None,
    observe=None,
    model=None,
)

CONFIGS = {
    "small": {},
    "one environment": {"num_envs": 1},
    "large replay": {"replay_capacity": 10_000},
    "sgd": {"optimizer": "sgd"},
    "rmsprop": {"optimizer": "rmsprop"},
    "deep": {"hidden_sizes": (64, 64, 3)},
}


def nbytes(tree):
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total += leaf.nbytes
    return total


def nbytes_of_shapes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("fields", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "pixels"])
def test_predicted_state_is_exactly_what_a_lane_takes(name, fields):
    config = dataclasses.replace(SMALL, **fields)
    env = PIXELS if name == "pixels" else make_environment(name)
    need = memory.predict(config, env)
    lane = make_trainer(config, env).init(jax.random.key(0))
    assert need.replay == nbytes(lane.replay_rows)
    assert need.replay + need.state == nbytes(lane)
    assert need.total == need.replay + need.state + need.working and need.working > 0


def test_pixels_take_a_byte_each_in_the_replay():
    # Two observations of 60 bytes, and action, reward and discount of 4 each.
    assert memory.predict(SMALL, PIXELS).replay == 96 * (2 * 60 + 3 * 4)


class Workload(NamedTuple):
    """Fields over CleanRL's CartPole preset, the chunk width, and the program that needs most."""

    fields: dict
    width: int
    program: str


# Each has another largest term; short intervals have few random numbers.
SHORT = {"log_period": 200, "learning_starts": 200}
PIXEL_LOOP = {
    "num_envs": 8, "train_period": 8, "updates_per_train": 2, "batch_size": 32,
    "log_period": 2000, "learning_starts": 2000,
}  # fmt: skip
TAXI_LOOP = {
    "env": "Taxi-v4", "hidden_sizes": (50, 50), "num_envs": 1, "train_period": 1, "batch_size": 32,
    "log_period": 1000, "learning_starts": 1000,
}  # fmt: skip
WORKLOADS = {
    "batches' rows": Workload(
        {"log_period": 2500, "learning_starts": 2500, "hidden_sizes": (16,)}, 4, "segment"
    ),
    "gradients": Workload({**SHORT, "hidden_sizes": (256, 256), "batch_size": 32}, 1, "segment"),
    "activations": Workload(
        {**SHORT, "hidden_sizes": (600,), "batch_size": 256, "double": True}, 4, "segment"
    ),
    "resets": Workload({"log_period": 10_070, "learning_starts": 10_000}, 8, "warm_up"),
    "evaluation": Workload({**SHORT, "eval_episodes": 2000}, 4, "evaluate"),
    "convolutions": Workload(
        {**PIXEL_LOOP, "env": "Breakout-MinAtar", "network": "minatar_cnn", "hidden_sizes": (128,)},
        4,
        "segment",
    ),
    "evaluation from pixels": Workload(
        {**PIXEL_LOOP, "env": "WallDodge-v0", "network": "nature_cnn", "eval_episodes": 200},
        4,
        "evaluate",
    ),
    "embedding": Workload({**TAXI_LOOP, "network": "embedding"}, 4, "segment"),
    "table": Workload(
        {**TAXI_LOOP, "network": "table", "sampling": "newest", "batch_size": 1}, 4, "segment"
    ),
}


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_a_prediction_is_what_xla_allocates(workload):
    fields, width, name = workload
    config, hyper = dqx.override(*dqx.preset("cartpole/cleanrl"), replay_capacity=1000, **fields)
    env = make_environment(config.env)
    programs = Programs(config, env, CPU[:1], width, 0)
    hypers = programs.per_lane(jax.tree.map(lambda x: np.full(width, x, np.float32), hyper))
    clock, lanes = programs.init(range(width))
    state = nbytes(lanes) // programs.mesh.size
    # While a program runs, the host still reads the results of the segment before.
    segment = programs.segment_chunk(config.log_period)
    before = nbytes_of_shapes(jax.eval_shape(segment, clock, lanes, hypers)[2:])
    before //= programs.mesh.size
    if name == "segment":
        programs.segment(clock, lanes, hypers, config.log_period)
    elif name == "warm_up":
        programs.warm_up(clock, lanes, config.learning_starts)
    else:
        programs.evaluate(clock, lanes)
    (program,) = (p for (kind, _), p in programs._compiled.items() if kind == name)
    xla = program.memory_analysis()
    # An evaluation is not given the replay, which stays where it is all the same.
    given = state if name == "evaluate" else xla.argument_size_in_bytes
    results = xla.output_size_in_bytes - xla.alias_size_in_bytes
    taken = before + given + results + xla.temp_size_in_bytes
    predicted = memory.predict_chunk(config, env, width)
    assert predicted == pytest.approx(taken, rel=0.1)
    # Nor does the state, which is exact, hide an error of the rest.
    assert predicted - state == pytest.approx(taken - state, rel=0.1)
    assert width * memory.predict(config, env).total == pytest.approx(taken, rel=0.1)


def test_lanes_share_what_resets_do_not_draw():
    lane = memory.predict(SMALL, PIXELS).total  # resets are constants of 60, 4 and 1 bytes
    assert memory.predict_chunk(SMALL, PIXELS, 1) == lane
    assert 0.5 * 5 * lane < memory.predict_chunk(SMALL, PIXELS, 5) < 5 * lane


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_predicted(activation):
    config = dataclasses.replace(SMALL, batch_size=96, hidden_sizes=(512,), activation=activation)
    # A batch of inputs and outputs of the hidden layer, at the least one of them.
    assert memory.predict(config, PIXELS).working > 4 * 96 * (60 + 512)


def test_a_prediction_compiles_nothing():
    config = dataclasses.replace(SMALL, batch_size=15, log_period=40)  # shapes of its own
    env = make_environment("Breakout-MinAtar")
    compiled = []
    listener = lambda event, *_, **__: compiled.append(event)  # noqa: E731
    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        assert memory.predict(config, env).working > 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not [event for event in compiled if "backend_compile" in event]


def test_what_fits_passes_and_one_byte_too_little_does_not():
    env = make_environment("CartPole-v1")
    need = memory.predict(SMALL, env).total * 8
    enough = next(free for free in range(need, 2 * need) if int(free * 0.9) >= need)
    memory.check(SMALL, env, 8, 2, enough)
    with pytest.raises(ConfigError):
        memory.check(SMALL, env, 8, 2, enough - 1)


def refusal(config, env, lanes, num_devices, free):
    with pytest.raises(ConfigError) as caught:
        memory.check(config, env, lanes, num_devices, free)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("num_devices", [1, 2])
@pytest.mark.parametrize("num_envs", [1, 2, 96])
def test_every_proposal_of_a_refusal_passes(num_envs, num_devices, share):
    env = make_environment("CartPole-v1")
    config = dataclasses.replace(
        SMALL, num_envs=num_envs, train_period=96, learning_starts=96, log_period=96,
        total_steps=960, eval_period=96, replay_capacity=96 * 1000,
    )  # fmt: skip
    validate(config, Hyper())
    lanes = 8 * num_devices
    free = int(memory.predict(config, env).total * lanes / 0.9 * share)
    message = refusal(config, env, lanes, num_devices, free)
    (capacity,) = re.findall(r"replay_capacity=(\d+)", message)
    smaller = dataclasses.replace(config, replay_capacity=int(capacity))
    validate(smaller, Hyper())
    memory.check(smaller, env, lanes, num_devices, free)
    larger = dataclasses.replace(smaller, replay_capacity=int(capacity) + num_envs)
    refusal(larger, env, lanes, num_devices, free)  # the largest that fits was proposed
    (width,) = re.findall(r"chunk_width=(\d+)", message)
    memory.check(config, env, int(width) * num_devices, num_devices, free)
    refusal(config, env, (int(width) + 1) * num_devices, num_devices, free)


def test_a_refusal_says_need_and_free():
    env = make_environment("CartPole-v1")
    config = dataclasses.replace(SMALL, replay_capacity=10_000_000)
    need, gib = memory.predict(config, env), 2**30
    message = refusal(config, env, 8, 1, 2 * gib)
    assert f"8 seeds at a time need about {8 * need.total / gib:.2f} GiB" in message
    assert f"{8 * need.replay / gib:.2f} GiB of it replay" in message
    assert re.search(r"\b2\.00 GiB[a-z ]* is free", message) and "\n" not in message


def test_where_nothing_would_fit_nothing_is_proposed():
    message = refusal(SMALL, make_environment("CartPole-v1"), 8, 1, 1000)
    assert "neither" in message and not re.search(r"(replay_capacity|chunk_width)=", message)


def test_a_table_too_large_for_memory_says_so():
    taxi = make_environment("Taxi-v4")
    large = taxi._replace(num_categories=2**27)
    config = dataclasses.replace(
        SMALL, env="Taxi-v4", network="table", batch_size=4, sampling="newest"
    )
    message = refusal(config, large, 4, 1, 2**33)
    # Values and visits of 4 bytes for each category and action, for four seeds.
    assert f"4 seeds at a time need about {4 * 2 * 4 * 6 * 2**27 / 2**30:.2f} GiB" in message
    assert "most of it is tables of 805,306,368 values: network = embedding takes less" in message
    roomy = dataclasses.replace(config, replay_capacity=96_000)
    assert "tables of" not in refusal(roomy, taxi, 4, 1, 2**12)
    assert "\n" not in message
