"""A chunk's programs: lanes side by side by vmap, compiled once for a device.

A chunk holds a fixed number of seeds, the last one padded. What a seed computes depends on its
configuration, its hyperparameters, its number and the chunk's width, and on nothing else: not on
its neighbours, its lane, or what runs beside it. A program knows one device only; chunks run in
parallel because threads call it at the same time (`compute.devices` says how many).
"""

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from dqx.compute import trees
from dqx.compute.build import environment_of, make_trainer
from dqx.compute.solution import solution_of
from dqx.core.agent import Metric
from dqx.core.diagnostics import at_rows
from dqx.core.environment import Environment
from dqx.core.evaluation import Played
from dqx.core.keys import seed_key
from dqx.core.state import Clock, Episodes, Lane
from dqx.core.types import Array
from dqx.settings import Config, Hyper, complete, environments

# On a CPU core wider chunks gain at most a sixth, on small networks, and narrow ones waste little
# padding (benchmarks/throughput.py --widths). Accelerators want hundreds of lanes; not measured.
DEFAULT_CHUNK_WIDTH = {"cpu": 4, "gpu": 256, "tpu": 256}


class Programs:
    """The compiled programs of one configuration on one device.

    Every array of a seed has one leading axis of W lanes. A program is compiled on first use, once
    for each length of segment, by whichever thread comes first; ``compile_seconds`` adds up what
    that took.

    Args:
        config: validated and rounded, ``chunk_width`` (W) filled in; its budget and its periods of
            logging and evaluation are not compiled in.
        env: the environment to train on.
        device: where it runs.
        root_seed: of the key that every seed's key is folded from.
    """

    def __init__(
        self, config: Config, env: Environment, device: jax.Device, root_seed: int
    ) -> None:
        assert config.chunk_width is not None  # filled in by the caller
        self.config, self.env, self.device, self.width = config, env, device, config.chunk_width
        self.compile_seconds = 0.0
        self._root_seed = root_seed
        self._trainer = make_trainer(config, env)
        self._compiled: dict[tuple[str, int], Any] = {}
        self._moments: list[tuple[float, str]] = []
        self._lock = threading.RLock()

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """How each number of the agent is shown in a row, by its name."""
        return self._trainer.metrics

    @functools.cached_property
    def shapes(self) -> tuple[Clock, Lane]:
        """Shapes and dtypes of the clock and of the lanes, ``[W]``."""
        numbers = jax.ShapeDtypeStruct((self.width,), jnp.uint32)
        return jax.eval_shape(self._trainer.start), jax.eval_shape(
            self._init, numbers, self._hyper_shapes()
        )

    def init(self, seeds: np.ndarray, hypers: Hyper | None = None) -> tuple[Clock, Lane]:
        """The clock at step 0 and fresh lanes for W seed numbers.

        Args:
            seeds: ``[W]``.
            hypers: on the device, ``[W]``; needed where parameters of the environment are inputs.
                Left out: the defaults.
        """
        if hypers is None:
            assert not self._input_names
            full = functools.partial(np.full, self.width, dtype=np.float32)
            hypers = self.place(jax.tree.map(full, complete(self.config, Hyper())))
        clock = jax.tree.map(np.asarray, self._trainer.start())
        numbers = jax.device_put(np.asarray(seeds, np.uint32), self.device)
        placed = trees.to_device(clock, self.shapes[0], self.device)
        return placed, self.program("init")(numbers, hypers)

    def restore(self, clock: Clock, lanes: Lane) -> tuple[Clock, Lane]:
        """Puts a clock and lanes from the host where `init` puts fresh ones."""
        return trees.to_device((clock, lanes), self.shapes, self.device)

    def place(self, hypers: Hyper) -> Hyper:
        """Puts hyperparameters, float32 ``[W]`` each, on the device."""
        return jax.tree.map(lambda x: jax.device_put(x, self.device), hypers)

    def warm_up(self, clock: Clock, lanes: Lane, steps: int) -> tuple[Clock, Lane, Episodes]:
        """Random actions for ``steps`` environment steps of every seed; consumes its arguments."""
        return self.program("warm_up", steps)(clock, lanes)

    def segment(
        self, clock: Clock, lanes: Lane, hypers: Hyper, steps: int
    ) -> tuple[Clock, Lane, Episodes, dict[str, Array]]:
        """Acting and learning for ``steps`` steps of every seed; consumes clock and lanes."""
        return self.program("segment", steps)(clock, lanes, hypers)

    def evaluate(
        self, clock: Clock, lanes: Lane, hypers: Hyper, until: int
    ) -> tuple[Played, Array]:
        """Begins greedy episodes, and plays them up to a time in steps; consumes nothing.

        Returns:
            The episodes, and the mean of max Q over fixed states, both ``[W, ...]``.
        """
        more = (hypers,) if self._foresees else ()
        return self.program("evaluate")(clock, lanes, self._number(until), *more)

    def diagnose(self, clock: Clock, lanes: Lane, hypers: Hyper) -> dict[str, Array]:
        """What diagnostics tell at a row, ``[W, ...]``; nothing without any; consumes nothing."""
        if not at_rows(self.config):
            return {}
        found: dict[str, Array] = self.program("diagnose")(clock, lanes, hypers)
        return found

    def play(self, clock: Clock, lanes: Lane, played: Played, until: int) -> Played:
        """Goes on with an evaluation, ``[W, ...]``; consumes ``played``."""
        return self.program("play")(clock, lanes, played, self._number(until))

    def q_table(self, lanes: Lane) -> Array:
        """Q-values ``[W, N, A]`` in all N states of the environment; consumes nothing."""
        return self.program("q_table")(lanes)

    @property
    def compiled(self) -> tuple[str, ...]:
        """The names of the programs compiled so far, one for each length of segment."""
        return tuple(name for name, _ in self._compiled)

    def compiled_since(self, moment: float) -> tuple[str, ...]:
        """Of these, those that were compiled after a moment of ``time.perf_counter``."""
        return tuple(name for ended, name in self._moments if ended > moment)

    def program(self, name: str, steps: int = 0) -> Any:
        """The compiled program of this name, and of this many steps where it has a length."""
        if (name, steps) not in self._compiled:
            with self._lock:
                if (name, steps) not in self._compiled:
                    self._compiled[name, steps] = self._compile(name, steps)
        return self._compiled[name, steps]

    def chunk(self, name: str, steps: int = 0) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A program before it is compiled, and the shapes of its arguments."""
        trainer, (clock, lanes) = self._trainer, self.shapes
        one: Callable[..., Any]
        match name:
            case "init":
                numbers = jax.ShapeDtypeStruct((self.width,), jnp.uint32)
                return self._init, (numbers, self._hyper_shapes())
            case "warm_up":
                one = functools.partial(trainer.warm_up, steps=steps)
                return jax.vmap(one, in_axes=(None, 0), out_axes=(None, 0, 0)), (clock, lanes)
            case "segment":
                one = functools.partial(trainer.segment, steps=steps)
                chunk = jax.vmap(one, in_axes=(None, 0, 0), out_axes=(None, 0, 0, 0))
                return chunk, (clock, lanes, self._hyper_shapes())
            case "evaluate":
                more = (self._hyper_shapes(),) if self._foresees else ()
                beginning = jax.vmap(trainer.begin, in_axes=(None, 0, None, *(0 for _ in more)))
                return beginning, (clock, lanes, clock.step, *more)
            case "diagnose":
                looking = jax.vmap(trainer.diagnose, in_axes=(None, 0, 0))
                return looking, (clock, lanes, self._hyper_shapes())
            case "play":
                first, shapes = self.chunk("evaluate")
                played, _ = jax.eval_shape(first, *shapes)
                going_on = jax.vmap(trainer.play, in_axes=(None, 0, 0, None))
                return going_on, (clock, lanes, played, clock.step)
            case _:
                states = solution_of(self.config).model.states
                return jax.vmap(functools.partial(trainer.q_table, states)), (lanes,)

    @property
    def _foresees(self) -> bool:
        """Whether evaluations measure overestimation."""
        return "overestimation" in self.config.diagnostics

    @property
    def _input_names(self) -> dict[str, str]:
        """The environment's inputs, and what `Hyper` calls them."""
        return {name: environments.PREFIX + name for name, _ in self.config.env_inputs}

    def _hyper_shapes(self) -> Hyper:
        number = jax.ShapeDtypeStruct((self.width,), jnp.float32)
        inputs = dict.fromkeys(self._input_names.values(), 0.0)
        return jax.tree.map(lambda _: number, complete(self.config, Hyper(extra=inputs)))

    def _number(self, value: int) -> Array:
        return jax.device_put(np.int32(value), self.device)

    def _init(self, seeds: Array, hypers: Hyper) -> Lane:
        def one(seed: Array, hyper: Hyper) -> Lane:
            inputs = {name: hyper.extra[full] for name, full in self._input_names.items()}
            return self._trainer.init(seed_key(self._root_seed, seed), inputs, hyper)

        return jax.vmap(one)(seeds, hypers)

    def _compile(self, name: str, steps: int) -> Any:
        started = time.perf_counter()
        chunk, shapes = self.chunk(name, steps)
        place = SingleDeviceSharding(self.device)
        args = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
        )
        donated = {"warm_up": (0, 1), "segment": (0, 1), "play": (2,)}.get(name, ())
        lowered = jax.jit(chunk, donate_argnums=donated).lower(*args)
        compiled = lowered.compile(compiler_options=_compiler_options(self.device.platform, name))
        ended = time.perf_counter()
        self.compile_seconds += ended - started
        self._moments.append((ended, name))
        return compiled


def programs_for(config: Config, device: jax.Device, root_seed: int) -> Programs:
    """The programs of a configuration on a device, the same object for the same arguments.

    Runs that differ in hyperparameters, seeds or budget share them and compile once. Those of the
    four configurations that were trained last are kept, on all devices.
    """
    # What is not compiled in, all of it set to one value.
    inputs = tuple((name, None) for name, _ in config.env_inputs)
    compiled_in = dataclasses.replace(
        config, total_steps=1, learning_starts=1, log_period=1, eval_period=0, env_inputs=inputs
    )
    with _CACHE_LOCK:
        of_devices = _cached_programs(compiled_in, root_seed)
        if device not in of_devices:
            env = environment_of(compiled_in)
            of_devices[device] = Programs(compiled_in, env, device, root_seed)
        return of_devices[device]


_CACHE_LOCK = threading.Lock()


@functools.lru_cache(maxsize=4)  # each takes some 30 MB
def _cached_programs(config: Config, root_seed: int) -> dict[jax.Device, Programs]:
    return {}


def chunk_width(config: Config, platform: str) -> int:
    """Seeds of a chunk: as configured, or the platform's default."""
    return config.chunk_width or DEFAULT_CHUNK_WIDTH.get(platform, 1)


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
