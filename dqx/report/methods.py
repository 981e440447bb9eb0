"""A methods paragraph for a paper, and the references that it cites."""

from collections.abc import Sequence
from typing import Any

from dqx.report.cases import titles
from dqx.report.compare import ALL_PAIRS
from dqx.report.findings import Group
from dqx.report.numbers import LEVEL
from dqx.report.references import REFERENCES
from dqx.report.terminal import counted, listed
from dqx.settings import SETTINGS, Config, Hyper, not_defaults, show
from dqx.settings.declared import lacking
from dqx.study.results import Study

_ALWAYS = (
    "agarwal2021deep", "bradbury2018jax", "efron1993introduction", "kaplan1958nonparametric",
    "lange2022gymnax", "montielolea2019simultaneous", "tukey1963less",
)  # fmt: skip


def methods(studies: Sequence[Study], groups: Sequence[Group]) -> tuple[str, str]:
    """A paragraph in words, whose citations are keys of the BibTeX entries beside it."""
    cited = set(_ALWAYS)
    sentences = [sentence for study in studies for sentence in _training(study, cited)]
    sentences += _statistics(groups, cited)
    sentences += _software(studies)
    return " ".join(sentences), "\n\n".join(REFERENCES[key] for key in sorted(cited))


def _training(study: Study, cited: set[str]) -> list[str]:
    points = [study.point(name) for name in study.configs]
    agents = [_agent(_Told(*point, cited)) for point in points]
    envs = list(dict.fromkeys(config.env for config, _ in points))
    seeds, steps = len(study.seeds), sorted({config.total_steps for config, _ in points})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    words = (
        f"We trained {listed(list(dict.fromkeys(agents)))} on {listed(envs)} for {span} "
        f"environment steps a run, with {seeds:,} independent seeds of each of "
        f"{len(points):,} configurations."
        if len(points) > 1
        else f"We trained {agents[0]} on {envs[0]} for {span} environment steps a run, with "
        f"{seeds:,} independent seeds."
    )
    found = [words, *_settings(*points[0], cited)]
    fields = dict.fromkeys(name for point in study.plan["points"] for name in point["varied"])
    if fields:
        varied = ", ".join(name.replace("_", " ") for name in list(fields)[:12])
        more = f" and {len(fields) - 12} more settings" if len(fields) > 12 else ""
        found.append(f"Configurations differ in {varied}{more}; all else is as said of the first.")
    return found


def _settings(config: Config, hyper: Hyper, cited: set[str]) -> list[str]:
    """How a configuration was trained and scored: every setting that is not a default."""
    of = _Told(config, hyper, cited)
    _agent(of)
    found = [_network(of), _exploration(of), _evaluation(of)]
    others = of.others()
    if others:
        found.append(f"Other settings that are not the defaults of dqx: {', '.join(others)}.")
    return found


# They change no number of a seed but its last bits, or what is only looked at.
_NO_METHOD = (
    "chunk_width", "convolution", "diagnostics", "eval_states", "log_period", "replay",
    "replay_ends",
)  # fmt: skip


class _Told:
    """The settings of a configuration, and which of them the paragraph has told."""

    def __init__(self, config: Config, hyper: Hyper, cited: set[str]) -> None:
        self.config, self.hyper, self._cited = config, hyper, cited
        self._told = {"env", "total_steps", *_NO_METHOD}

    def __call__(self, name: str) -> Any:
        """The value of a setting, which is told by this."""
        self._told.add(name)
        return getattr(self.hyper if SETTINGS[name].traced else self.config, name)

    def text(self, name: str) -> str:
        """The value as text, which is told by this."""
        return show(self(name))

    def cite(self, key: str) -> str:
        """A citation, whose entry is printed then."""
        self._cited.add(key)
        return f"[{key}]"

    def has(self, name: str) -> bool:
        """Whether a setting has an effect here."""
        return lacking(self.config, SETTINGS[name]) is None

    def others(self) -> list[str]:
        """What was not told and is no default, as ``name = value``."""
        found = not_defaults(self.config, self.hyper)
        return [f"{name} = {text}" for name, text in found.items() if name not in self._told]


_AGENTS = {
    "bootstrapped": ("Bootstrapped DQN", "osband2016deep"),
    "c51": ("C51", "bellemare2017distributional"),
    "dqn": ("DQN", "mnih2015human"),
    "iqn": ("IQN", "dabney2018implicit"),
    "maxmin": ("Maxmin DQN", "lan2020maxmin"),
    "pqn": ("PQN", "gallici2025simplifying"),
    "qr": ("QR-DQN", "dabney2018distributional"),
    "tabular": ("tabular Q-learning", "watkins1992q"),
}


