"""Seeds side by side: lanes of a chunk by vmap, chunks over devices by shard_map, compiled once.

A chunk holds a fixed number of seeds, the last one padded. What a seed computes then depends on its
configuration, its hyperparameters, its number and the chunk's width, and on nothing else: not on
its neighbours, its lane, or the number of devices.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dqx.config import Config, Hyper
from dqx.environment import Environment
from dqx.evaluation import Evaluation
from dqx.keys import seed_key
from dqx.loop import Clock, Episodes, Lane, make_trainer
from dqx.solution import solution_of
from dqx.types import Array

# On a CPU core wider chunks gain at most a sixth, on small networks, and narrow ones waste little
# padding (benchmarks/throughput.py --widths). Accelerators want hundreds of lanes; not measured.
DEFAULT_CHUNK_WIDTH = {"cpu": 4, "gpu": 256, "tpu": 256}

_LANES, _SHARED = PartitionSpec("device"), PartitionSpec()


class Programs:
    """The compiled programs of one configuration on a set of devices.

    Every array of a seed has one leading axis of lanes, of which the first ``num_lanes`` count; see
    ``with_company`` for any others. Programs are compiled on first use, once for each length of
    segment; ``compile_seconds`` adds up what that took.

    Args:
        config: validated; its budget and its periods of logging and evaluation are not compiled in.
        env: the environment to train on.
        devices: all of one kind.
        width: seeds of a chunk, W.
        root_seed: of the key that every seed's key is folded from.
    """

    def __init__(
        self,
        config: Config,
        env: Environment,
        devices: Sequence[jax.Device],
        width: int,
        root_seed: int,
    ) -> None:
        self.config, self.env, self.devices, self.width = config, env, tuple(devices), width
        self.num_lanes = width * len(self.devices)
        self.mesh = Mesh(np.array(with_company(self.devices)), ("device",))
        self.compile_seconds = 0.0
        self._masks: dict[int, Array] = {}
        self._root_seed = root_seed
        self._trainer = make_trainer(config, env)
        self._compiled: dict[tuple[str, int], Any] = {}

    def init(self, seeds: Sequence[int] | np.ndarray) -> tuple[Clock, Lane]:
        """The clock at step 0 and fresh lanes for ``num_lanes`` seed numbers."""

        def chunk(busy: Array, seeds: Array) -> Lane:
            return self._init_chunk(seeds)

        clock = jax.device_put(self._trainer.start(), NamedSharding(self.mesh, _SHARED))
        numbers = self.per_lane(np.asarray(seeds, np.uint32))
        return clock, self._call("init", 0, chunk, (_LANES,), _LANES, (numbers,), None)

    def shapes(self) -> tuple[Clock, Lane]:
        """Shapes and dtypes of the clock and of the lanes of one chunk, ``[W]``."""
        numbers = jax.ShapeDtypeStruct((self.width,), jnp.uint32)
        return jax.eval_shape(self._trainer.start), jax.eval_shape(self._init_chunk, numbers)

    def restore(self, clock: Clock, lanes: Lane) -> tuple[Clock, Lane]:
        """Puts a clock and ``num_lanes`` lanes, all NumPy arrays, where `init` puts fresh ones."""
        shared = NamedSharding(self.mesh, _SHARED)
        # Not aliased: the first segment is to overwrite them.
        return jax.device_put(clock, shared, may_alias=False), self.per_lane(lanes)

    def warm_up(
        self, clock: Clock, lanes: Lane, steps: int, chunks: int | None = None
    ) -> tuple[Clock, Lane, Episodes]:
        """Random actions for ``steps`` environment steps of every seed; ``lanes`` is consumed.

        Only the first ``chunks`` devices have something to do, all of them if it is left out.
        """
        one = functools.partial(self._trainer.warm_up, steps=steps)
        chunk = _if_busy(jax.vmap(one, in_axes=(None, 0), out_axes=(None, 0, 0)), kept=2)
        specs = (_SHARED, _LANES)
        args = (clock, lanes)
        return self._call("warm_up", steps, chunk, specs, (*specs, _LANES), args, chunks, (1, 2))

    def segment(
        self, clock: Clock, lanes: Lane, hypers: Hyper, steps: int, chunks: int | None = None
    ) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
        """Acting and learning for ``steps`` steps of every seed; ``lanes`` is consumed.

        Only the first ``chunks`` devices have something to do, all of them if it is left out.
        """
        chunk = _if_busy(self.segment_chunk(steps), kept=2)
        specs = (_SHARED, _LANES, _LANES)
        args = (clock, lanes, hypers)
        return self._call("segment", steps, chunk, specs, (*specs, _LANES), args, chunks, (1, 2))

    def segment_chunk(self, steps: int) -> Callable[[Clock, Lane, Hyper], Any]:
        """The segment of one chunk, ``[W]`` lanes, before it is spread over devices."""

        def chunk(clock: Clock, lanes: Lane, hypers: Hyper) -> Any:
            one = functools.partial(self._trainer.segment, steps=steps)
            return jax.vmap(one, in_axes=(None, 0, 0), out_axes=(None, 0, 0, 0))(
                clock, lanes, hypers
            )

        return chunk

    def evaluate(self, clock: Clock, lanes: Lane, chunks: int | None = None) -> Evaluation:
        """Greedy episodes, ``[lanes, ...]``; consumes nothing."""
        chunk = _if_busy(jax.vmap(self._trainer.evaluate, in_axes=(None, 0)), kept=0)
        specs = (_SHARED, _LANES)
        return self._call("evaluate", 0, chunk, specs, _LANES, (clock, lanes), chunks)

    def q_table(self, lanes: Lane, chunks: int | None = None) -> Array:
        """Q-values ``[lanes, N, A]`` in all N states of the environment; consumes nothing."""
        states = solution_of(self.config.env).model.states
        one = functools.partial(self._trainer.q_table, states)
        chunk = _if_busy(jax.vmap(one), kept=0)
        return self._call("q_table", 0, chunk, (_LANES,), _LANES, (lanes,), chunks)

    def per_lane(self, values: Any) -> Any:
        """Puts arrays with a leading axis of ``num_lanes`` where their lanes are."""
        missing = self.width * self.mesh.size - self.num_lanes

        def placed(leaf: Any) -> Any:
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                data = placed(np.asarray(jax.random.key_data(leaf)))
                return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
            leaf = np.concatenate([leaf, np.repeat(leaf[-1:], missing, 0)])
            return jax.device_put(leaf, NamedSharding(self.mesh, _LANES), may_alias=False)

        return jax.tree.map(placed, values)

    @property
    def compiled(self) -> tuple[str, ...]:
        """The names of the programs compiled so far, one for each length of segment."""
        return tuple(name for name, _ in self._compiled)

    def _init_chunk(self, seeds: Array) -> Lane:
        return jax.vmap(lambda s: self._trainer.init(seed_key(self._root_seed, s)))(seeds)

    def _call(
        self,
        name: str,
        length: int,
        chunk: Callable,
        in_specs: tuple,
        out_specs: Any,
        args: tuple,
        chunks: int | None,
        donate: tuple = (),
    ) -> Any:
        """Runs ``chunk(busy, *args)`` on every device, compiled on first use."""
        busy = self._busy(len(self.devices) if chunks is None else chunks)
        if (name, length) not in self._compiled:
            started = time.perf_counter()
            sharded = jax.shard_map(
                chunk,
                mesh=self.mesh,
                in_specs=(_LANES, *in_specs),
                out_specs=out_specs,
                check_vma=False,
            )
            options = _compiler_options(self.devices[0].platform, name)
            lowered = jax.jit(sharded, donate_argnums=donate).lower(busy, *args)
            self._compiled[name, length] = lowered.compile(compiler_options=options)
            self.compile_seconds += time.perf_counter() - started
        return self._compiled[name, length](busy, *args)

    def _busy(self, chunks: int) -> Array:
        """Which devices have something to do, bool ``[devices]``."""
        if chunks not in self._masks:
            mask = np.arange(self.mesh.size) < chunks
            self._masks[chunks] = jax.device_put(mask, NamedSharding(self.mesh, _LANES))
        return self._masks[chunks]


def chunk_width(config: Config, platform: str) -> int:
    """Seeds of a chunk: as configured, or the platform's default."""
    return config.chunk_width or DEFAULT_CHUNK_WIDTH.get(platform, 1)


