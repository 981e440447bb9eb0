"""The loop of a search: propose, train on growing numbers of seeds, drop, tell; then fresh seeds.

It has no state on disk. What is proposed, and how a study is come by, are handed in: so the same
loop trains a search, goes on with one (finished studies are loaded instead), reads one (nothing is
trained), and checks one.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from dqx import stats
from dqx.settings import ConfigError, ConfigWarning
from dqx.study.draws import label
from dqx.study.folder import StudyError
from dqx.study.plan import Plan, read_plan
from dqx.study.results import Study
from dqx.study.tuning.file import Tune
from dqx.study.tuning.race import Dropped, Judged, decide, judge, ranked

# What became of a candidate.
RACING, FINISHED, DROPPED, REPEATED, REFUSED = (
    "racing", "finished", "dropped", "repeated", "refused",
)  # fmt: skip


class Proposer(Protocol):
    """What proposes candidates."""

    def ask(self, generation: int) -> list[dict[str, Any]]:
        """The candidates of a generation, the fields of each.

        Raises:
            Unfinished: if none are there yet, for a search that is only read.
        """

    def tell(self, values: Sequence[float | None]) -> None:
        """What those of the last generation are worth; None for those that could not be trained."""


class Unfinished(Exception):
    """A search that is only read has come to its end so far."""


# ``obtain(place, plan)``: the finished study of a plan, at a place such as "generation-00/seeds-4".
Obtain = Callable[[str, Plan], Study]


@dataclasses.dataclass
class Candidate:
    """One proposal.

    Attributes:
        number: in the order of proposing, from 0 on.
        generation: from 0 on.
        values: the fields that it sets.
        state: ``"racing"``, ``"finished"``, ``"dropped"``, ``"repeated"`` or ``"refused"``.
        scores: of its seeds so far, in their order; NaN where a seed diverged.
        history: what was known of it after each rung.
        dropped: why, if it was.
        same_as: the number of the candidate that it repeats.
        why: it could not be trained.
    """

    number: int
    generation: int
    values: Mapping[str, Any]
    state: str = RACING
    scores: list[float] = dataclasses.field(default_factory=list)
    history: list[Judged] = dataclasses.field(default_factory=list)
    dropped: Dropped | None = None
    same_as: int | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """Its fields as text, as the study names it."""
        return label(self.values)

    @property
    def judged(self) -> Judged | None:
        """The last of ``history``."""
        return self.history[-1] if self.history else None


class Fresh(NamedTuple):
    """What fresh seeds say of the winner.

    Attributes:
        scores: one a fresh seed; NaN where it diverged.
        score: of the winner: the only number that is called so.
        optimism: value on the seeds of the search minus score, with the interval of that
            difference.
    """

    scores: tuple[float, ...]
    score: Judged
    optimism: stats.Estimate


@dataclasses.dataclass
class Search:
    """How far a search is; `run` takes it to its end.

    Attributes:
        tune: what is searched.
        candidates: all so far.
        champion: the best that has finished.
        generation: under way, or the last.
        told: what the proposer was told of each generation.
        studies: of each place so far, the digests of its runs.
        fresh: what fresh seeds say; None before.
    """

    tune: Tune
    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    champion: Candidate | None = None
    generation: int = 0
    told: list[list[float | None]] = dataclasses.field(default_factory=list)
    studies: dict[str, dict[tuple[str, int], str]] = dataclasses.field(default_factory=dict)
    fresh: Fresh | None = None
    _widths: dict[Any, int] = dataclasses.field(default_factory=dict)

    def run(
        self, proposer: Proposer, obtain: Obtain, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        """Searches to the end.

        Args:
            proposer: see `Proposer`.
            obtain: see `Obtain`.
            tell: called with a line after every rung.

        Raises:
            Unfinished: if it is only read, and goes no further.
            StudyError: if no candidate can be trained or has a finite score.
        """
        for generation in range(self.tune.generations):
            asked = proposer.ask(generation)
            self.generation = generation
            born = [self._enter(values) for values in asked]
            self._race([one for one in born if one.state == RACING], obtain, tell)
            self.told.append([self._worth(one) for one in born])
            proposer.tell(self.told[-1])
        if self.champion is None:
            raise StudyError(self._hopeless())
        self._retrain(self.champion, obtain)

    def first_plan(self, proposer: Proposer) -> Plan:
        """The study of the first candidates on the first seeds."""
        born = [self._enter(values) for values in proposer.ask(0)]
        racing = [one for one in born if one.state == RACING]
        if not racing:
            raise StudyError(self._hopeless())
        return self._plan("generation-00/first", racing, self.tune.seeds[: self.tune.rungs[0]])

    def _enter(self, values: Mapping[str, Any]) -> Candidate:
        """A new candidate, unless it was there before or cannot work."""
        one = Candidate(len(self.candidates), self.generation, dict(values))
        for other in self.candidates:
            if other.same_as is None and other.name == one.name:
                one.state, one.same_as = REPEATED, other.number
        if one.same_as is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConfigWarning)  # told when it is trained
                    self._plan("candidate", [one], self.tune.seeds[:1])
            except ConfigError as error:
                one.state, one.why = REFUSED, str(error)
        self.candidates.append(one)
        return one

    def _race(self, racing: list[Candidate], obtain: Obtain, tell: Callable[[str], None]) -> None:
        """Trains candidates on more and more seeds, until they are dropped or have finished."""
        before, rungs = 0, self.tune.rungs
        for rung, count in enumerate(rungs):
            if not racing:
                return
            place = f"generation-{self.generation:02d}/seeds-{count}"
            plan = self._plan(place, racing, self.tune.seeds[before:count])
            study = self._obtained(place, plan, obtain)
            for one in racing:
                one.scores += _scores(study, one.name, plan.seeds)
            judged = self._judge(racing)
            is_last = rung == len(rungs) - 1
            if not is_last:
                champion = None if self.champion is None else self.champion.judged
                for number, why in decide(judged, champion, self.tune.keep).items():
                    self.candidates[number].state = DROPPED
                    self.candidates[number].dropped = why
            tell(self._words(count, racing, judged))
            racing = [one for one in racing if one.state == RACING]
            before = count
        for one in racing:
            one.state = FINISHED
        self._crown(racing)

    def _judge(self, racing: Sequence[Candidate]) -> dict[int, Judged]:
        worst = self._worst()
        for one in racing:
            one.history.append(judge(one.scores, worst, self.tune.level))
        return {one.number: one.history[-1] for one in racing}

    def _worst(self) -> float:
        """The lowest finite score so far, which every seed that diverged counts as."""
        scores = [score for one in self.candidates for score in one.scores]
        return min((score for score in scores if math.isfinite(score)), default=0.0)

    def _crown(self, finished: Sequence[Candidate]) -> None:
        rivals = [*finished, *([self.champion] if self.champion is not None else [])]
        able = [one for one in rivals if np.isfinite(one.scores).any()]
        if able:
            last = {one.number: one.history[-1] for one in able}
            self.champion = self.candidates[ranked(last)[0]]

    def _worth(self, one: Candidate) -> float | None:
        """What the proposer is told: the value on the seeds that a candidate has seen."""
        if one.same_as is not None:
            return self._worth(self.candidates[one.same_as])
        # Where all have diverged nothing is known of what a seed is worth.
        known = any(np.isfinite(other.scores).any() for other in self.candidates)
        return one.judged.value if known and one.judged is not None else None

    def _retrain(self, winner: Candidate, obtain: Obtain) -> None:
        """Trains the winner on seeds that no candidate has seen."""
        seeds = self.tune.fresh
        assert not set(seeds) & set(self.tune.seeds)  # as `read_tune` has checked
        study = self._obtained("fresh", self._plan("fresh", [winner], seeds), obtain)
        scores, found = _scores(study, winner.name, seeds), winner.judged
        assert found is not None
        worst = min([self._worst(), *(score for score in scores if math.isfinite(score))])
        self.fresh = Fresh(
            scores=tuple(scores),
            score=judge(scores, worst, self.tune.level),
            optimism=stats.difference(
                _finite(winner.scores, worst), _finite(scores, worst), level=self.tune.level
            ),
        )

    def _plan(self, place: str, racing: Sequence[Candidate], seeds: Sequence[int]) -> Plan:
        """The study of some candidates on some seeds."""
        tune = self.tune
        plan = read_plan(
            {
                "name": f"{tune.name[:60]}-{place.replace('/', '-')}",
                "seeds": list(seeds),
                "root_seed": tune.root_seed,
                "base": dict(tune.base),
                "case": [{"name": one.name, **one.values} for one in racing],
            }
        )
        points = []
        for point in plan.points:
            # As in the first study, however much memory is free now: a seed's bits hang on it.
            width = self._widths.get(dataclasses.replace(point.config, chunk_width=None))
            if width is not None and point.config.chunk_width is None:
                config = dataclasses.replace(point.config, chunk_width=width)
                point = point._replace(config=config)
            points.append(point)
        return dataclasses.replace(plan, points=tuple(points))

    def _obtained(self, place: str, plan: Plan, obtain: Obtain) -> Study:
        study = obtain(place, plan)
        self.studies[place] = study.digests
        for name in study.configs:
            config, _ = study.point(name)
            assert config.chunk_width is not None
            self._widths[dataclasses.replace(config, chunk_width=None)] = config.chunk_width
        return study

    def _words(self, count: int, racing: Sequence[Candidate], judged: Mapping[int, Judged]) -> str:
        left = sum(one.state == RACING for one in racing)
        best = self.candidates[ranked(judged)[0]]
        found = judged[best.number]
        return (
            f"generation {self.generation + 1}/{self.tune.generations}, {count} seeds: "
            f"{left} of {len(racing)} candidates left; best {found.value:.1f} "
            f"({found.interval_text}) with {best.name}"
        )

    def _hopeless(self) -> str:
        refused = [one.why for one in self.candidates if one.state == REFUSED]
        if not any(one.history for one in self.candidates):
            return f"no candidate can be trained: {refused[0]}. Mend [base] or [tune.space]"
        return "every candidate diverged on every seed: narrow [tune.space]"


def _scores(study: Study, name: str, seeds: Sequence[int]) -> list[float]:
    """The scores of a configuration, NaN where not finite, in the order of the seeds."""
    found = {run["seed"]: run["score"] for run in study.runs if run["config"] == name}
    return [math.nan if found[seed] is None else float(found[seed]) for seed in seeds]


def _finite(scores: Sequence[float], worst: float) -> np.ndarray:
    given = np.array(scores, np.float64)
    return np.where(np.isfinite(given), given, worst)
