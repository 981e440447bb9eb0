"""`verify`: runs of a study trained again, alone, and compared bit by bit."""

import dataclasses
import datetime
import platform
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dqx import stats
from dqx.config import ConfigError
from dqx.devices import select_devices
from dqx.digest import digest, flatten
from dqx.rounds import Chunk, ChunkResult, Round
from dqx.run import per_seed, programs_for, row_steps
from dqx.study.folder import Folder, StudyError, plain, write_sealed
from dqx.study.identity import differences, identity
from dqx.study.plan import Point
from dqx.study.record import plan_of
from dqx.study.results import Study, load
from dqx.study.schedule import fitting_devices
from dqx.study.store import final_returns

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
        stored_return: final return in the study.
        found_return: final return now.
    """

    config: str
    seed: int
    stored: str
    found: str
    verdict: str
    detail: str
    stored_return: float
    found_return: float


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
        statistics: in words, where not comparable: how far the final returns lie apart.
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
        pick: seed of that draw; another one each time if left out.
        devices: as of ``dqx.study.run``.
        progress: ``progress(done, total)`` is called after every run.

    Raises:
        StudyError: if there is no finished run, or the folder cannot be used.
    """
    study = load(path)
    if not study.runs:
        raise StudyError(f"no run of {study.path} is finished: there is nothing to verify")
    if sample is not None and sample < 1:
        raise ConfigError(f"sample must be at least 1, got {sample}")
    available = select_devices(devices)
    present = identity(available)
    apart = tuple(differences(study.plan["identity"], present))
    drawn_by = secrets.randbits(32) if pick is None else pick
    chosen = _chosen(study, sample, drawn_by)
    checks = []
    for run, point, result in _trained(study, chosen, available):
        checks.append(_check(study, run, point, result, bool(apart)))
        if progress is not None:
            progress(len(checks), len(chosen))
    verdicts = {check.verdict for check in checks}
    # Elsewhere only damage is called different.
    verdict = next(v for v in (DIFFERENT, INCOMPARABLE, IDENTICAL) if v in verdicts)
    certificate = Certificate(
        verdict=verdict,
        checks=tuple(checks),
        runs=len(study.runs),
        differences=apart,
        statistics=_compared(checks) if INCOMPARABLE in verdicts else "",
    )
    _write(study, certificate, present, drawn_by)
    return certificate


def _chosen(study: Study, sample: int | None, drawn_by: int) -> list[dict[str, Any]]:
    if sample is None or sample >= len(study.runs):
        return study.runs
    rows = np.random.default_rng(drawn_by).choice(len(study.runs), sample, replace=False)
    return [study.runs[row] for row in sorted(rows)]


def _trained(study: Study, chosen: list[dict[str, Any]], available: Sequence[jax.Device]) -> Any:
    """Yields each run with its point and its new result; one run a chunk, one chunk a device."""
    plan = plan_of(Folder(study.path), study.plan)
    points = {point.name: point for point in plan.points}
    by_config: dict[Any, list[dict[str, Any]]] = {}
    for run in chosen:
        by_config.setdefault(points[run["config"]].config, []).append(run)
    for config, runs in by_config.items():
        used = fitting_devices(config, available, len(runs))
        programs = programs_for(config, used, plan.root_seed)
        for first in range(0, len(runs), len(used)):
            batch = runs[first : first + len(used)]
            chunks = [
                Chunk(np.array([r["seed"]]), per_seed(points[r["config"]].hyper, 1)) for r in batch
            ]
            under_way = Round(programs, config, chunks)
            while not under_way.finished:
                under_way.advance()
            for run, result in zip(batch, under_way.results(), strict=True):
                yield run, points[run["config"]], result


def _check(
    study: Study, run: dict[str, Any], point: Point, result: ChunkResult, foreign: bool
) -> Check:
    steps = row_steps(point.config)
    metrics = {name: values[0] for name, values in result.metrics.items()}
    params = {name: values[0] for name, values in flatten(result.params).items()}
    found = digest(steps, metrics, params)
    stored_return = run["final_return"]
    common = {
        "config": run["config"],
        "seed": run["seed"],
        "stored": run["digest"],
        "found": found,
        "stored_return": float("nan") if stored_return is None else stored_return,
        "found_return": float(final_returns(point, result)[0]),
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
    """Whether the final returns could be of the same kind, seed by seed."""
    then = np.array([check.stored_return for check in checks])
    now = np.array([check.found_return for check in checks])
    both = np.isfinite(then) & np.isfinite(now)
    if both.sum() < 2:
        return "fewer than two runs with finite returns: nothing can be said"
    gap = stats.difference(now[both], then[both], np.mean, paired=True)
    value, low, high = float(gap.value), float(gap.low), float(gap.high)
    agrees = "could well be the same" if low <= 0 <= high else "are not the same"
    return (
        f"final returns here are {value:+.3g} apart in the mean, 95 % interval {low:.3g} to "
        f"{high:.3g} over {both.sum()} runs: they {agrees}"
    )


def _write(study: Study, certificate: Certificate, present: dict[str, str], drawn_by: int) -> None:
    record = {
        "verdict": certificate.verdict,
        "checked": len(certificate.checks),
        "runs": certificate.runs,
        "drawn_by": drawn_by,
        "differences": list(certificate.differences),
        "statistics": certificate.statistics,
        "checks": [
            {key: plain(value) for key, value in check._asdict().items()}
            for check in certificate.checks
        ],
        "plan": study.plan["sha256"],
        "identity": present,
        "host": platform.node(),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    path: Path = Folder(study.path).certificate
    try:
        write_sealed(path, record)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}") from error