def _agent(of: _Told) -> str:
    """The agent and the methods that it is made of."""
    agent = of("agent")
    double = of("double")
    if agent == "dqn" and double:
        name = f"Double DQN {of.cite('vanhasselt2016deep')}"
    else:
        known, key = _AGENTS.get(agent, (f"the DQN variant {agent} (after", "mnih2015human"))
        name = f"{known} {of.cite(key)}" + ("" if agent in _AGENTS else ")")
    parts = []
    if double and agent != "dqn":
        parts.append(f"actions selected by the online network {of.cite('vanhasselt2016deep')}")
    if of("head") != "plain":
        kind = of.config.head.partition("_")[2]
        streams = "-".join(map(str, of("stream_sizes")))
        words = f" with hidden layers {streams} for each stream" if streams else ""
        parts.append(f"a dueling head ({kind}){words} {of.cite('wang2016dueling')}")
    if of("dense") == "noisy":
        parts.append(f"noisy layers {of.cite('fortunato2018noisy')}")
    if of("n_step") > 1:
        parts.append(f"returns of {of.config.n_step} steps")
    if of("target") != "max":
        parts.append(_TARGETS[of.config.target].format(*map(of.cite, _CITED[of.config.target])))
    if "priorities" in SETTINGS["sampling"].has(of.config.sampling):
        kind = "in proportion to" if of("sampling") == "prioritized" else "by the ranks of"
        what = _PRIORITIES.get(agent, "priorities")
        parts.append(f"prioritized replay {kind} {what} {of.cite('schaul2016prioritized')}")
    if of("value_rescaling"):
        epsilon = of.text("value_rescaling")
        parts.append(f"rescaled values (epsilon {epsilon}) {of.cite('pohlen2018observe')}")
    return f"{name} with {listed(parts)}" if parts else name


_TARGETS = {
    "clipped_double": "the smaller of two heads in its targets {}",
    "expected_sarsa": "Expected Sarsa targets {}",
    "munchausen": "Munchausen targets {}",
}
# What priorities are, of agents that are dqx's own.
_PRIORITIES = {
    "bootstrapped": "errors",
    "c51": "divergences",
    "dqn": "errors",
    "iqn": "losses",
    "maxmin": "errors",
    "qr": "losses",
}
_CITED = {
    "clipped_double": ["fujimoto2018addressing"],
    "expected_sarsa": ["vanseijen2009theoretical"],
    "munchausen": ["vieillard2020munchausen"],
}


def _network(of: _Told) -> str:
    if of.config.agent == "tabular":
        return f"The discount is {of.text('gamma')}, the learning rate {of.text('learning_rate')}."
    layers = "-".join(map(str, of("hidden_sizes")))
    number = of("updates_per_train")
    updates = "an update" if number == 1 else f"{number} updates"
    period = of("train_period")
    every = f"{updates} every {f'{period:,} steps' if period > 1 else 'step'}"
    if of("num_envs") > 1:
        every += f" of {of.config.num_envs} parallel environments"
    if of("learning_starts"):
        every += f" after {of.config.learning_starts:,} steps of random actions"
    source, rest = "the steps since the updates before", f"and {every}"
    if of.has("replay_capacity"):
        source = f"a replay of {of('replay_capacity'):,} transitions"
    if of.has("target_period"):
        rest = f"{every}, and a target network {_renewal(of)}"
    rate = of.text("learning_rate")
    if of.config.annealed == ("learning_rate",):
        of("annealed")
        scale = of("anneal_scale")
        end = f"{scale * of.hyper.learning_rate:.6g}"
        rate += f" that {_goes(scale)} linearly to {end} over {of('anneal_steps'):,.0f} steps"
    return (
        f"The Q-network is {of('network')} with hidden layers {layers or 'none'} "
        f"({of('activation')}), optimized by {of('optimizer')} at a learning rate of "
        f"{rate} on batches of {of('batch_size'):,} from {source}, with a "
        f"discount of {of.text('gamma')}, {rest}."
    )


def _renewal(of: _Told) -> str:
    period = of("target_period")
    when = f"every {f'{period:,} steps' if period > 1 else 'step'}"
    return f"renewed {when}" if of("tau") == 1 else f"moved {when} by a share of {of.text('tau')}"


def _exploration(of: _Told) -> str:
    """How actions are chosen in training."""
    policy = of("policy")
    if policy == "epsilon_greedy":
        words = "Actions are epsilon-greedy"
    elif policy == "ez_greedy":
        words = (
            f"Actions are epsilon-greedy, random ones repeated {of.cite('dabney2021temporally')}"
        )
    elif policy == "greedy":
        heads = of.config.agent == "bootstrapped"
        words = "Actions are greedy" + (", by one head a whole episode" if heads else "")
    else:
        words = f"Actions are chosen by the policy {policy}"
    if policy == "boltzmann_gumbel":
        words += f" {of.cite('cesabianchi2017boltzmann')} with C = {of.text('temperature')}"
    elif "boltzmann" in policy:
        words += f" at a temperature of {of.text('temperature')}"
    epsilon = _epsilon(of)
    return words + (epsilon if "epsilon" in SETTINGS["policy"].has(policy) else "") + "."


