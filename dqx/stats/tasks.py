"""Several environments at once: normalisation, aggregates over tasks, stratified resampling.

Scores are real numbers [S, T], S seeds along axis 0 and T tasks along axis 1. Names are those of
rliable where the functions are the same; `docs/statistics.md` has the table.

Seeds of different tasks are independent, so each task's seeds are resampled on their own. With few
seeds a task that alone is too narrow, since S values spread less around their own mean than around
the true one; "scaled" intervals widen it by sqrt(S / (S - 1)) and are the default, "percentile" is
what rliable gives.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dqx.stats.arguments import public
from dqx.stats.bootstrap import percentiles
from dqx.stats.samples import (
    Estimate,
    FloatArray,
    Interval,
    NanPolicy,
    check_finite,
    check_level,
    check_resamples,
    clean,
    generator,
    vector,
)

Aggregate = Callable[[FloatArray], npt.ArrayLike]
Method = Literal["scaled", "percentile"]

# The highest mean return over all starts that any policy can reach, where that is known exactly:
# by the rules (CartPole), or by `envs.exact` on all states (tests hold it to them).
OPTIMUM = {"CartPole-v0": 200.0, "CartPole-v1": 500.0, "Taxi-v3": 7.93, "Taxi-v4": 7.93,
           "WallDodge-v0": 50.0, "WallDodge-v1": 41.94, "FrozenLake-misc": 0.74,
           "FourRooms-misc": 1.0}  # fmt: skip


class IntervalEstimates(NamedTuple):
    """What `get_interval_estimates` gives by name: point values [M], and intervals [2, M]."""

    point_estimates: dict[str, FloatArray]
    interval_estimates: dict[str, FloatArray]


@public
def normalize(scores: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike) -> FloatArray:
    """Put scores on a common scale: 0 at `low`, 1 at `high`.

    What the ends are says what the scale is: a random policy's and a human's return (human
    normalized), the least and the most that an environment gives (min-max), or a random policy's
    and the exact optimum (`OPTIMUM`, `envs.exact`).

    Args:
        scores: real numbers [S, T], or [S] for one task.
        low: a number, or one a task [T].
        high: a number, or one a task [T], above `low`.

    Returns:
        float64 of the shape of `scores`; NaN stays NaN.

    Raises:
        ValueError: ends that do not fit the tasks, or are not in order.
    """
    array = np.asarray(scores, np.float64)
    least, most = np.asarray(low, np.float64), np.asarray(high, np.float64)
    for name, end in (("low", least), ("high", most)):
        if not np.isfinite(end).all():
            raise ValueError(f"{name} must be finite, got {end.tolist()}")
        if end.ndim > 1 or (end.ndim == 1 and array.shape[1:] != end.shape):
            raise ValueError(
                f"{name} has shape {list(end.shape)}, scores {list(array.shape)}: give a number, "
                "or one a task"
            )
    if not (most > least).all():
        raise ValueError("high must lie above low for every task")
    found: FloatArray = (array - least) / (most - least)
    return found


@public
def min_max_normalize(scores: Mapping[str, npt.ArrayLike]) -> dict[str, FloatArray]:
    """Put all algorithms on the scale from the lowest to the highest score seen, task by task.

    The scale hangs on what is compared: a new algorithm may move it. NaN and infinite scores have
    no part in it, and stay.

    Args:
        scores: by algorithm, real numbers [S, T].

    Raises:
        ValueError: numbers of tasks that differ, or a task on which all scores are equal.
    """
    arrays = {name: np.asarray(values, np.float64) for name, values in scores.items()}
    _check_tasks(arrays)
    everything = np.concatenate(list(arrays.values()))
    finite = np.isfinite(everything)
    low = np.where(finite, everything, np.inf).min(axis=0)
    high = np.where(finite, everything, -np.inf).max(axis=0)
    return {name: normalize(values, low, high) for name, values in arrays.items()}


@public
def aggregate_mean(scores: npt.ArrayLike, *, nan: NanPolicy = "raise") -> float:
    """Mean over tasks of the mean over seeds: [S, T] -> a number."""
    return float(_task_means(scores, nan).mean())


@public
def aggregate_median(scores: npt.ArrayLike, *, nan: NanPolicy = "raise") -> float:
    """Median over tasks of the mean over seeds: [S, T] -> a number."""
    return float(np.median(_task_means(scores, nan)))


@public
def aggregate_iqm(scores: npt.ArrayLike, *, nan: NanPolicy = "raise") -> float:
    """Mean of the middle half of all runs, of all tasks together: [S, T] -> a number.

    Source: Agarwal et al. 2021, section 4.3.
    """
    rising = np.sort(_runs(scores, nan))
    cut = rising.size // 4
    return float(rising[cut : rising.size - cut].mean())


@public
def aggregate_optimality_gap(
    scores: npt.ArrayLike, gamma: float = 1.0, *, nan: NanPolicy = "raise"
) -> float:
    """How far runs fall short of `gamma` in the mean, over all tasks: [S, T] -> a number.

    Source: Agarwal et al. 2021, section 4.3.
    """
    check_finite(gamma=gamma)
    return float(gamma - np.minimum(_runs(scores, nan), gamma).mean())


@public
def stratified(
    scores: npt.ArrayLike, resamples: int, seed: int = 0, *, task_bootstrap: bool = False
) -> FloatArray:
    """Resample the seeds of each task on its own: [S, T] -> [R, S, T].

    Args:
        scores: finite numbers [S, T].
        resamples: R.
        seed: decides the draws.
        task_bootstrap: whether tasks are drawn with replacement too, which asks how much the answer
            hangs on the choice of tasks.
    """
    check_resamples(resamples)
    array = _matrix(scores, "raise")
    rng = generator(seed)
    return array[_draws(rng, array.shape, resamples, task_bootstrap)]


@public
def get_interval_estimates(
    score_dict: Mapping[str, npt.ArrayLike],
    func: Aggregate,
    *,
    method: Method = "scaled",
    task_bootstrap: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> IntervalEstimates:
    """Aggregate scores over tasks, with stratified bootstrap intervals.

    Args:
        score_dict: by algorithm, real numbers [S, T].
        func: from [S, T] to a number or [M], such as `aggregate_iqm`, or
            ``lambda x: [aggregate_iqm(x), aggregate_mean(x)]``.
        method: "scaled" or "percentile", see the module.
        task_bootstrap: whether tasks are resampled too.
        level: see the package, as for `resamples` and `seed`.
        nan: "raise" or a number; dropped seeds would leave tasks with unequal numbers of them.

    Returns:
        For each algorithm the point values [M] and the ends [2, M]; the ends NaN for one seed.

    Raises:
        ValueError: scores of other shapes, non-finite values under "raise", an unknown method.

    Source: Agarwal et al. 2021, section 4.1.
    """
    check_level(level)
    check_resamples(resamples)
    if method not in ("scaled", "percentile"):
        raise ValueError(f"method is {method!r}: allowed are 'scaled' and 'percentile'")
    points, intervals = {}, {}
    for name, scores in score_dict.items():
        array = _matrix(scores, nan)
        point = _of_tasks(func, array)
        points[name] = point
        if array.shape[0] < 2:
            intervals[name] = np.full((2, *point.shape), np.nan)
            continue
        rng, replicates = generator(seed), []
        # A few resamples at a time: all of them may not fit into memory.
        rows = max(1, 4_000_000 // array.size)
        for start in range(0, resamples, rows):
            count = min(rows, resamples - start)
            for sample in array[_draws(rng, array.shape, count, task_bootstrap)]:
                replicates.append(_of_tasks(func, sample))
        ends = np.stack(percentiles(np.stack(replicates), level))
        widened = math.sqrt(array.shape[0] / (array.shape[0] - 1)) if method == "scaled" else 1.0
        intervals[name] = point + widened * (ends - point)
    return IntervalEstimates(points, intervals)


@public
def create_performance_profile(
    score_dict: Mapping[str, npt.ArrayLike],
    tau_list: npt.ArrayLike,
    *,
    use_score_distribution: bool = True,
    method: Method = "scaled",
    task_bootstrap: bool = False,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> IntervalEstimates:
    """Share of runs above each threshold, over all tasks, with stratified bootstrap intervals.

    Args:
        score_dict: by algorithm, real numbers [S, T].
        tau_list: thresholds [M], in the scores' unit.
        use_score_distribution: whether runs are counted, or else tasks by their means over seeds.
        method: see `get_interval_estimates`, as for the rest.

    Returns:
        For each algorithm the shares [M] and the ends [2, M].

    Source: Agarwal et al. 2021, section 4.2.
    """
    taus = vector(tau_list, "raise", "tau_list")

    def above(scores: FloatArray) -> FloatArray:
        counted = scores if use_score_distribution else scores.mean(axis=0, keepdims=True)
        rising = np.sort(counted, axis=None)
        share: FloatArray = 1 - np.searchsorted(rising, taus, side="right") / rising.size
        return share

    found = get_interval_estimates(
        score_dict, above, method=method, task_bootstrap=task_bootstrap, level=level,
        resamples=resamples, seed=seed, nan=nan,
    )  # fmt: skip
    clipped = {name: ends.clip(0.0, 1.0) for name, ends in found.interval_estimates.items()}
    return found._replace(interval_estimates=clipped)


@public
def improvement_over_tasks(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    nan: NanPolicy = "raise",
) -> Estimate:
    """Mean over tasks of the probability that a seed of `x` beats one of `y`: [Sx, T], [Sy, T].

    The interval is the stratified percentile bootstrap of both sides; for one task
    `probability_of_improvement` has one that holds with few seeds too.

    Raises:
        ValueError: as `get_interval_estimates`, and for other tasks.

    Source: Agarwal et al. 2021, section 4.3.
    """
    check_level(level)
    check_resamples(resamples)
    a, b = _matrix(x, nan), _matrix(y, nan)
    _check_tasks({"x": a, "y": b})
    rng = generator(seed)

    def wins(left: FloatArray, right: FloatArray) -> float:
        return float(((np.sign(left[:, None] - right[None]) + 1) / 2).mean())

    value = np.array(wins(a, b))[()]
    if min(a.shape[0], b.shape[0]) < 2:
        return Estimate(value, *(np.full((), np.nan)[()],) * 2)
    replicates = [
        wins(a[_draws(rng, a.shape, 1, False)][0], b[_draws(rng, b.shape, 1, False)][0])
        for _ in range(resamples)
    ]
    return Estimate(value, *Interval(*percentiles(np.array(replicates), level)))


def _of_tasks(func: Aggregate, scores: FloatArray) -> FloatArray:
    """What a user's aggregate makes of scores [S, T], checked: a number, or [M]."""
    name = getattr(func, "__name__", "it")
    try:
        found = np.atleast_1d(np.asarray(func(scores)))
    except Exception as error:
        raise ValueError(
            f"func must take [seeds, tasks]: {name} raised {type(error).__name__}: {error}"
        ) from error
    if found.dtype.kind not in "biuf" or found.ndim != 1:
        raise ValueError(
            f"func must give a number or a list of them: {name} gave {found.dtype} "
            f"{list(found.shape)}"
        )
    return found.astype(np.float64)


