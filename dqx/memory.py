"""How much memory a chunk of seeds will need, known before anything is compiled."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from dqx.agent import LearnMetrics
from dqx.config import Config, ConfigError
from dqx.convolution import TORSOS, Layer
from dqx.environment import Environment
from dqx.evaluation import TABLE_BATCH
from dqx.loop import block_rounds, block_size, example_transition, make_trainer
from dqx.replay import row_bytes
from dqx.solution import solution_of
from dqx.types import PyTree

# Share of the free memory that a prediction may take, for what it does not count: JAX itself,
# programs, results.
_USABLE = 0.9
_WORD = 4  # bytes of a float32, an int32 or a random word
_LEARN_METRICS = len(LearnMetrics._fields)
_METRICS = _LEARN_METRICS + 1  # and epsilon
_CHOICE = 2 * _WORD  # coin and random action of a step
# Arrays that the backward pass needs of a layer: of relu its input and output, of tanh its output,
# of swish its sigmoid as well.
_KEPT = {"relu": 2, "tanh": 1, "swish": 3}


class MemoryNeed(NamedTuple):
    """Bytes that one lane needs.

    Attributes:
        replay: the replay's rows.
        state: everything else of a lane's state.
        working: what the largest program allocates beside the state: its results, those of the
            interval before, which the host still reads, and its temporaries.
    """

    replay: int
    state: int
    working: int

    @property
    def total(self) -> int:
        return sum(self)


class _Reset(NamedTuple):
    """Bytes of one reset of an environment.

    Attributes:
        drawn: of all leaves; of a constant, which a chunk holds once, only a lane's share.
        largest: of the largest leaf that differs between lanes.
        words: of the random words of the draw that needs most.
    """

    drawn: int
    largest: int
    words: int


def predict(config: Config, env: Environment) -> MemoryNeed:
    """Predicts the bytes of one lane from shapes alone; nothing is compiled.

    This is a chunk of one lane. Wider chunks need hardly less a lane; see ``predict_chunk``.
    """
    return _predict(config, env, 1)


def predict_chunk(config: Config, env: Environment, width: int) -> int:
    """Predicts the bytes of a chunk of ``width`` lanes.

    It is below ``width`` times those of one lane where resets give constants: lanes share them.
    """
    return width * _predict(config, env, width).total


def _predict(config: Config, env: Environment, width: int) -> MemoryNeed:
    """Bytes of one of ``width`` lanes.

    Terms and coefficients follow how XLA's CPU backend assigns buffers. It reuses memory, so what
    counts is not the sum of all arrays but the largest set that is live at once.
    """
    lane = jax.eval_shape(make_trainer(config, env).init, _key())
    replay = config.replay_capacity * row_bytes(example_transition(env))
    reset, rest = _reset(env, width), config.learning_starts % config.log_period
    # Only the first intervals warm up, one of them maybe in part.
    warm_ups = {min(config.learning_starts, config.log_period), rest} - {0}
    segments = {config.log_period, config.log_period - rest}
    results = 8 * config.log_period + _WORD * _METRICS
    programs = [
        *(results + _warm_up(config, env, reset, steps) for steps in warm_ups),
        *(results + _segment(config, env, reset, steps, width) for steps in segments),
        _evaluate(config, env) if config.eval_period else 0,
        _q_table(config, env) if config.exact_metrics else 0,
    ]
    return MemoryNeed(replay, _bytes(lane) - replay, results + max(programs))


def _warm_up(config: Config, env: Environment, reset: _Reset, steps: int) -> int:
    """Temporaries of ``warm_up`` for ``steps`` environment steps."""
    count = steps // config.num_envs
    size = block_size(count, block_rounds(config, env))
    stacks = _stacks(steps, size * config.num_envs, 0, 0)
    return stacks + max(_resets(reset, size, config.num_envs), _drawn(reset, size, config.num_envs))


def _segment(config: Config, env: Environment, reset: _Reset, steps: int, width: int) -> int:
    """Temporaries of ``segment`` for ``steps`` environment steps.

    A block first draws the rows of its batches, then the numbers of its steps, then runs its rounds
    on what it has drawn. The stacked outputs of all rounds are there throughout.
    """
    count, num_envs = steps // config.train_period, config.num_envs
    rounds = block_size(count, block_rounds(config, env))
    times = rounds * config.train_period // num_envs  # steps of all environments
    updates = rounds * config.updates_per_train
    rows = updates * config.batch_size
    block_steps = rounds * config.train_period
    stacks = _stacks(steps, block_steps, count * config.updates_per_train, updates)
    learning = _learn(config, env) + _convolutions(config, env, width)
    # Threefry turns two counters into two words for each number. Beside it there are the keys under
    # way of two purposes of every environment, and of the folding in of every step and update.
    indices = 4 * _WORD * rows + times * (4 * num_envs + 5) * _WORD + 5 * updates * _WORD
    held = _WORD * rows
    drawing = held + max(_resets(reset, times, num_envs), _drawn(reset, times, num_envs))
    held += times * num_envs * (reset.drawn + _CHOICE)
    return stacks + max(indices, drawing, held + learning, held + _act(config, env))


def _stacks(steps: int, block_steps: int, updates: int, block_updates: int) -> int:
    """Outputs of the rounds, before they are results.

    One of the two arrays of episodes lies where the result will be. Where there are several blocks,
    those of the block under way come on top.
    """
    whole = _WORD * steps + _WORD * _LEARN_METRICS * updates
    block = 2 * _WORD * block_steps + _WORD * _LEARN_METRICS * block_updates
    return whole + block if steps > block_steps else whole


def _resets(reset: _Reset, times: int, num_envs: int) -> int:
    """Drawing the resets of a block: threefry as above, and about ten words of keys a reset."""
    return times * num_envs * (4 * reset.words + 10 * _WORD)


def _drawn(reset: _Reset, times: int, num_envs: int) -> int:
    """What a block has drawn for its steps, while its largest array is put into their order."""
    return times * num_envs * (reset.drawn + _CHOICE + reset.largest)


def _learn(config: Config, env: Environment) -> int:
    """Temporaries of one update; the batch's rows are let go before gradients add up."""
    rows = config.batch_size * row_bytes(example_transition(env))
    widths = _widths(config, env)
    return max(rows + _forward(config, widths), _backward(config, widths))


