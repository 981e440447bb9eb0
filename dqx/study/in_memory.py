"""What training in memory gives."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from dqx.arguments import maybe, require, whole
from dqx.compute import trees
from dqx.core.types import PyTree
from dqx.settings import Config, ConfigError, Hyper, environments
from dqx.study.engine import Engine
from dqx.study.executors.local import Local
from dqx.study.plan import Plan
from dqx.study.store import MemoryStore

if TYPE_CHECKING:
    import pandas

    from dqx.compute.trained import TrainedAgent


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What training gives.

    Attributes:
        config: as trained: rounded, with ``chunk_width`` filled in.
        hyper: as trained.
        seeds: int64 ``[S]``.
        metrics: ``"step"`` int64 ``[K]``, and for every other name an array ``[S, K]``: NaN where
            an interval has no such number (no finished episode, no update, no evaluation).
        episodes: every finished training episode: columns seed, step (environment step of the seed
            at its end), return and length; ordered by seed (as in ``seeds``) and step.
        params: the final online parameters, NumPy arrays with leading axis S.
        diverged_at: int64 ``[S]``, the step at which loss or parameters became non-finite, -1 if
            never.
        digests: S times the SHA-256 of a seed's metrics and final parameters: equal digests mean
            equal bits.
        scores: float64 ``[S]``: the last exact return where it is measured, else the last greedy
            one, else that of training.
        root_seed: of the key that every seed's key is folded from.
        devices: the places where chunks ran, in words.
        device_kind: platform and kind of the devices.
        compile_seconds: wall time spent compiling, and solving for exact metrics.
        run_seconds: wall time of everything else.
    """

    config: Config
    hyper: Hyper
    seeds: np.ndarray
    metrics: dict[str, np.ndarray]
    episodes: "pandas.DataFrame"
    params: PyTree
    diverged_at: np.ndarray
    digests: tuple[str, ...]
    scores: np.ndarray
    root_seed: int
    devices: tuple[str, ...]
    device_kind: str
    compile_seconds: float
    run_seconds: float

    def agent(self, seed: int | None = None) -> "TrainedAgent":
        """The trained agent of a seed, of the first if left out.

        Raises:
            ConfigError: if the seed was not trained.
        """
        from dqx.compute.trained import TrainedAgent

        require(ConfigError, seed=(seed, maybe(whole(0))))
        seed = int(self.seeds[0]) if seed is None else seed
        if seed not in self.seeds:
            raise ConfigError(f"seed {seed} was not trained: see `seeds`")
        index = int(np.flatnonzero(self.seeds == seed)[0])
        drawn = environments.drawn(self.config, self.root_seed, [seed])
        numbers = {**self.hyper.extra, **{name: values[0] for name, values in drawn.items()}}
        params = jax.tree.map(lambda x: x[index], self.params)
        return TrainedAgent(self.config, params, environments.inputs(self.config, numbers))


def result_of(plan: Plan, engine: Engine, store: MemoryStore, executor: Local) -> TrainResult:
    """The result of a plan of one configuration that was trained into memory."""
    results = [store.results[index] for index in sorted(store.results)]
    runs = [run for index in sorted(store.runs) for run in store.runs[index]]
    (point,) = plan.points
    seconds = engine.tally.seconds
    scores = [np.nan if run["score"] is None else run["score"] for run in runs]
    return TrainResult(
        config=point.config,
        hyper=point.hyper,
        seeds=np.array(plan.seeds, np.int64),
        metrics={"step": results[0].steps, **trees.joined([r.metrics for r in results])},
        episodes=_episode_frame([(r.seeds, r.episodes) for r in results]),
        params=trees.joined([r.params for r in results]),
        diverged_at=trees.joined([r.diverged_at for r in results]),
        digests=tuple(run["digest"] for run in runs),
        scores=np.array(scores, np.float64),
        root_seed=plan.root_seed,
        devices=executor.used,
        device_kind=f"{executor.places[0].platform}: {executor.places[0].device_kind}",
        compile_seconds=engine.tally.progress().compile_seconds,
        run_seconds=seconds,
    )


def _episode_frame(chunks: Sequence[tuple[np.ndarray, Any]]) -> "pandas.DataFrame":
    import pandas  # here, because it takes half a second and only results need it

    columns = [(seeds[lane], *rest) for seeds, (lane, *rest) in chunks]
    names = ("seed", "step", "return", "length")
    joined = (np.concatenate(column) for column in zip(*columns, strict=True))
    return pandas.DataFrame(dict(zip(names, joined, strict=True)))