def _draws(
    rng: np.random.Generator, shape: tuple[int, ...], resamples: int, task_bootstrap: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of resampled runs: seeds [R, S, T] and tasks that broadcast with them."""
    seeds, tasks = shape
    rows = rng.integers(seeds, size=(resamples, seeds, tasks))
    if task_bootstrap:
        return rows, rng.integers(tasks, size=(resamples, 1, tasks))
    return rows, np.arange(tasks)[None, None]


def _matrix(scores: npt.ArrayLike, nan: NanPolicy) -> FloatArray:
    if nan == "drop":
        raise ValueError(
            "nan is 'drop': tasks would have unequal numbers of seeds; give a number to count "
            "each as, or drop whole seeds first"
        )
    array = clean(scores, nan)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"scores have shape {list(array.shape)}: give [seeds, tasks]")
    return array


def _runs(scores: npt.ArrayLike, nan: NanPolicy) -> FloatArray:
    """All runs of all tasks in one row, without those that "drop" leaves out."""
    array = clean(scores, nan)
    found: FloatArray = array[np.isfinite(array)]
    if not found.size:
        raise ValueError("scores: no finite value is left; nan=<number> counts each as a number")
    return found


def _task_means(scores: npt.ArrayLike, nan: NanPolicy) -> FloatArray:
    array = clean(scores, nan)
    if array.ndim != 2:
        raise ValueError(f"scores have shape {list(array.shape)}: give [seeds, tasks]")
    present = np.isfinite(array)
    if not present.any(axis=0).all():
        raise ValueError("a task has no finite value left; nan=<number> counts each as a number")
    means: FloatArray = np.where(present, array, 0.0).sum(axis=0) / present.sum(axis=0)
    return means


def _check_tasks(arrays: Mapping[str, FloatArray]) -> None:
    """Refuses arrays that are not of the same tasks, or hold no seed."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len({shape[1:] for shape in shapes.values()}) != 1 or any(
        len(shape) != 2 for shape in shapes.values()
    ):
        words = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {words}: give [seeds, tasks] with the same tasks")
