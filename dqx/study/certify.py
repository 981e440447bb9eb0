"""`verify`: runs of a study trained again, alone, and compared bit by bit."""

import dataclasses
import datetime
import platform
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dqx import stats
from dqx.arguments import FUNCTION, maybe, require, whole
from dqx.compute.devices import select_devices
from dqx.compute.digest import digest, flatten
from dqx.compute.programs import programs_for
from dqx.compute.score import score
from dqx.compute.session import ChunkResult, Session
from dqx.settings import ConfigError
from dqx.study.background import over_places, stopping
from dqx.study.folder import Folder, StudyError, plain, write_sealed
from dqx.study.identity import differences, identity
from dqx.study.plan import Plan, Point
from dqx.study.record import plan_of
from dqx.study.results import Study, load
from dqx.study.schedule import Task, fitting_places

IDENTICAL, DIFFERENT, INCOMPARABLE = "identical", "different", "not comparable"


class Check(NamedTuple):
    """One run trained again.

    Attributes:
        config: name of its configuration.
        seed: its seed.
        stored: the digest in the study.
        found: the digest now.
        verdict: ``"identical"``, ``"different"`` or ``"not comparable"``.
        detail: where and by how much it differs; empty if it does not.
        stored_score: score in the study.
        found_score: score now.
    """

    config: str
    seed: int
    stored: str
    found: str
    verdict: str
    detail: str
    stored_score: float
    found_score: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `verify` found, as written to ``certificate.json``.

    Attributes:
        verdict: ``"identical"`` if every run checked is, bit by bit; ``"different"`` if one is not;
            ``"not comparable"`` on another kind of device or with other software, where
            bits may differ for good reason.
        checks: the runs, one by one.
        runs: finished runs of the study.
        differences: how software and device differ from the study's, in words.
        statistics: in words, where not comparable: how far the scores lie apart.
    """

    verdict: str
    checks: tuple[Check, ...]
    runs: int
    differences: tuple[str, ...]
    statistics: str

    @property
    def passed(self) -> bool:
        """Whether every bit was the same."""
        return self.verdict == IDENTICAL


def verify(
    path: Any,
    *,
    sample: int | None = 5,
    pick: int | None = None,
    devices: str | Sequence[jax.Device] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Certificate:
    """Trains finished runs of a study again, each alone, compares every bit, writes a certificate.

    Args:
        path: the study's folder.
        sample: how many runs, drawn at random; None for all of them.
        pick: seed of that draw, 0 or more; another one each time if left out.
        devices: as of ``dqx.study.run``.
        progress: ``progress(done, total)`` is called after every run.

    Raises:
        StudyError: if there is no finished run, or the folder cannot be used.
        ConfigError: for an argument of the wrong kind.
    """
    require(
        ConfigError,
        sample=(sample, maybe(whole(1))),
        pick=(pick, maybe(whole(0))),
        progress=(progress, maybe(FUNCTION)),
    )
    study = load(path)
    if not study.runs:
        raise StudyError(f"no run of {study.path} is finished: there is nothing to verify")
    plan = plan_of(Folder(study.path), study.plan)
    places = select_devices(devices)
    configs = [point.config for point in plan.points]
    present = identity(places, {c.agent for c in configs}, {c.env for c in configs})
    apart = tuple(differences(study.plan["identity"], present))
    pick = secrets.randbits(32) if pick is None else pick
    chosen = _chosen(study, sample, pick)
    checks: dict[int, Check] = {}
    for number, point, result in _trained(plan, chosen, places):
        checks[number] = _check(study, chosen[number], point, result, bool(apart))
        if progress is not None:
            progress(len(checks), len(chosen))
    certificate = _certificate(study, [checks[i] for i in sorted(checks)], apart)
    _write(study, certificate, present, pick)
    return certificate


def _certificate(study: Study, checks: list[Check], apart: tuple[str, ...]) -> Certificate:
    verdicts = {check.verdict for check in checks}
    # Elsewhere only damage is called different.
    verdict = next(v for v in (DIFFERENT, INCOMPARABLE, IDENTICAL) if v in verdicts)
    return Certificate(
        verdict=verdict,
        checks=tuple(checks),
        runs=len(study.runs),
        differences=apart,
        statistics=_compared(checks) if INCOMPARABLE in verdicts else "",
    )


def _chosen(study: Study, sample: int | None, pick: int) -> list[dict[str, Any]]:
    if sample is None or sample >= len(study.runs):
        return study.runs
    rows = np.random.default_rng(pick).choice(len(study.runs), sample, replace=False)
    return [study.runs[row] for row in sorted(rows)]


def _trained(
    plan: Plan, chosen: list[dict[str, Any]], places: Sequence[jax.Device]
) -> Iterator[tuple[int, Point, ChunkResult]]:
    """Yields the number of each run with its point and its new result, as they are trained.

    Every run has a chunk to itself.
    """
    points = {point.name: point for point in plan.points}
    by_config: dict[Any, list[Task]] = {}
    for number, run in enumerate(chosen):
        point = points[run["config"]]
        task = Task(number, (point,), np.array([run["seed"]]), plan.root_seed)
        by_config.setdefault(point.config, []).append(task)
    found: list[tuple[int, Point, ChunkResult]] = []
    with stopping() as stop:
        for config, tasks in by_config.items():
            programs = {d: programs_for(config, d, plan.root_seed) for d in set(places)}
            used = fitting_places(programs[places[0]], config, places, len(tasks))

            def work(place: jax.Device, task: Task, programs: Any = programs) -> None:
                session = Session(programs[place], task.config, task.chunk)
                found.append((task.number, task.points[0], _to_the_end(session, stop)))

            # So many at a time that progress can be told in between.
            for first in range(0, len(tasks), len(used)):
                over_places(used, tasks[first : first + len(used)], work, stop)
                yield from found
                found.clear()


def _to_the_end(session: Session, stop: threading.Event) -> ChunkResult:
    while not session.finished:
        if stop.is_set():
            raise KeyboardInterrupt("interrupted; no certificate is written")
        session.advance()
    return session.result()


def _check(
    study: Study, run: dict[str, Any], point: Point, result: ChunkResult, foreign: bool
) -> Check:
    steps = result.steps
    metrics = {name: values[0] for name, values in result.metrics.items()}
    params = {name: values[0] for name, values in flatten(result.params).items()}
    found = digest(steps, metrics, params)
    common = {
        "config": run["config"],
        "seed": run["seed"],
        "stored": run["digest"],
        "found": found,
        "stored_score": float("nan") if run["score"] is None else run["score"],
        "found_score": float(score(point.config, result.metrics)[0]),
    }
    try:
        detail = _difference(study, run, steps, metrics, params)
    except StudyError as error:
        return Check(verdict=DIFFERENT, detail=str(error), **common)
    if found == run["digest"] and not detail:
        return Check(verdict=IDENTICAL, detail="", **common)
    detail = detail or "the files agree, the digest in the record does not"
    return Check(verdict=INCOMPARABLE if foreign else DIFFERENT, detail=detail, **common)


def _difference(
    study: Study,
    run: dict[str, Any],
    steps: np.ndarray,
    metrics: dict[str, np.ndarray],
    params: dict[str, np.ndarray],
) -> str:
    """Where what is on disk first differs from what was found, in words; empty if nowhere."""
    stored = study.curves(run["config"], run["seed"])
    kept = stored.pop("step")
    then_params = flatten(study.params(run["config"], run["seed"]))
    if set(stored) != set(metrics) or not np.array_equal(kept, steps):
        return "its file of metrics has other rows or columns"
    if {k: v.shape for k, v in then_params.items()} != {k: v.shape for k, v in params.items()}:
        return "its file of parameters has other arrays"
    first: tuple[int, float, str] | None = None
    for name in sorted(stored):
        then, now = stored[name], np.asarray(metrics[name], np.float32)
        unequal = np.flatnonzero(_unequal(then, now))
        if unequal.size:
            row = int(unequal[0])
            gap = _gap(then[row], now[row])
            # The earliest row, and there the metric that is furthest apart.
            if first is None or (-row, gap) > (-first[0], first[1]):
                first = (row, gap, name)
    if first is not None:
        row, gap, name = first
        return f"differs from step {kept[row]:,} on, in {name} by {gap:g}"
    for name in sorted(then_params):
        unequal = _unequal(then_params[name], params[name])
        if unequal.any():
            gap = _gap(then_params[name][unequal], params[name][unequal])
            return f"equal metrics, but the final {name} differs by up to {gap:g}"
    return ""


def _unequal(then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Where the bits differ; all NaNs count as equal, as in a digest."""
    same = (then == now) & (np.signbit(then) == np.signbit(now))
    return ~(same | (np.isnan(then) & np.isnan(now)))


