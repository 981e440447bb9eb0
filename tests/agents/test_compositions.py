"""Every axis beside every other: what cannot be combined is refused in one line, the rest trains.

The axes and their values are those of `tests.variants`.
"""

import functools
import re

import jax
import numpy as np
import pytest

import dqx
from dqx.settings import SETTINGS, complete, rounded
from tests import variants
from tests.core.ledger import seed_keys
from tests.shared import HYPER, quickly

# What cannot be combined, and why it cannot: items of two axes, "*" for all values but the default.
# Beside these there is what an agent has no use for, as a table has none for a head; such a setting
# names a trait that its agents have (`dqx.settings.owners`). C51's values are not rescaled, because
# its projection keeps the means of atoms, not of what these stand for; nor are IQN's, whose network
# takes the mean over levels before its last layer.
IMPOSSIBLE = {
    (("agent", "tabular"), ("frame_stack", "*")): "stacks arrays .* gives category numbers",
    (("agent", "bootstrapped"), ("target", "clipped_double")): "heads that learn apart",
    (("target", "munchausen"), ("n_step", "*")): "of the steps between only rewards are known",
    (("target", "munchausen"), ("double", "*")): "leave double at false",
    (("target", "expected_sarsa"), ("policy", "*")): "the mean over policy = epsilon_greedy",
    (("target", "expected_sarsa"), ("epsilon_ladder", "*")): "with one epsilon",
    (("target", "expected_sarsa"), ("exact_metrics", "*")): "of the best policy",
    (("target", "munchausen"), ("exact_metrics", "*")): "of the best policy",
    (("exact_metrics", True), ("frame_stack", "*")): "know no stacked observations",
    (("exact_metrics", True), ("normalize_observations", "*")): "takes arrays of numbers",
    (("epsilon_ladder", True), ("policy", "greedy")): "needs a policy with an epsilon",
    (("epsilon_ladder", True), ("policy", "boltzmann")): "needs a policy with an epsilon",
    (("epsilon_ladder", True), ("policy", "boltzmann_gumbel")): "needs a policy with an epsilon",
    (("epsilon_ladder", True), ("policy", "softmax")): "needs a policy with an epsilon",
}


def reason(pair):
    """Why a pair cannot be combined, by the table above; None if it should train."""

    def is_of(item):
        axis, value = item
        given = pair.get(axis, variants.axes()[axis][0])
        return given != variants.axes()[axis][0] if value == "*" else given == value

    for items, words in IMPOSSIBLE.items():
        if all(map(is_of, items)):
            return words
    for axis in pair:
        owner, trait = SETTINGS[axis].of or ("", "")
        if owner == "agent" and is_of((axis, "*")):
            has = SETTINGS["agent"].has(pair.get("agent", "dqn"))
            if trait not in has:
                return f"belongs to agents with (a )?{trait} "
    return None


def test_the_axes_are_those_of_the_family():
    axes = variants.axes()
    assert set(axes["agent"]) == set(dqx.settings.agent_names())
    assert {"head", "dense", "layer_norm", "n_step", "target", "double", "value_rescaling",
            "sampling", "policy", "exact_metrics"} <= set(axes)  # fmt: skip
    used = {(axis, value) for row in variants.covering().values() for axis, value in row.items()}
    wanted = {(axis, value) for axis, values in axes.items() for value in values[1:]}
    assert wanted == used and len(variants.covering()) <= len(axes["agent"]) + 1


def test_a_pair_of_settings_is_refused_in_one_line_exactly_where_it_is_impossible():
    """Nothing compiles here."""
    met = set()
    for pair in variants.pairs():
        said, words = variants.refusal(variants.changes(pair)), reason(pair)
        assert (said is None) == (words is None), (pair, said)
        if words is not None:
            met.add(words)
            assert re.search(words, said) and "\n" not in said, said
            # The line says what to do, and names at least one of the two.
            assert re.search(r"leave|choose|set |got|takes", said), said
            named = [text for item in pair.items() for text in map(str, item)]
            assert any(text in said for text in named), said
    assert met >= set(IMPOSSIBLE.values())  # none of the table is out of date


