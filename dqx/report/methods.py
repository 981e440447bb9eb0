"""A methods paragraph for a paper, and the references that it cites."""

from collections.abc import Sequence

from dqx.report.compare import ALL_PAIRS
from dqx.report.findings import Group
from dqx.report.numbers import LEVEL
from dqx.report.terminal import listed
from dqx.settings import SETTINGS, Config, Hyper, show
from dqx.settings.declared import lacking
from dqx.study.results import Study

_REFERENCES = {
    "agarwal2021deep": """@inproceedings{agarwal2021deep,
  title     = {Deep Reinforcement Learning at the Edge of the Statistical Precipice},
  author    = {Agarwal, Rishabh and Schwarzer, Max and Castro, Pablo Samuel and
               Courville, Aaron C. and Bellemare, Marc G.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {34},
  year      = {2021}
}""",
    "bradbury2018jax": """@misc{bradbury2018jax,
  title  = {{JAX}: composable transformations of {Python+NumPy} programs},
  author = {Bradbury, James and Frostig, Roy and Hawkins, Peter and Johnson, Matthew James and
            Leary, Chris and Maclaurin, Dougal and Necula, George and Paszke, Adam and
            VanderPlas, Jake and Wanderman-Milne, Skye and Zhang, Qiao},
  year   = {2018}
}""",
    "efron1993introduction": """@book{efron1993introduction,
  title     = {An Introduction to the Bootstrap},
  author    = {Efron, Bradley and Tibshirani, Robert J.},
  publisher = {Chapman and Hall},
  year      = {1993}
}""",
    "holm1979simple": """@article{holm1979simple,
  title   = {A simple sequentially rejective multiple test procedure},
  author  = {Holm, Sture},
  journal = {Scandinavian Journal of Statistics},
  volume  = {6},
  number  = {2},
  pages   = {65--70},
  year    = {1979}
}""",
    "kaplan1958nonparametric": """@article{kaplan1958nonparametric,
  title   = {Nonparametric Estimation from Incomplete Observations},
  author  = {Kaplan, E. L. and Meier, Paul},
  journal = {Journal of the American Statistical Association},
  volume  = {53},
  number  = {282},
  pages   = {457--481},
  year    = {1958}
}""",
    "lange2022gymnax": """@misc{lange2022gymnax,
  title  = {{gymnax}: A {JAX}-based Reinforcement Learning Environment Library},
  author = {Lange, Robert Tjarko},
  year   = {2022}
}""",
    "mnih2015human": """@article{mnih2015human,
  title   = {Human-level control through deep reinforcement learning},
  author  = {Mnih, Volodymyr and Kavukcuoglu, Koray and Silver, David and others},
  journal = {Nature},
  volume  = {518},
  number  = {7540},
  pages   = {529--533},
  year    = {2015}
}""",
    "montielolea2019simultaneous": """@article{montielolea2019simultaneous,
  title   = {Simultaneous confidence bands: {Theory}, implementation, and an application to
             {SVARs}},
  author  = {Montiel Olea, Jos{\\'e} Luis and Plagborg-M{\\o}ller, Mikkel},
  journal = {Journal of Applied Econometrics},
  volume  = {34},
  number  = {1},
  pages   = {1--17},
  year    = {2019}
}""",
    "tukey1963less": """@article{tukey1963less,
  title   = {Less Vulnerable Confidence and Significance Procedures for Location Based on a Single
             Sample: Trimming/Winsorization 1},
  author  = {Tukey, John W. and McLaughlin, Donald H.},
  journal = {Sankhy{\\=a}: The Indian Journal of Statistics, Series A},
  volume  = {25},
  number  = {3},
  pages   = {331--352},
  year    = {1963}
}""",
    "vanhasselt2016deep": """@inproceedings{vanhasselt2016deep,
  title     = {Deep Reinforcement Learning with Double {Q}-learning},
  author    = {van Hasselt, Hado and Guez, Arthur and Silver, David},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  volume    = {30},
  number    = {1},
  year      = {2016}
}""",
    "watkins1992q": """@article{watkins1992q,
  title   = {Q-learning},
  author  = {Watkins, Christopher J. C. H. and Dayan, Peter},
  journal = {Machine Learning},
  volume  = {8},
  pages   = {279--292},
  year    = {1992}
}""",
}

_ALWAYS = (
    "agarwal2021deep", "bradbury2018jax", "efron1993introduction", "kaplan1958nonparametric",
    "lange2022gymnax", "montielolea2019simultaneous", "tukey1963less",
)  # fmt: skip


