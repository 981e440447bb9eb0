"""What every agent promises the loop: those of dqx, and one made up here."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import dqx
from dqx import agents, settings
from dqx.core import exploration
from dqx.core.agent import Agent, AgentState, Learned, Metric, Now, Spec
from dqx.core.types import Batch, Transition
from dqx.settings import Config, Hyper, own_setting, registry
from tests import probes
from tests.core.ledger import seed_keys
from tests.jaxprs import outputs, traced
from tests.shared import quickly

LEVEL = 1e-4  # all but one key in ten thousand pass by chance; keys are fixed
STATES, ACTIONS, ENVS, BATCH = 23, 3, 4, 8
SPEC = Spec("Numbers-v0", (), jnp.int32, STATES, ACTIONS, ENVS)


class Numbers(probes.Probe):
    """One step an episode; the observation is a number, the reward depends on it and the action."""

    actions, marks = ACTIONS, STATES

    def observation_space(self, params):
        return probes.spaces.Discrete(STATES)

    def look(self, state):
        return state.mark

    def reward(self, state, action):
        return 1.0 + state.mark + action


def build_made_up(config, spec):
    """A linear agent with a memory, draws of its own, and a target, none of them from the kit."""

    def init(key):
        params = {"w": jax.random.normal(key, (spec.num_categories, spec.num_actions))}
        return AgentState(params, jax.tree.map(jnp.copy, params), jnp.int32(0), jnp.int32(0))

    def act_draws(key):
        keys = jax.random.split(key, spec.num_envs)
        return jax.vmap(lambda k: exploration.draw(k, spec.num_actions))(keys)

    def act(state, obs, draws, now):
        greedy = jnp.argmax(q_values(state.params, obs), axis=1)
        action = jnp.where(draws.coin < now.hyper.daring, draws.action, greedy)
        return action.astype(jnp.int32), state.replace(memory=state.memory + 1)

    def learn(state, batch, draws, now, sync):
        steps, w = batch.steps, state.params["w"]
        target = steps.reward + steps.discount * now.hyper.gamma * jnp.max(
            state.target_params["w"][steps.next_obs], axis=1
        )
        error = target + 0.01 * draws - w[steps.obs, steps.action]
        weight = 1.0 if batch.weight is None else batch.weight
        change = jnp.zeros_like(w).at[steps.obs, steps.action].add(weight * error / len(draws))
        params = {"w": w + now.hyper.learning_rate * change}
        target_params = jax.lax.cond(sync, lambda: params, lambda: state.target_params)
        state = AgentState(params, target_params, state.opt_state + 1, state.memory)
        metrics = {
            "loss": jnp.mean(weight * error**2),
            "weight_norm": jnp.linalg.norm(params["w"]),
            "surprise": jnp.max(jnp.abs(error)),
        }
        return state, Learned(metrics, error**2)

    def q_values(params, obs):
        return params["w"][obs]

    return Agent(
        init=init,
        act_draws=act_draws,
        act=act,
        explore=lambda state, draws: (draws.action, state.replace(memory=state.memory + 1)),
        learn_draws=lambda key: jax.random.normal(key, (config.batch_size,)),
        learn=learn,
        q_values=q_values,
        status=lambda now: {"daring": jnp.float32(now.hyper.daring)},
        metrics={
            "loss": Metric(),
            "weight_norm": Metric("last"),
            "surprise": Metric("max"),
            "daring": Metric("now", before=1.0),
        },
    )


MADE_UP = agents.Variant(
    "made_up",
    build_made_up,
    has=("target",),
    settings=[own_setting("daring", 0.25, "probability of a random action", traced=True, low=0)],
)
CASES = {
    **{name: {"agent": name} for name in settings.agent_names()},
    "pqn": {"agent": "pqn", "train_period": BATCH},
    "dqn, double, counting": {"agent": "dqn", "double": True, "policy": "boltzmann_gumbel"},
    "dqn, dueling, noisy": {"head": "dueling_avg", "dense": "noisy", "layer_norm": True},
    "iqn, noisy": {"agent": "iqn", "dense": "noisy", "double": True},
    "made_up": {"agent": "made_up"},
}


@pytest.fixture(scope="module", autouse=True)
def made_up():
    agents.register(MADE_UP)
    yield
    registry.forget("made_up")


# These are enough every time, the others are for `make test-long`.
_SHORT = ("dqn", "c51", "tabular", "dqn, double, counting", "dqn, dueling, noisy", "made_up")


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.long] * (n not in _SHORT)) for n in CASES],
    scope="module",
)
def config(request):
    fields = {"batch_size": BATCH, "num_envs": ENVS, "train_period": ENVS, **CASES[request.param]}
    fields |= {"hidden_sizes": (5,)} if fields.get("agent", "dqn") == "dqn" else {}
    config, hyper = settings.override(Config(), Hyper(), **fields)
    settings.validate(config, hyper)
    return settings.rounded(config)[0]


@pytest.fixture(scope="module")
def agent(config):
    return agents.make_agent(config, SPEC)


@pytest.fixture(scope="module")
def compiled(agent):
    """The agent, each of its functions compiled."""
    functions = {n: quickly(f) if callable(f) else f for n, f in agent._asdict().items()}
    return Agent(**functions)


def now_of(config, **fields):
    counts = (jnp.int32(n) for n in (40, 7, 3))
    ages = jnp.zeros(ENVS, jnp.int32)
    return Now(settings.complete(config, Hyper(**fields)), *counts, ages)


def random_batch(seed=0, weight=None):
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.integers(0, STATES, (2, BATCH)).astype(np.int32)
    action = rng.integers(0, ACTIONS, BATCH).astype(np.int32)
    reward = rng.uniform(1, 2, BATCH).astype(np.float32)
    discount = (rng.random(BATCH) > 0.3).astype(np.float32)
    keys = jax.random.split(jax.random.key(seed), BATCH)
    return Batch(Transition(obs, action, reward, discount, next_obs), weight, keys=keys)


def one_update(config, agent, seed=0, sync=True, state=None, weight=None):
    state = agent.init(jax.random.key(seed)) if state is None else state
    draws = agent.learn_draws(jax.random.key(seed + 1))
    batch = with_targets(agent, state, random_batch(seed, weight), now_of(config))
    return agent.learn(state, batch, draws, now_of(config), jnp.bool_(sync))


def with_targets(agent, state, batch, now):
    """The batch as one step of a rollout, for an agent that learns from such."""
    if agent.targets is None:
        return batch
    rows = jax.tree.map(lambda x: x[None], batch.steps)
    return batch._replace(target=agent.targets(state, rows, jnp.ones((1, BATCH), bool), now)[0])


def kinds(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def test_metrics_are_named_as_promised(config, compiled):
    agent = compiled
    _, learned = one_update(config, agent)
    status = agent.status(now_of(config))
    assert not learned.metrics.keys() & status.keys()
    assert learned.metrics.keys() | status.keys() == agent.metrics.keys()
    assert {n for n, m in agent.metrics.items() if m.over == "now"} == status.keys()
    assert {metric.over for metric in agent.metrics.values()} <= {"mean", "max", "last", "now"}
    assert {"loss", "weight_norm"} <= learned.metrics.keys()  # which tell of divergence
    found = kinds({**learned.metrics, **status})
    assert found == dict.fromkeys(agent.metrics, ((), jnp.float32))


def test_shapes_and_dtypes(config, compiled):
    agent = compiled
    state = agent.init(jax.random.key(0))
    obs = jnp.arange(ENVS, dtype=jnp.int32)
    action, after = agent.act(state, obs, agent.act_draws(jax.random.key(1)), now_of(config))
    assert kinds(action) == ((ENVS,), jnp.int32) and np.all((action >= 0) & (action < ACTIONS))
    assert kinds(after) == kinds(state)
    for count in (1, 40):  # evaluations ask for other numbers of observations
        q = agent.q_values(state.params, jnp.zeros(count, jnp.int32))
        assert kinds(q) == ((count, ACTIONS), jnp.float32)
    _, learned = one_update(config, agent)
    assert kinds(learned.priority) == ((BATCH,), jnp.float32)
    assert np.all(np.asarray(learned.priority) >= 0)


def test_what_is_remembered_keeps_its_structure_so_that_nothing_compiles_twice(config, agent):
    traces = []

    def step(state, batch, draws, now, sync):
        traces.append(None)
        action, state = agent.act(state, batch.steps.obs[:ENVS], draws[0], now)
        _, state = agent.explore(state, draws[0])
        batch = with_targets(agent, state, batch, now)
        return agent.learn(state, batch, draws[1], now, sync)

    again = quickly(step)
    state = agent.init(jax.random.key(0))
    start = kinds(state)
    for i in range(3):
        keys = jax.random.split(jax.random.key(i))
        draws = (agent.act_draws(keys[0]), agent.learn_draws(keys[1]))
        now = now_of(config, learning_rate=0.1 / (i + 1), gamma=0.5)
        now = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), now)
        state, _ = again(state, random_batch(i), draws, now, jnp.bool_(i % 2))
        assert kinds(state) == start
    assert len(traces) == 1


def test_draws_depend_on_the_key_alone(config, agent):
    for draws in (agent.act_draws, agent.learn_draws):
        first, again, other = (draws(jax.random.key(k)) for k in (3, 3, 4))
        jax.tree.map(np.testing.assert_array_equal, first, again)
        leaves = zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
        assert all(np.any(np.asarray(a) != np.asarray(b)) for a, b in leaves)
        # They hold no array of an agent: nothing but the key goes in.
        assert jax.make_jaxpr(draws)(jax.random.key(0)).consts == []
    assert jax.tree.leaves(agent.act_draws(jax.random.key(0)))  # explore needs some


def test_draws_use_no_key_twice(agent):
    with jax.debug_key_reuse(True):
        for function in (agent.act_draws, agent.learn_draws, agent.init):
            quickly(function)(jax.random.key(5))


def test_exploring_is_uniform_and_depends_on_the_draws_alone(config, agent, compiled):
    states = [one_update(config, compiled, seed)[0] for seed in range(2)]
    keys = jax.random.split(jax.random.key(11), 6_000)
    actions = []
    for state in states:

        def explore(key, state=state):
            return agent.explore(state, agent.act_draws(key))[0]

        actions.append(np.asarray(quickly(jax.vmap(explore))(keys)))
    np.testing.assert_array_equal(*actions)
    assert actions[0].shape == (6_000, ENVS) and actions[0].dtype == np.int32
    for column in actions[0].T:
        counts = np.bincount(column, minlength=ACTIONS)
        assert len(counts) == ACTIONS and scipy.stats.chisquare(counts).pvalue > LEVEL
    pairs = np.histogram2d(*actions[0][:, :2].T, bins=ACTIONS)[0]
    assert scipy.stats.chi2_contingency(pairs).pvalue > LEVEL  # each environment has its own


def test_two_seeds_differ_after_one_update(config):
    trainer = dqx.make_trainer(
        dataclasses.replace(config, learning_starts=40), probes.adapted(Numbers)
    )
    hyper = settings.complete(config, Hyper(learning_rate=0.1))
    steps = config.train_period
    _, lanes, _, metrics = probes.run_trainer(trainer, hyper, seed_keys(2), 40, steps)
    assert lanes.agent.params is not None and np.all(np.isfinite(metrics["loss"]))
    moved = [np.any(leaf[0] != leaf[1]) for leaf in jax.tree.leaves(lanes.agent.params)]
    assert any(moved)
    assert lanes.diverged_at.tolist() == [-1, -1]


def test_a_weight_of_zero_keeps_a_transition_from_teaching(config, compiled):
    agent = compiled
    weight = jnp.ones(BATCH).at[2].set(0.0)
    _, learned = one_update(config, agent, weight=weight)
    _, plain = one_update(config, agent)
    _, ones = one_update(config, agent, weight=jnp.ones(BATCH))
    np.testing.assert_allclose(ones.metrics["loss"], plain.metrics["loss"], rtol=1e-6)
    assert learned.metrics["loss"] < plain.metrics["loss"]
    state = agent.init(jax.random.key(0))
    new, none = one_update(config, agent, weight=jnp.zeros(BATCH))
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)
    assert none.metrics["loss"] == 0


def targets_of(config, agent, sync_axis):
    """The equations of an update of many seeds, whose ``sync`` is the clock's or each seed's."""
    lanes = 11
    state = jax.eval_shape(jax.vmap(agent.init), seed_keys(lanes))
    draws = jax.eval_shape(jax.vmap(agent.learn_draws), seed_keys(lanes))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype), random_batch())
    now = now_of(config)
    hyper = jax.tree.map(lambda _: jax.ShapeDtypeStruct((lanes,), jnp.float32), now.hyper)
    episodes, ages = (jax.ShapeDtypeStruct((lanes, *rest), jnp.int32) for rest in ((), (ENVS,)))
    now = now._replace(hyper=hyper, episodes=episodes, ages=ages)
    sync = jax.ShapeDtypeStruct((lanes,) if sync_axis == 0 else (), jnp.bool_)
    if agent.targets is not None:
        batch = batch._replace(target=jax.ShapeDtypeStruct((lanes, BATCH), jnp.float32))
    learn = jax.vmap(agent.learn, in_axes=(0, 0, 0, Now(0, None, None, 0, 0), sync_axis))
    found = traced(learn, state, batch, draws, now, sync)
    return found, {leaf.shape for leaf in jax.tree.leaves(state.target_params)}


def test_the_targets_condition_stays_one_under_vmap(config, agent):
    has_target = "target" in settings.agent(config.agent).has
    found, shapes = targets_of(config, agent, sync_axis=None)
    conditions = [e for e in found if e.primitive.name == "cond"]
    assert bool(shapes) == has_target
    assert len(conditions) == has_target
    assert all(condition.invars[0].aval.shape == () for condition in conditions)
    assert shapes <= set(outputs(found, "cond"))
    # A predicate of each seed's own makes a select of it, which this would notice.
    found, shapes = targets_of(config, agent, sync_axis=0)
    assert outputs(found, "cond") == []
    assert shapes <= set(outputs(found, "select_n"))


def test_the_target_follows_where_told_and_nowhere_else(config, compiled):
    agent = compiled
    state = agent.init(jax.random.key(0))
    stayed, _ = one_update(config, agent, sync=False)
    followed, _ = one_update(config, agent, sync=True)
    jax.tree.map(np.testing.assert_array_equal, stayed.params, followed.params)
    jax.tree.map(np.testing.assert_array_equal, stayed.target_params, state.target_params)
    if "target" in settings.agent(config.agent).has:
        jax.tree.map(np.testing.assert_array_equal, followed.target_params, followed.params)
    else:
        assert followed.target_params == {}
