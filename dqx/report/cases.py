"""What a report is about: the configurations of one or several studies, as arrays.

Reading is done here, once; what follows sees arrays only. Needs no JAX.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.compute.score import score_metric
from dqx.settings import Config, evaluates_at
from dqx.study.entries import StudyError
from dqx.study.results import Study

if TYPE_CHECKING:
    import pandas

WINDOW = 100  # episodes of the rolling mean
_GRID = 100  # points of the rolling mean over episodes
# Shown on their own, or of no use beside what is shown.
_NO_PANEL = (
    "episode_count", "eval_return", "exact_return", "episode_return", "episode_return_min",
    "episode_return_max", "episode_length_min", "episode_length_max",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One configuration of a study, with its finished runs.

    Attributes:
        label: its name, with that of the study where another study has the same.
        study: the number of its study in the report.
        name: of the configuration.
        env: name of its environment.
        metric: that runs are judged by.
        planned: seeds of the plan.
        total_steps: environment steps of a run.
        varied: fields that differ within the study, with its values.
        seeds: of finished runs, int64 ``[S]``.
        diverged_at: int64 ``[S]``, -1 for never.
        scores: float64 ``[S]``, NaN where a run has none.
        steps: at which ``metric`` is measured, int64 ``[K]``.
        curves: of ``metric``, float64 ``[S, K]``.
        rows: steps of all rows of metrics, int64 ``[R]``.
        panels: every other metric, float64 ``[S, R]``.
        episode_steps: float64 ``[G]``.
        episodes: mean return of the last `WINDOW` training episodes, float64 ``[S, G]``.
    """

    label: str
    study: int
    name: str
    env: str
    metric: str
    planned: int
    total_steps: int
    varied: dict[str, Any]
    seeds: np.ndarray
    diverged_at: np.ndarray
    scores: np.ndarray
    steps: np.ndarray
    curves: np.ndarray
    rows: np.ndarray
    panels: dict[str, np.ndarray]
    episode_steps: np.ndarray
    episodes: np.ndarray


def titles(studies: Sequence[Study]) -> list[str]:
    """A name of each study that no other has: that of its plan, or its folder."""
    names = [study.plan["name"] for study in studies]
    return [
        name if names.count(name) == 1 else str(study.path)
        for name, study in zip(names, studies, strict=True)
    ]


def read(studies: Sequence[Study]) -> list[Case]:
    """All configurations of the studies, those without a finished run included.

    Raises:
        StudyError: naming the file, if one is damaged.
        ConfigError: if an agent is not known here: import the module that registers it.
    """
    found = []
    for study, labeled in _labeled(studies):
        metrics = _by_config(study, study.metrics) if study.num_finished else {}
        episodes = _by_config(study, study.episodes) if study.num_finished else {}
        for name, case in labeled.items():
            found.append(_filled(case, study.point(name)[0], metrics.get(name), episodes.get(name)))
    return found


def read_scores(studies: Sequence[Study]) -> list[Case]:
    """The same without panels and episodes, and without curves where every score is finite.

    Scores are in the records, so that nothing else is read. Where a run has none it counts as the
    worst number of any run and step, which is in the curves.

    Raises:
        StudyError: naming the file, if one is missing or shorter than it was, or a record or what
            is read is damaged.
        ConfigError: if an agent is not known here: import the module that registers it.
    """
    parts = _labeled(studies)
    for study in studies:
        if absent := study.absent():
            raise StudyError(
                f"{study.path / absent[0]}: it is missing or not as long as it was written. "
                f"`dqx study resume {study.path}` trains its runs again"
            )
    cases = [case for _, labeled in parts for case in labeled.values()]
    if all(np.isfinite(case.scores).all() for case in cases):
        return cases
    found = []
    for study, labeled in parts:
        metrics = dict.fromkeys(case.metric for case in labeled.values() if case.seeds.size)
        arrays = {metric: study.to_arrays(metric) for metric in metrics}
        place = {seed: i for i, seed in enumerate(study.seeds)}
        for number, case in enumerate(labeled.values()):
            rows = [place[seed] for seed in case.seeds.tolist()]
            if rows:
                curves = arrays[case.metric][number][rows].astype(np.float64)
                case = dataclasses.replace(case, steps=study.steps, curves=curves)
            found.append(case)
    return found