def _forward(config: Config, widths: tuple[int, ...]) -> int:
    """Activations of a batch; all networks go through it side by side, layer by layer."""
    inputs, *hidden, _ = widths
    others = 2 if config.double else 1  # networks that see the next observations
    # Swish's output, which its input and its sigmoid give, is left until the others are through.
    beside = others - (config.activation == "swish")
    floats = [3 * inputs]  # as gathered: the observations, and the next ones in two layouts
    for i, width in enumerate(hidden):
        below = widths[i]
        kept = inputs + _KEPT[config.activation] * sum(hidden[:i])
        floats += [
            kept + width + max(others * below + width, below + others * width),
            kept + (_KEPT[config.activation] + beside) * width,
        ]
    return _WORD * config.batch_size * max(floats)


def _backward(config: Config, widths: tuple[int, ...]) -> int:
    """Gradients add up from the last layer to the first while activations are let go.

    The norm of a layer's gradient takes a copy of it, while that of the layer below is computed.
    """
    inputs, *hidden, _ = widths
    weights = [_WORD * (below + 1) * above for below, above in itertools.pairwise(widths)]
    needs = [sum(weights) + weights[0]]
    for i in range(len(weights)):
        # Gradients of the layer's own output and input; the network's output is hardly any.
        passed = sum(hidden[max(i - 1, 0) : i + 1]) if i < len(hidden) else 0
        floats = inputs + _KEPT[config.activation] * sum(hidden[:i]) + passed
        copied = sum(weights[i + 1 : i + 2])
        needs.append(sum(weights[i:]) + copied + _WORD * config.batch_size * floats)
    return max(needs)


def _act(config: Config, env: Environment) -> int:
    """Temporaries of one step of all environments: the network's, and the step beside them."""
    obs, state = jax.eval_shape(env.reset, _key())
    step = 2 * (_bytes(obs) + _bytes(state))
    return _pass(config, env, config.num_envs) + config.num_envs * step


def _evaluate(config: Config, env: Environment) -> int:
    """Results and temporaries of ``evaluate``: the network's, observations, old and new states."""
    obs, state = jax.eval_shape(env.reset, _key())
    episode = 4 * _WORD  # return, length, whether it is running, action
    carried = _bytes(obs) + 2 * _bytes(state) + episode
    num = config.eval_episodes
    return num * (2 * _WORD + carried) + _pass(config, env, num)


def _q_table(config: Config, env: Environment) -> int:
    """Results and temporaries of ``q_table``: all Q-values twice, and a batch."""
    values = _WORD * solution_of(config.env).model.num_states * env.num_actions
    obs, _ = jax.eval_shape(env.reset, _key())
    return 2 * values + TABLE_BATCH * _bytes(obs) + _pass(config, env, TABLE_BATCH)