def _gap(then: Any, now: Any) -> float:
    """The largest difference; infinite between a number and none."""
    gap = np.abs(np.asarray(then, np.float64) - np.asarray(now, np.float64))
    return float(np.max(np.where(np.isnan(gap), np.inf, gap)))


def _compared(checks: Sequence[Check]) -> str:
    """Whether the scores could be of the same kind, seed by seed."""
    then = np.array([check.stored_score for check in checks])
    now = np.array([check.found_score for check in checks])
    both = np.isfinite(then) & np.isfinite(now)
    if both.sum() < 2:
        return "fewer than two runs with finite scores: nothing can be said"
    gap = stats.difference(now[both], then[both], np.mean, paired=True)
    value, low, high = float(gap.value), float(gap.low), float(gap.high)
    agrees = "could well be the same" if low <= 0 <= high else "are not the same"
    return (
        f"scores here are {value:+.3g} apart in the mean, 95 % interval {low:.3g} to "
        f"{high:.3g} over {both.sum()} runs: they {agrees}"
    )


def _write(study: Study, certificate: Certificate, present: dict[str, str], pick: int) -> None:
    record = {
        "verdict": certificate.verdict,
        "checked": len(certificate.checks),
        "runs": certificate.runs,
        "pick": pick,
        "differences": list(certificate.differences),
        "statistics": certificate.statistics,
        "checks": [
            {key: plain(value) for key, value in check._asdict().items()}
            for check in certificate.checks
        ],
        "plan_seal": study.plan["sha256"],
        "identity": present,
        "host": platform.node(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path: Path = Folder(study.path).certificate
    try:
        write_sealed(path, record)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}") from error