def enough_devices(
    available: Sequence[jax.Device], num_seeds: int, width: int
) -> tuple[jax.Device, ...]:
    """The first of the devices, no more of them than there are chunks."""
    return tuple(available[: max(1, min(len(available), -(-num_seeds // width)))])


def with_company(devices: tuple[jax.Device, ...]) -> tuple[jax.Device, ...]:
    """A single CPU device gets an idle companion.

    XLA compiles a program for one device in another way than the same program for several, and its
    last bits may differ. With at least two devices, of which some may have nothing to do, there is
    only one way.
    """
    if len(devices) > 1 or devices[0].platform != "cpu":
        return devices
    others = [d for d in jax.local_devices(backend="cpu") if d not in devices]
    return (*devices, *others[:1])


def _if_busy(chunk: Callable, kept: int) -> Callable:
    """Skips ``chunk`` on idle devices: ``kept`` inputs pass through, other outputs are zeros."""

    # The clock stands still there, beside one that runs on the other devices; nobody reads it.
    def idle(*args: Any) -> Any:
        outputs = jax.eval_shape(chunk, *args)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outputs)
        return (*args[:kept], *zeros[kept:]) if kept else zeros

    def run(busy: Array, *args: Any) -> Any:
        return jax.lax.cond(busy[0], chunk, idle, *args)

    return run


def _compiler_options(platform: str, program: str) -> dict[str, Any]:
    if platform != "cpu":
        return {}
    # One chunk a core is the parallelism on a CPU. Threads inside a matrix product would only get
    # in one another's way, and how they split a sum could change its last bits.
    options: dict[str, Any] = {"xla_cpu_multi_thread_eigen": False}
    # The whole vector width where there is one of 512 bits: elementwise loops gain a third.
    options["xla_cpu_prefer_vector_width"] = 512
    if program != "segment":
        # Halves the time to compile what runs only for moments.
        options["xla_backend_optimization_level"] = 1
    return options
