"""The replay against a Python deque, bit for bit, and what its programs may cost."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dqx.core.replay import ReplayState, make_replay
from dqx.core.stores import make_layout, stored_steps
from tests.core.layouts import filled_to
from tests.jaxprs import traced

LEVEL = 1e-4  # all but one key in ten thousand pass by chance; keys are fixed

MIXED = {
    "pixels": jax.ShapeDtypeStruct((3, 2), jnp.uint8),
    "flag": jax.ShapeDtypeStruct((), jnp.bool_),
    "nested": {
        "number": jax.ShapeDtypeStruct((), jnp.int32),
        "half": jax.ShapeDtypeStruct((2,), jnp.float16),
        "byte": jax.ShapeDtypeStruct((1,), jnp.int8),
    },
    "vector": jax.ShapeDtypeStruct((4,), jnp.float32),
    "pair": (
        jax.ShapeDtypeStruct((2,), jnp.uint16),
        jax.ShapeDtypeStruct((2, 1), jnp.bool_),
    ),
}


def random_bits(example, rows, rng):
    """Transitions of arbitrary bits: NaNs of every payload, -0.0, infinities and subnormals."""

    def leaf(x):
        shape = (rows, *x.shape)
        if x.dtype == bool:
            return rng.integers(0, 2, shape).astype(bool)
        count = int(np.prod(shape)) * x.dtype.itemsize
        return rng.integers(0, 256, count).astype(np.uint8).view(x.dtype).reshape(shape)

    return jax.tree.map(leaf, example)


def raw(x):
    x = np.asarray(x)
    return x.dtype, x.shape, x.tobytes()


def assert_bit_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert raw(a) == raw(b)


@pytest.mark.parametrize(
    ("capacity", "num_envs", "steps"),
    [(1, 1, 3), (5, 1, 13), (6, 3, 7), (8, 8, 4), (12, 4, 11), (7, 7, 1), (20, 2, 6)],
)
def test_equals_a_deque(capacity, num_envs, steps):
    rng = np.random.default_rng(capacity * 100 + num_envs)
    replay = make_replay(MIXED, capacity, num_envs)
    state, add = replay.init(), jax.jit(replay.add)
    twin = collections.deque(maxlen=capacity)
    for _ in range(steps):
        new = random_bits(MIXED, num_envs, rng)
        state = add(state, new)
        twin.extend(jax.tree.map(lambda x, i=i: x[i], new) for i in range(num_envs))
        assert state.size == len(twin)
        # From the oldest row on: the position to be written next, once the buffer is full.
        oldest = int(state.position) if len(twin) == capacity else 0
        rows = (oldest + jnp.arange(len(twin))) % capacity
        expected = jax.tree.map(lambda *xs: np.stack(xs), *twin)
        assert_bit_equal(replay.gather(state, rows), expected)


def test_negative_zero_and_nan_payloads_by_hand():
    example = {"x": jax.ShapeDtypeStruct((3,), jnp.float32)}
    bits = np.array([[0x80000000, 0x7FC01234, 0xFF812345]], np.uint32)
    replay = make_replay(example, 1)
    state = jax.jit(replay.add)(replay.init(), {"x": bits.view(np.float32)})
    back = np.asarray(replay.gather(state, jnp.array([0]))["x"])
    np.testing.assert_array_equal(back.view(np.uint32), bits)


@pytest.mark.parametrize(
    "example", [jnp.float32(0), jnp.zeros(3), (jnp.uint8(1),), [jnp.zeros((2, 2), bool)]]
)
def test_examples_may_be_arrays_of_any_pytree(example):
    replay = make_replay(example, 4, 2)
    new = random_bits(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), example),
        2,
        np.random.default_rng(0),
    )
    assert_bit_equal(
        replay.gather(replay.add(replay.init(), new), jnp.array([1, 0])),
        jax.tree.map(lambda x: x[::-1], new),
    )


def filled(rows, capacity, num_envs=1):
    """A buffer of which ``rows`` were written with their own number plus one."""
    replay = make_replay(jnp.int32(0), capacity, num_envs)
    state, add = replay.init(), jax.jit(replay.add)
    for first in range(0, rows, num_envs):
        state = add(state, jnp.arange(first, first + num_envs, dtype=jnp.int32) + 1)
    return replay, state


@pytest.mark.parametrize("rows", [1, 2, 7, 63])
def test_rows_never_written_are_never_read(rows):
    replay, state = filled(rows, 64)
    batch = np.asarray(replay.sample(state, jax.random.key(rows), 4000))
    assert set(batch) == set(range(1, rows + 1))  # zero would be a row of the empty buffer


@pytest.mark.parametrize("rows", [3, 40, 100])  # a third, the whole, and wrapped around
def test_sampling_is_uniform_over_what_is_kept(rows):
    replay, state = filled(rows, 40)
    batch = np.asarray(replay.sample(state, jax.random.key(7), 40_000))
    kept = np.arange(max(0, rows - 40), rows) + 1
    counts = np.array([np.sum(batch == number) for number in kept])
    assert counts.sum() == len(batch)
    assert scipy.stats.chisquare(counts).pvalue > LEVEL


def test_draws_of_a_batch_are_independent():
    replay, state = filled(8, 8)
    keys = jax.random.split(jax.random.key(3), 8000)
    batch = np.asarray(jax.vmap(lambda key: replay.sample(state, key, 2))(keys))
    table = np.histogram2d(batch[:, 0], batch[:, 1], bins=8)[0]
    assert table.sum() == 8000 and np.all(table.sum(axis=0) > 0)
    assert scipy.stats.chi2_contingency(table).pvalue > LEVEL
    assert np.trace(table) > 0  # with replacement


def test_a_batch_may_be_larger_than_what_was_written():
    replay, state = filled(2, 10)
    batch = replay.sample(state, jax.random.key(0), 32)
    assert batch.shape == (32,) and batch.dtype == jnp.int32
    assert set(np.asarray(batch)) == {1, 2}


def test_sample_is_gather_of_indices():
    replay, state = filled(30, 64)
    key = jax.random.key(4)
    rows = replay.indices(key, state.size, 16)
    np.testing.assert_array_equal(replay.sample(state, key, 16), replay.gather(state, rows))
    np.testing.assert_array_equal(rows + 1, replay.gather(state, rows))


def test_wrap_around_by_hand():
    replay, state = filled(10, 6, num_envs=2)  # rows 9, 10 stand where 3, 4 stood
    assert (int(state.position), int(state.size)) == (4, 6)
    np.testing.assert_array_equal(replay.gather(state, jnp.arange(6)), [7, 8, 9, 10, 5, 6])


def test_lanes_have_rows_of_their_own_at_one_position():
    replay = make_replay(jnp.float32(0), 4, 2)
    rows = jax.tree.map(lambda x: jnp.stack([x, x]), replay.init().rows)
    new = jnp.array([[1.0, 2.0], [3.0, 4.0]])

    def add(rows, position, size, new):
        return replay.add(ReplayState(rows, position, size), new)

    state = jax.vmap(add, in_axes=(0, None, None, 0), out_axes=ReplayState(0, None, None))(
        rows, jnp.int32(2), jnp.int32(2), new
    )
    assert (int(state.position), int(state.size)) == (0, 4)
    for lane in range(2):
        one = ReplayState(jax.tree.map(lambda x, i=lane: x[i], state.rows), jnp.int32(0), 4)
        np.testing.assert_array_equal(replay.gather(one, jnp.arange(4)), [0, 0, *new[lane]])


@pytest.mark.parametrize(
    ("capacity", "num_envs", "words"),
    [
        (0, 1, "capacity must be a whole number from 1 to 2,147,483,647, got 0"),
        (4, 0, "num_envs must be a whole number from 1 .*, got 0"),
        (-4, 2, "capacity must be .*, got -4"),
        (4.0, 2, r"capacity must be .*, got 4\.0"),
        (2**31, 2, "capacity must be .*, got 2147483648"),
        (10, 3, "capacity must be a multiple of num_envs, got 10 and 3: 12 is the next"),
        (2, 4, "got 2 and 4: 4 is the next"),
    ],
)
def test_a_capacity_that_cannot_be_filled_evenly_is_refused(capacity, num_envs, words):
    with pytest.raises(ValueError, match=words):
        make_replay(jnp.float32(0), capacity, num_envs)


@pytest.mark.parametrize("example", [None, (), "text", ["text"], object()])
def test_an_example_of_nothing_is_refused(example):
    with pytest.raises(ValueError, match="example must be a transition of arrays, numbers or jax"):
        make_replay(example, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        jnp.zeros((2, 3), jnp.float16),
        jnp.zeros((2, 3), jnp.int32),
        jnp.zeros((2, 4)),
        jnp.zeros((3, 3)),
        jnp.zeros(3),
    ],
    ids=lambda x: f"{x.shape}{x.dtype}",
)
def test_other_shapes_and_dtypes_are_refused_while_tracing(wrong):
    replay = make_replay(jnp.zeros(3), 4, 2)
    with pytest.raises(AssertionError):
        jax.eval_shape(replay.add, replay.init(), wrong)


def test_a_row_has_the_bytes_of_its_numbers():
    # 6 pixels, 1 and 2 booleans in a byte each, 1 int8; 2 halves, 2 uint16; 1 int32, 4 floats.
    rows = make_replay(MIXED, 10).init().rows
    assert sum(x.nbytes for x in rows.values()) == 10 * ((6 + 2 + 1) + 2 * 4 + 4 * 5)


def test_starts_as_zeros():
    state = make_replay(MIXED, 10, 2).init()
    assert (int(state.position), int(state.size)) == (0, 0)
    assert all(not np.any(x) for x in state.rows.values())


def test_a_store_writes_and_gathers_what_a_replay_does():
    # The rows alone, for a loop that knows position and size.
    rng = np.random.default_rng(2)
    replay, store = make_replay(MIXED, 6, 2), stored_steps(make_layout(MIXED, 6, 2))
    state, rows = replay.init(), store.init()
    assert_bit_equal(rows, state.rows)
    for step in range(5):
        new = random_bits(MIXED, 2, rng)
        state, filled = replay.add(state, new), filled_to(2 * step, 6)
        rows = store.write(rows, filled, new, jnp.zeros(2, jnp.int32))
        assert_bit_equal(rows, state.rows)
    indices = jnp.array([5, 0, 3, 3])
    assert_bit_equal(store.gather(rows, filled, indices), replay.gather(state, indices))


# What the programs cost.

LANES = 4


def vmapped_add(capacity):
    replay = make_replay({"a": jnp.zeros(3), "b": jnp.zeros(2, jnp.uint8)}, capacity, 2)

    def add(rows, position, size, new):
        return replay.add(ReplayState(rows, position, size), new).rows

    def stacked(count):
        return lambda x: jnp.zeros((count, *x.shape), x.dtype)

    rows = jax.tree.map(stacked(LANES), replay.init().rows)
    new = {"a": jnp.zeros((LANES, 2, 3)), "b": jnp.zeros((LANES, 2, 2), jnp.uint8)}
    return jax.vmap(add, in_axes=(0, None, None, 0)), (rows, jnp.int32(0), jnp.int32(0), new)


def touching(function, arguments, size):
    """The primitives that read or write arrays with an axis of ``size``."""
    return {
        equation.primitive.name
        for equation in traced(function, *arguments)
        for var in (*equation.invars, *equation.outvars)
        if size in getattr(var.aval, "shape", ())
    }


def test_add_selects_and_gathers_nothing_of_the_replays_size():
    # vmap's rule writes dynamic_update_slice as a scatter of one slice, which the compiler turns
    # back; the next test looks at what it makes of it.
    function, arguments = vmapped_add(1234)
    assert touching(function, arguments, 1234) <= {"dynamic_update_slice", "scatter"}
    assert touching(function, arguments, 1234)


def test_add_is_compiled_to_a_write_in_place_whatever_the_capacity():
    costs = []
    for capacity in (1000, 64_000):
        function, arguments = vmapped_add(capacity)
        rows = arguments[0]
        program = jax.jit(function, donate_argnums=0).lower(*arguments).compile()
        memory, cost = program.memory_analysis(), program.cost_analysis()
        assert memory.alias_size_in_bytes == sum(x.nbytes for x in rows.values())
        costs.append((memory.temp_size_in_bytes, cost["bytes accessed"], cost["flops"]))
        assert "scatter(" not in program.as_text()
        program(*arguments)
        assert all(x.is_deleted() for x in rows.values())
    assert costs[0] == costs[1]
    assert costs[0][0] + costs[0][1] < 1000  # bytes, where one lane's replay takes 14,000


def test_a_batched_position_would_be_noticed():
    # The same check of a program that breaks the law: it proves that the check can fail.
    replay = make_replay(jnp.float32(0), 1234)

    def add(rows, position, new):
        state = replay.add(ReplayState(rows, position, jnp.int32(0)), new)
        return jax.lax.cond(position > 0, lambda: state.rows, lambda: rows)

    rows = jax.tree.map(lambda x: jnp.zeros((LANES, *x.shape), x.dtype), replay.init().rows)
    arguments = (rows, jnp.zeros(LANES, jnp.int32), jnp.zeros((LANES, 1)))
    assert "select_n" in touching(jax.vmap(add), arguments, 1234)


def test_sampling_costs_nothing_of_the_capacity():
    costs = []
    for capacity in (1234, 61_700):
        replay = make_replay({"a": jnp.zeros(3), "b": jnp.zeros(2, jnp.uint8)}, capacity)

        def sample(state, key, replay=replay):
            return replay.sample(state, key, 32)

        arguments = (replay.init(), jax.random.key(0))
        # Nothing but the gathers sees the rows: no copy, sort, permutation or cumulative sum.
        assert touching(sample, arguments, capacity) <= {"gather", "jit", "pjit"}
        program = jax.jit(sample).lower(*arguments).compile()
        costs.append(
            (program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["flops"])
        )
    assert costs[0] == costs[1]
