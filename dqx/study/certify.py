"""`verify`: a study's folder held against its plan, and runs of it trained again, bit by bit."""

import dataclasses
import datetime
import platform
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dqx import stats
from dqx.arguments import FUNCTION, PATH, TEXT, maybe, require, whole
from dqx.compute.digest import digest, flatten
from dqx.compute.score import score
from dqx.files import check_folder
from dqx.settings import ConfigError
from dqx.study import differing, signature
from dqx.study.audit import Audit, audit
from dqx.study.executors import EXECUTOR, Executor
from dqx.study.executors.local import Devices, chosen
from dqx.study.folder import Folder, StudyError, read_plan_record
from dqx.study.kinds import ThenAndNow, kinds_of
from dqx.study.plan import Plan
from dqx.study.point import Point
from dqx.study.record import plan_of
from dqx.study.results import Study
from dqx.study.retrained import retrain
from dqx.study.sealed import plain, write_sealed

IDENTICAL, DIFFERENT, INCOMPARABLE = "identical", "different", "not comparable"
INCOMPLETE = "incomplete"
_MAX_PROBLEMS = 1_000  # in a certificate
Progress = Callable[[int, int], None] | None


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
        trained_on: the machine that trained it, as far as the study tells.
        again_on: the machine that trained it again.
        trained_kind: the kind of machine that trained it, as a place in ``kinds`` of the
            certificate.
        again_kind: that of the machine that trained it again; on another one bits may differ.
    """

    config: str
    seed: int
    stored: str
    found: str
    verdict: str
    detail: str
    stored_score: float
    found_score: float
    trained_on: str = ""
    again_on: str = ""
    trained_kind: int = 0
    again_kind: int = 0

    @property
    def elsewhere(self) -> bool:
        """Whether another machine than before has trained it again."""
        return bool(self.trained_on) and self.again_on != self.trained_on


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What `verify` found, as written to ``certificate.json``.

    Attributes:
        verdict: ``"identical"`` if the folder is sound and whole and every run checked is the same,
            bit by bit; ``"different"`` if anything is not; ``"not comparable"`` on another kind of
            device or with other software, where bits may differ for good reason; ``"incomplete"``
            if nothing differs, but runs of the plan are not finished.
        checks: the runs trained again, one by one.
        runs: finished runs of the study.
        planned: runs of its plan.
        problems: what in the folder does not agree with the plan or with itself, in words.
        digest: of the whole study, see ``Study.digest``; empty where it has none.
        expected: the digest that was asked for, if one was.
        differences: how software and device differ from the study's, in words.
        kinds: of machines that trained the study or trained runs of it again: what the bits of each
            depend on.
        statistics: in words, where not comparable: how far the scores lie apart.
    """

    verdict: str
    checks: tuple[Check, ...]
    runs: int
    planned: int
    problems: tuple[str, ...]
    digest: str
    expected: str | None
    differences: tuple[str, ...]
    statistics: str
    kinds: tuple[dict[str, str], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything is there and every bit was the same."""
        return self.verdict == IDENTICAL


def verify(
    path: Any,
    *,
    sample: int | None = 5,
    pick: int | None = None,
    devices: Devices = None,
    executor: Executor | None = None,
    expect: str | None = None,
    sign: str | Path | None = None,
    progress: Progress = None,
    reading: Progress = None,
) -> Certificate:
    """Checks all that a folder says of a study, trains runs of it again, writes a certificate.

    Every file is held against the plan and against the others; of the runs that are trained again,
    each alone, every bit is compared. ``docs/verify.md`` says what a certificate means.

    Args:
        path: the study's folder.
        sample: how many runs, drawn at random; None for all of them.
        pick: seed of that draw, 0 or more; another one each time if left out.
        devices: as of ``dqx.study.run``.
        executor: as of ``dqx.study.run``; a cluster trains a run on a machine other than the one
            that trained it, if it has one.
        expect: the digest that the study has to have, 64 hexadecimal digits.
        sign: a private key of OpenSSH to sign the certificate with.
        progress: ``progress(done, total)`` is called after every run.
        reading: ``reading(done, total)`` is called after every chunk whose files were checked.

    Raises:
        StudyError: if there is no finished run, the folder cannot be used, or the key cannot sign.
        OutputError: if no certificate can be written in the folder.
        ConfigError: for an argument of the wrong kind.
    """
    require(
        ConfigError,
        sample=(sample, maybe(whole(1))),
        pick=(pick, maybe(whole(0))),
        executor=(executor, maybe(EXECUTOR)),
        expect=(expect, maybe(TEXT)),
        sign=(sign, maybe(PATH)),
        progress=(progress, maybe(FUNCTION)),
        reading=(reading, maybe(FUNCTION)),
    )
    folder = Folder(path)
    record = read_plan_record(folder)
    expected = None if expect is None else check_digest(expect)
    if sign is not None:
        signature.check_key(Path(sign))
    # Known before anything is trained, so that what is found is not lost.
    check_folder(folder.path, "verify a copy, or make it writable")
    plan = plan_of(folder, record)
    with chosen(executor, devices) as trainer:
        present = trainer.meet(plan, record)
        kinds = ThenAndNow.of(kinds_of(record), present)
        found = audit(folder, record, plan, reading)
        if not found.problems and len(found.missing) == plan.num_runs:
            raise StudyError(f"no run of {folder.path} is finished: there is nothing to verify")
        pick = secrets.randbits(32) if pick is None else pick
        checks = _checks(found, plan, trainer, (sample, pick), kinds, progress)
    certificate = _certificate(found, plan, checks, kinds, expected)
    content = _record(certificate, record, present[0].identity, pick)
    _write(folder, content, None if sign is None else Path(sign))
    return certificate


def check_digest(text: str) -> str:
    """A study's digest as it is compared.

    Raises:
        ConfigError: if it cannot be one.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ConfigError(
            f"a study's digest has 64 hexadecimal digits, got {text!r}: give the one that `dqx "
            "verify` or `dqx study status` prints"
        )
    return text.lower()


def not_expected(digest: str, expected: str | None) -> list[str]:
    """That a study has another digest than the expected one, in words; empty if it has not."""
    if expected is None or digest == expected:
        return []
    has = f"is {digest}" if digest else "is not known, as it is not whole"
    return [f"the study's digest {has}; expected was {expected}"]


def _checks(
    found: Audit,
    plan: Plan,
    executor: Executor,
    drawn: tuple[int | None, int],
    kinds: ThenAndNow,
    progress: Progress,
) -> list[Check]:
    """Trains runs of a study again and compares them; none where its records are not sound."""
    study = found.study
    if study is None:
        return []
    chosen = _chosen(study, *drawn)
    checks: dict[int, Check] = {}
    one_at_a_time = threading.Lock()

    def take(number: int, point: Point, again: differing.Trained) -> None:
        with one_at_a_time:
            run, unsound = chosen[number], found.unsound
            checks[number] = _check(study, run, point, again, kinds, unsound)
            if progress is not None:
                progress(len(checks), len(chosen))

    retrain(executor, plan, chosen, study.machines, take)
    return [checks[i] for i in sorted(checks)]


def _certificate(
    found: Audit,
    plan: Plan,
    checks: list[Check],
    kinds: ThenAndNow,
    expected: str | None,
) -> Certificate:
    problems = (*found.problems, *not_expected(found.digest, expected))
    verdicts = {check.verdict for check in checks}
    verdicts |= {DIFFERENT} if problems or not checks else set()
    verdicts |= {INCOMPLETE} if found.missing else set()
    # Elsewhere only damage is called different.
    order = (DIFFERENT, INCOMPARABLE, INCOMPLETE, IDENTICAL)
    return Certificate(
        verdict=next(verdict for verdict in order if verdict in verdicts),
        checks=tuple(checks),
        runs=plan.num_runs - len(found.missing),
        planned=plan.num_runs,
        problems=problems,
        digest=found.digest,
        expected=expected,
        differences=kinds.differences(),
        statistics=_compared(checks) if INCOMPARABLE in verdicts else "",
        kinds=kinds.identities,
    )


def _chosen(study: Study, sample: int | None, pick: int) -> list[dict[str, Any]]:
    if sample is None or sample >= len(study.runs):
        return study.runs
    rows = np.random.default_rng(pick).choice(len(study.runs), sample, replace=False)
    return [study.runs[row] for row in sorted(rows)]


def _check(
    study: Study,
    run: dict[str, Any],
    point: Point,
    again: differing.Trained,
    kinds: ThenAndNow,
    unsound: Mapping[int, str],
) -> Check:
    result = again.result
    metrics = {name: values[0] for name, values in result.metrics.items()}
    params = {name: values[0] for name, values in flatten(result.params).items()}
    found = digest(result.steps, metrics, params)
    found_score = float(score(point.config, result.metrics)[0])
    common = {
        "config": run["config"],
        "seed": run["seed"],
        "stored": run["digest"],
        "found": found,
        "stored_score": float("nan") if run["score"] is None else run["score"],
        "found_score": found_score,
        "trained_on": study.machines.get(run["chunk"], ""),
        "again_on": again.machine,
        "trained_kind": kinds.then[run["config"]],
        "again_kind": kinds.now[run["config"]],
    }
    if run["chunk"] in unsound:
        return Check(verdict=DIFFERENT, detail=unsound[run["chunk"]], **common)
    try:
        texts = differing.differences(study, run, again, found_score)
    except StudyError as error:
        return Check(verdict=DIFFERENT, detail=str(error), **common)
    if not texts and found == run["digest"]:
        return Check(verdict=IDENTICAL, detail="", **common)
    detail = "; ".join(texts) or "the files agree, the digest in the record does not"
    verdict = DIFFERENT if kinds.comparable(run["config"]) else INCOMPARABLE
    return Check(verdict=verdict, detail=detail, **common)


def _compared(checks: Sequence[Check]) -> str:
    """Whether the scores could be of the same kind, seed by seed, where bits may differ."""
    scores = [
        (check.stored_score, check.found_score)
        for check in checks
        if check.again_kind != check.trained_kind
    ]
    then, now = np.array(scores).T
    both = np.isfinite(then) & np.isfinite(now)
    if both.sum() < 2:
        return "fewer than two runs with finite scores: nothing can be said"
    gaps = now[both] - then[both]
    if np.ptp(gaps) == 0:  # of which there is no interval
        if gaps[0] == 0:
            return f"scores here are those of the study, in all of {both.sum()} runs"
        return f"scores here are {gaps[0]:+.3g} apart in each of {both.sum()} runs"
    gap = stats.difference(now[both], then[both], np.mean, paired=True)
    value, low, high = float(gap.value), float(gap.low), float(gap.high)
    agrees = "could well be the same" if low <= 0 <= high else "are not the same"
    return (
        f"scores here are {value:+.3g} apart in the mean, 95 % interval {low:.3g} to "
        f"{high:.3g} over {both.sum()} runs: they {agrees}"
    )


def _record(
    certificate: Certificate, plan: Mapping[str, Any], present: dict[str, str], pick: int
) -> dict[str, Any]:
    """The content of ``certificate.json``."""
    return {
        "verdict": certificate.verdict,
        "digest": certificate.digest,
        "expected": certificate.expected,
        "checked": len(certificate.checks),
        "runs": certificate.runs,
        "planned": certificate.planned,
        "pick": pick,
        "problems": _few(certificate.problems),
        "differences": list(certificate.differences),
        "statistics": certificate.statistics,
        "checks": [
            {key: plain(value) for key, value in check._asdict().items()}
            for check in certificate.checks
        ],
        "plan_seal": plan["sha256"],
        "identity": present,
        "kinds": [dict(kind) for kind in certificate.kinds],
        "host": platform.node(),
        "elsewhere": sum(check.elsewhere for check in certificate.checks),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _few(problems: Sequence[str]) -> list[str]:
    """As many problems as anybody reads, and how many there are more."""
    more = len(problems) - _MAX_PROBLEMS
    return [*problems[:_MAX_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]


def _write(folder: Folder, content: Mapping[str, Any], key: Path | None) -> None:
    """Writes a certificate and its signature; an older signature goes first."""
    path = folder.certificate
    try:
        folder.signature.unlink(missing_ok=True)
        written = write_sealed(path, content)
        if key is not None:
            signature.sign(written, key, folder.signature)
    except OSError as error:
        raise StudyError(f"cannot write {path}: {error.strerror or error}") from error
