"""Statistics over seeds: intervals, comparisons, tasks, curves, planning, stopping early.

Everything takes NumPy arrays whose axis 0 is the seeds, and needs neither JAX nor an accelerator.

What the intervals mean: seeds are taken as independent draws from all seeds that could have been
run, and intervals are made so that about `level` of them, each from fresh seeds, hold the
statistic's value over all seeds; `docs/statistics.md` has how many of them do, by simulation. They
say nothing about other environments or settings. They are pointwise: a whole curve leaves its band
more often than one point does. Episodes of one seed are not independent of each other, so average
them into one number a seed first.

Arguments that all functions share:

- `level`: the nominal probability, between 0 and 1; `resamples`: how many bootstrap samples;
  `seed`: of the resampling, which decides it alone.
- `nan`: what to do with values that are NaN or infinite, as a rule seeds that diverged. They are
  never left out in silence. "raise", the default, raises ValueError; "drop" leaves them out entry
  by entry, which flatters an algorithm whose bad seeds diverge; a number counts each as that
  number, for instance the environment's lowest return.

Sources: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice" (IQM, performance profiles, probability of improvement); Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", chapter 13 (the percentile interval); Tukey and McLaughlin 1963,
"Less vulnerable confidence and significance procedures for location" (Student's t for trimmed
means).
"""

from dqx.stats.bootstrap import bootstrap_interval
from dqx.stats.comparisons import difference, performance_profile, probability_of_improvement
from dqx.stats.curves import Band, area_under_curve, simultaneous_band
from dqx.stats.intervals import AGREE, ONE_SEED, Summary, interval, summarize, why_none
from dqx.stats.planning import lowered, seeds_needed, wrong_winner
from dqx.stats.reference import reference_presets, reference_scores
from dqx.stats.samples import Estimate, Interval, NanPolicy, iqm
from dqx.stats.seeds import cvar, median, optimality_gap, quantile, share_reaching
from dqx.stats.sequential import Decision, confidence_sequence, decide, sequential_difference
from dqx.stats.survival import (
    Survival,
    Times,
    median_steps,
    restricted_mean_steps,
    steps_to_threshold,
    survival_curve,
)
from dqx.stats.tasks import (
    OPTIMUM,
    IntervalEstimates,
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    aggregate_optimality_gap,
    create_performance_profile,
    get_interval_estimates,
    improvement_over_tasks,
    min_max_normalize,
    normalize,
    stratified,
)
from dqx.stats.testing import Permutation, cliffs_delta, holm, permutation_test, robust_effect

__all__ = [
    "AGREE",
    "ONE_SEED",
    "OPTIMUM",
    "Band",
    "Decision",
    "Estimate",
    "Interval",
    "IntervalEstimates",
    "NanPolicy",
    "Permutation",
    "Summary",
    "Survival",
    "Times",
    "aggregate_iqm",
    "aggregate_mean",
    "aggregate_median",
    "aggregate_optimality_gap",
    "area_under_curve",
    "bootstrap_interval",
    "cliffs_delta",
    "confidence_sequence",
    "create_performance_profile",
    "cvar",
    "decide",
    "difference",
    "get_interval_estimates",
    "holm",
    "improvement_over_tasks",
    "interval",
    "iqm",
    "lowered",
    "median",
    "median_steps",
    "min_max_normalize",
    "normalize",
    "optimality_gap",
    "performance_profile",
    "permutation_test",
    "probability_of_improvement",
    "quantile",
    "reference_presets",
    "reference_scores",
    "restricted_mean_steps",
    "robust_effect",
    "seeds_needed",
    "sequential_difference",
    "share_reaching",
    "simultaneous_band",
    "steps_to_threshold",
    "stratified",
    "summarize",
    "survival_curve",
    "why_none",
    "wrong_winner",
]