def _pass(config: Config, env: Environment, count: int) -> int:
    """Temporaries of the network's pass over ``count`` observations of each lane.

    Of dense layers two at a time, or their inputs as floats in two layouts. Of convolutions the
    kernels in another layout, and at a time the patches as they were stored and as floats, the
    patches with the output, or the output before and after its activation; XLA's own take the input
    as floats instead of the patches.
    """
    widths = _widths(config, env)
    floats = [2 * widths[0], *(above + below for above, below in itertools.pairwise(widths))]
    below, stored, kernels = math.prod(env.obs_shape), np.dtype(env.obs_dtype).itemsize / _WORD, 0
    for layer, channels, (rows, columns) in _conv_shapes(config, env):
        output = rows * columns * layer.features
        taken = below
        if config.convolution == "blocks":
            side = -(-layer.kernel // layer.stride) * layer.stride
            taken = rows * columns * side**2 * channels
            floats.append(taken + math.ceil(taken * stored))
        floats += [taken + output, 2 * output]
        kernels += layer.kernel**2 * channels * layer.features
        below, stored = output, 1.0
    return _WORD * (kernels + count * max(floats))


def _convolutions(config: Config, env: Environment, width: int) -> int:
    """Patches, outputs and activations of each convolution, and as much again for the gradient."""
    floats = 0
    for layer, channels, (rows, columns) in _conv_shapes(config, env):
        floats += rows * columns * (layer.kernel**2 * channels + 2 * layer.features)
    need = 2 * _WORD * config.batch_size * floats
    # On a CPU they are computed for one lane after another; see ``convolution.seed_by_seed``.
    in_turn = config.convolution == "blocks" and jax.default_backend() == "cpu"
    return -(-need // width) if in_turn else need


def _conv_shapes(config: Config, env: Environment) -> list[tuple[Layer, int, tuple[int, int]]]:
    """The convolutions of the network with their input channels and the size of their output."""
    if config.network not in TORSOS:
        return []
    rows, columns, channels = env.obs_shape
    found = []
    for layer in TORSOS[config.network]:
        rows, columns = ((size - layer.kernel) // layer.stride + 1 for size in (rows, columns))
        found.append((layer, channels, (rows, columns)))
        channels = layer.features
    return found


def _widths(config: Config, env: Environment) -> tuple[int, ...]:
    """Inputs, hidden units and outputs of the dense layers."""
    if config.network == "table":
        return (1, env.num_actions)
    convolutions = _conv_shapes(config, env)
    if convolutions:
        layer, _, (rows, columns) = convolutions[-1]
        inputs = rows * columns * layer.features
    elif config.network == "embedding":
        inputs = config.embedding_size
    else:
        inputs = env.num_categories or math.prod(env.obs_shape)
    return (inputs, *config.hidden_sizes, env.num_actions)


def _reset(env: Environment, width: int) -> _Reset:
    jaxpr: Any = jax.make_jaxpr(env.reset)(_key()).jaxpr
    random = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(v in random for v in eqn.invars if not isinstance(v, Literal)):
            random.update(eqn.outvars)
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for v in jaxpr.outvars:
        differs = not isinstance(v, Literal) and v in random
        sizes[differs].append(v.aval.size * v.aval.dtype.itemsize)
    drawn = sum(sizes[True]) + -(-sum(sizes[False]) // width)
    return _Reset(drawn, max(sizes[True], default=0), _random_bytes(jaxpr))


def _random_bytes(jaxpr: Any) -> int:
    """Bytes of the largest array of random bits that a program draws."""
    largest = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "random_bits":
            (bits,) = eqn.outvars
            largest = max(largest, bits.aval.size * bits.aval.dtype.itemsize)
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            closed = getattr(inner, "jaxpr", inner)
            if hasattr(closed, "eqns"):
                largest = max(largest, _random_bytes(closed))
    return largest


def check(
    config: Config,
    env: Environment,
    num_lanes: int,
    num_devices: int,
    free: int,
    saved_lanes: int = 0,
) -> None:
    """Refuses a run whose predicted need is beyond what is free.

    Args:
        config: of the run.
        env: its environment.
        num_lanes: seeds side by side, on all devices.
        num_devices: that they are spread over.
        free: bytes.
        saved_lanes: seeds whose state is copied at a time for a checkpoint.

    Raises:
        ConfigError: naming the need, what is free, and which capacity and chunk width would fit.
    """
    need = predict(config, env)
    usable = int(free * _USABLE) - saved_lanes * (need.state + need.replay)
    if need.total * num_lanes <= usable:
        return
    capacity = (usable // num_lanes - need.state - need.working) // (
        need.replay // config.replay_capacity
    )
    capacity -= capacity % config.num_envs
    width = usable // need.total // num_devices
    remedies = []
    if capacity >= config.batch_size:
        remedies.append(f"replay_capacity={capacity}")
    if width >= 1:
        remedies.append(f"chunk_width={width}")
    advice = (
        f"would fit: {' or '.join(remedies)}"
        if remedies
        else "neither a smaller replay nor a narrower chunk fits"
    )
    if config.network == "table" and need.state > need.replay:
        values = (env.num_categories or 0) * env.num_actions
        advice += f"; most of it is tables of {values:,} values: network = embedding takes less"
    raise ConfigError(
        f"{num_lanes} seeds at a time need about {_gib(need.total * num_lanes)} "
        f"({_gib(need.replay * num_lanes)} of it replay), but {_gib(free)} is free; {advice}"
    )


def _key() -> Any:
    return jax.eval_shape(jax.random.key, 0)  # an array would have to be computed


def _bytes(tree: PyTree) -> int:
    leaves = jax.tree.leaves(jax.eval_shape(lambda t: jax.tree.map(_plain, t), tree))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _plain(leaf: jax.Array) -> jax.Array:
    return (
        jax.random.key_data(leaf)
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