def test_pairs_that_are_allowed_are_all_in_some_row():
    rows = [{**{a: v[0] for a, v in variants.axes().items()}, **r}
            for r in variants.pairwise().values()]  # fmt: skip
    for pair in variants.pairs():
        if reason(pair) is None:
            assert any(pair.items() <= row.items() for row in rows), pair
    assert all(variants.refusal(variants.changes(row)) is None for row in rows)
    # No fewer can hold all pairs of the two longest axes.
    longest, second = sorted((len(values) for values in variants.axes().values()), reverse=True)[:2]
    assert len(rows) < 1.25 * longest * second


@pytest.mark.long
@pytest.mark.parametrize("name", variants.pairwise())
def test_every_pair_of_settings_has_programs(name):
    """Traced over two lanes and never compiled: shapes and types fit, and a lane keeps its own."""
    config, hyper = variants.settled(variants.pairwise()[name])
    config, _ = rounded(config)
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    hyper = complete(config, hyper)

    def run(keys):
        clock, lanes = trainer.start(), jax.vmap(lambda key: trainer.init(key, hyper=hyper))(keys)
        learn = functools.partial(trainer.segment, steps=config.train_period * 2)
        _, after, _, metrics = jax.vmap(learn, (None, 0, None), (None, 0, 0, 0))(
            clock, lanes, hyper
        )
        return lanes, after, metrics

    before, after, metrics = jax.eval_shape(run, seed_keys(2))
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), one) for one in (before, after)]
    assert shapes[0] == shapes[1]
    assert all(np.issubdtype(value.dtype, np.floating) for value in metrics.values())


@pytest.mark.long
@pytest.mark.timeout(600)  # a program each, which a machine that is busy compiles slowly
@pytest.mark.parametrize("name", variants.covering())
def test_rows_that_use_every_value_train_in_a_grid(name):
    """Each seed is a lane with hyperparameters of its own, whatever its place and neighbour."""
    config, base = variants.settled(variants.covering()[name])
    config, _ = rounded(config)
    trainer = dqx.make_trainer(config, dqx.environment_of(config))
    hypers = [
        complete(config, base.replace(learning_rate=rate, gamma=gamma))
        for rate, gamma in ((HYPER.learning_rate, 0.99), (3e-3, 0.9))
    ]

    def run(keys, hyper):
        clock, lanes = trainer.start(), jax.vmap(lane)(keys, hyper)
        warm = functools.partial(trainer.warm_up, steps=config.train_period * 4)
        clock, lanes, _ = jax.vmap(warm, (None, 0), (None, 0, 0))(clock, lanes)
        learn = functools.partial(trainer.segment, steps=config.train_period * 6)
        _, lanes, _, metrics = jax.vmap(learn, (None, 0, 0), (None, 0, 0, 0))(clock, lanes, hyper)
        return metrics, lanes.agent.params

    def lane(key, hyper):
        return trainer.init(key, hyper=hyper)

    program, found = quickly(run), []
    # In each place, and alone: the other lane is then the same one, as where a chunk is filled up.
    for order in ([0, 1], [1, 0], [0, 0], [1, 1]):
        hyper = jax.tree.map(lambda *x, o=order: np.float32(x)[o], *hypers)
        result = program(seed_keys(2)[np.array(order)], hyper)
        found.append(jax.tree.map(np.asarray, result))
    one, *others = found
    for metric, values in one[0].items():
        if metric not in ("epsilon", "grad_norm"):  # NaN without such
            assert np.all(np.isfinite(values)), metric
    for order, other in zip(([1, 0], [0, 0], [1, 1]), others, strict=True):
        expected = jax.tree.map(lambda x, o=order: x[np.array(o)], one)
        jax.tree.map(np.testing.assert_array_equal, other, expected)
    assert any(np.any(leaf[0] != leaf[1]) for leaf in jax.tree.leaves(one[1]))