def _labeled(studies: Sequence[Study]) -> list[tuple[Study, dict[str, Case]]]:
    """The cases of each study by the names of their configurations, what is measured left out."""
    called = titles(studies)
    known = collections.Counter(name for study in studies for name in study.configs)
    return [
        (
            study,
            {
                point["name"]: _case(
                    point["name"]
                    if known[point["name"]] == 1
                    else f"{called[number]}: {point['name']}",
                    number,
                    study,
                    point["name"],
                    point["varied"],
                )
                for point in study.plan["points"]
            },
        )
        for number, study in enumerate(studies)
    ]


def _by_config(study: Study, frame: "pandas.DataFrame") -> dict[str, "pandas.DataFrame"]:
    """The rows of each configuration, which lie together."""
    codes = frame["config"].cat.codes.to_numpy()
    ends = np.searchsorted(codes, np.arange(len(study.configs) + 1))
    return {
        name: frame.iloc[ends[i] : ends[i + 1]]
        for i, name in enumerate(study.configs)
        if ends[i] < ends[i + 1]
    }


def _case(label: str, number: int, study: Study, name: str, varied: dict[str, Any]) -> Case:
    config, runs = study.point(name)[0], study.finished_runs(name)
    none = np.zeros((len(runs.seeds), 0))
    return Case(
        label=label,
        study=number,
        name=name,
        env=config.env,
        metric=score_metric(config),
        planned=len(study.seeds),
        total_steps=config.total_steps,
        varied=dict(varied),
        seeds=runs.seeds,
        diverged_at=runs.diverged_at,
        scores=runs.scores,
        steps=np.zeros(0, np.int64),
        curves=none,
        rows=np.zeros(0, np.int64),
        panels={},
        episode_steps=np.zeros(0),
        episodes=none,
    )


def _filled(
    case: Case,
    config: Config,
    metrics: "pandas.DataFrame | None",
    episodes: "pandas.DataFrame | None",
) -> Case:
    """A case with what its tables hold."""
    rows, arrays = _arrays(metrics, len(case.seeds))
    measured = _measured(config, case.metric, rows)
    grid = np.linspace(0, config.total_steps, _GRID + 1)[1:]
    curves = arrays.get(case.metric, np.full((len(case.seeds), len(rows)), np.nan))
    return dataclasses.replace(
        case,
        steps=rows[measured],
        curves=curves[:, measured],
        rows=rows,
        panels={
            name: values
            for name, values in arrays.items()
            if name not in _NO_PANEL and np.isfinite(values).any()
        },
        episode_steps=grid,
        episodes=_rolling(episodes, case.seeds, grid),
    )


def _arrays(
    frame: "pandas.DataFrame | None", runs: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps ``[R]`` and metrics ``[S, R]`` of the rows of one configuration."""
    if frame is None:
        return np.zeros(0, np.int64), {}
    steps = frame["step"].to_numpy()[: len(frame) // runs].astype(np.int64)
    names = list(frame.columns[list(frame.columns).index("step") + 1 :])
    return steps, {n: frame[n].to_numpy(np.float64).reshape(runs, len(steps)) for n in names}


def _measured(config: Config, metric: str, steps: np.ndarray) -> np.ndarray:
    """Which rows have the metric that runs are judged by, whether or not it came out finite."""
    if metric == "episode_return":
        return np.ones(len(steps), bool)
    return np.array([evaluates_at(config, int(step)) for step in steps], bool)


def _rolling(frame: "pandas.DataFrame | None", seeds: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The mean return of each seed's last `WINDOW` episodes, fewer at first: ``[S, G]``."""
    found = np.full((len(seeds), len(grid)), np.nan)
    if frame is None:
        return found
    owner, ends = frame["seed"].to_numpy(), frame["step"].to_numpy()
    returns = frame["return"].to_numpy(np.float64)
    starts = np.flatnonzero(np.diff(owner, prepend=owner[0] - 1))
    place = {int(seed): i for i, seed in enumerate(seeds)}
    for start, end in zip(starts, [*starts[1:], len(owner)], strict=True):
        total = np.concatenate([[0.0], np.cumsum(returns[start:end])])
        until = np.searchsorted(ends[start:end], grid, side="right")
        since = (until - WINDOW).clip(0)
        some = until > 0
        means = (total[until] - total[since])[some] / (until - since)[some]
        found[place[int(owner[start])], some] = means
    return found