def methods(studies: Sequence[Study], groups: Sequence[Group]) -> tuple[str, str]:
    """A paragraph in words, whose citations are keys of the BibTeX entries beside it."""
    cited = set(_ALWAYS)
    sentences = [sentence for study in studies for sentence in _training(study, cited)]
    sentences += _statistics(groups, cited)
    sentences += [_software(studies[0])]
    return " ".join(sentences), "\n\n".join(_REFERENCES[key] for key in sorted(cited))


def _training(study: Study, cited: set[str]) -> list[str]:
    points = [study.point(name) for name in study.configs]
    config, hyper = points[0]
    agents = [_agent(config, cited) for config, _ in points]
    envs = list(dict.fromkeys(config.env for config, _ in points))
    seeds, steps = len(study.seeds), sorted({config.total_steps for config, _ in points})
    span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    words = (
        f"We trained {listed(list(dict.fromkeys(agents)))} on {listed(envs)} for {span} "
        f"environment steps a run, with {seeds:,} independent seeds of each of "
        f"{len(points):,} configurations."
        if len(points) > 1
        else f"We trained {agents[0]} on {config.env} for {span} environment steps a run, with "
        f"{seeds:,} independent seeds."
    )
    found = [words, _network(config, hyper)]
    fields = dict.fromkeys(name for point in study.plan["points"] for name in point["varied"])
    if fields:
        varied = ", ".join(name.replace("_", " ") for name in list(fields)[:12])
        found.append(f"Configurations differ in {varied}; all else is as said of the first.")
    found.append(_evaluation(config))
    return found


def _agent(config: Config, cited: set[str]) -> str:
    if config.agent == "tabular":
        cited.add("watkins1992q")
        return "tabular Q-learning [watkins1992q]"
    cited.add("mnih2015human")
    if config.agent != "dqn":
        return f"the DQN variant {config.agent} (after [mnih2015human])"
    if config.double:
        cited.add("vanhasselt2016deep")
        return "Double DQN [vanhasselt2016deep]"
    return "DQN [mnih2015human]"


def _network(config: Config, hyper: Hyper) -> str:
    if config.agent == "tabular":
        return (
            f"The discount is {show(hyper.gamma)}, the learning rate {show(hyper.learning_rate)}."
        )
    layers = "-".join(map(str, config.hidden_sizes))
    updates = (
        "an update" if config.updates_per_train == 1 else f"{config.updates_per_train} updates"
    )
    every = f"{updates} every {config.train_period:,} steps"
    if config.learning_starts:
        every += f" after {config.learning_starts:,} steps of random actions"
    source, rest = "the steps since the updates before", f"and {every}"
    if lacking(config, SETTINGS["replay_capacity"]) is None:
        source = f"a replay of {config.replay_capacity:,} transitions"
    if lacking(config, SETTINGS["target_period"]) is None:
        rest = f"{every}, and a target network renewed every {config.target_period:,} steps"
    return (
        f"The Q-network is {config.network} with hidden layers {layers or 'none'} "
        f"({config.activation}), optimized by {config.optimizer} at a learning rate of "
        f"{show(hyper.learning_rate)} on batches of {config.batch_size:,} from {source}, with a "
        f"discount of {show(hyper.gamma)}, {rest}."
    )


def _evaluation(config: Config) -> str:
    if not config.eval_period:
        return "A run is scored by the mean return of the last training episodes."
    if config.exact_metrics:
        return (
            f"Every {config.eval_period:,} steps the greedy policy's expected return over all "
            "starts is computed exactly; a run is scored by the last one."
        )
    return (
        f"Every {config.eval_period:,} steps the greedy policy plays {config.eval_episodes:,} "
        "whole episodes in environments of its own, and no result of these enters training; a "
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
            "interval of the difference says so, too."
        )
    if diverged or lost:
        found.append(
            f"Of {runs:,} runs {diverged:,} diverged; none is left out, and where a run has no "
            "finite return the lowest return of any run counts instead."
        )
    return found


def _software(study: Study) -> str:
    identity = study.plan["identity"]
    kind = str(identity.get("device_kind", "unknown")).partition(" (")[0]
    versions = ", ".join(
        f"{name} {identity[name]}" for name in ("jax", "gymnax", "numpy") if name in identity
    )
    dqx = f"dqx {identity.get('dqx', '')}".strip()
    commit = study.plan.get("git_commit")
    code = f" (commit {commit[:10]})" if isinstance(commit, str) else ""
    return (
        f"Training used {dqx}{code} with {versions} [bradbury2018jax, lange2022gymnax] on {kind}; "
        f"curves of a seed are the same bits whichever seeds train beside it."
    )