def _goes(share: float) -> str:
    """How a number goes to such a share of itself."""
    return "rises" if share > 1 else "falls" if share < 1 else "goes"


def _epsilon(of: _Told) -> str:
    start, end, schedule = of.text("epsilon_start"), of.text("epsilon_end"), of("epsilon_schedule")
    if schedule == "constant":
        words = f", with an epsilon of {start}"
    else:
        share = of.hyper.epsilon_end / max(of.hyper.epsilon_start, 1e-9)
        words = f", with an epsilon that {_goes(share)} from {start} to {end}"
    if schedule == "linear":
        words += f" over {of('epsilon_steps'):,.0f} steps"
    elif schedule == "exponential":
        words += f" exponentially, with a time constant of {of('epsilon_steps'):,.0f} steps"
    elif schedule == "per_episode":
        words += f" by a factor of {of.text('epsilon_decay')} an episode"
    if of("epsilon_ladder"):
        words += (
            f" in one environment, and smaller ones in the others on a ladder of power "
            f"{of.text('ladder_power')} {of.cite('horgan2018distributed')}"
        )
    return words


def _evaluation(of: _Told) -> str:
    period = of("eval_period")
    if not period:
        return "A run is scored by the mean return of the last training episodes."
    policy = "the greedy policy"
    if of("averaging") != "none":
        policy += (
            f" of averaged parameters (decay {of.text('average_decay')}) "
            f"{of.cite('polyak1992acceleration')}"
        )
        if of.config.averaging == "acting":
            policy += ", which acts in training too,"
    episodes = of("eval_episodes")
    if of("exact_metrics"):
        return (
            f"Every {period:,} steps the expected return over all starts of {policy} is computed "
            "exactly; a run is scored by the last one."
        )
    return (
        f"Every {period:,} steps {policy} plays {counted(episodes, 'whole episode')} "
        "in environments of its own, and no result of these enters training; a "
        "run is scored by the mean return of the last evaluation, not by its best."
    )


def _statistics(groups: Sequence[Group], cited: set[str]) -> list[str]:
    lost = sum(sum(group.lost) for group in groups)
    runs = sum(len(case.seeds) for group in groups for case in group.cases)
    diverged = sum(int((c.diverged_at >= 0).sum()) for group in groups for c in group.cases)
    found = [
        "We report interquartile means over seeds [agarwal2021deep] with "
        f"{100 * LEVEL:g} % intervals over seeds, whose ends are the farther of those of the "
        "percentile bootstrap [efron1993introduction] and of Student's t around the trimmed mean "
        "[tukey1963less]; the seed is the unit of resampling. Bands that hold whole learning "
        "curves are those of [montielolea2019simultaneous], and steps to a score are estimated "
        "with seeds that never reach it as censored [kaplan1958nonparametric]."
    ]
    if any(1 < len(group.cases) <= ALL_PAIRS for group in groups):
        cited.add("holm1979simple")
        found.append(
            "Differences are tested by permuting seeds, corrected over all pairs of an environment "
            "by Holm's procedure [holm1979simple]; one configuration is called better only if the "
            "interval of the difference, where there is one, says so, too."
        )
    if diverged or lost:
        found.append(
            f"Of {runs:,} runs {diverged:,} diverged; none is left out, and where a run has no "
            "finite return the lowest return of any run counts instead."
        )
    return found


def _software(studies: Sequence[Study]) -> list[str]:
    """What the studies were trained with: once where it is the same for all."""
    told = [_trained_with(study) for study in studies]
    same = len(set(told)) == 1
    of = (titles(studies), told)
    found = [f"Training used {told[0]}"] if same else [
        f"Training of {title} used {words}" for title, words in zip(*of, strict=True)
    ]  # fmt: skip
    return [
        f"{'; '.join(found)} [bradbury2018jax, lange2022gymnax]. Curves of a seed are the same "
        "bits whichever seeds train beside it."
    ]


def _trained_with(study: Study) -> str:
    identity = study.plan["identity"]
    kind = str(identity.get("device_kind", "unknown")).partition(" (")[0]
    versions = ", ".join(
        f"{name} {identity[name]}" for name in ("jax", "gymnax", "numpy") if name in identity
    )
    dqx = f"dqx {identity.get('dqx', '')}".strip()
    commit = study.plan.get("git_commit")
    code = f" (commit {commit[:10]})" if isinstance(commit, str) else ""
    return f"{dqx}{code} with {versions} on {kind}"
