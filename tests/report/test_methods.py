"""The methods paragraph names all that a configuration is made of, and cites what it prints."""

import re

import pytest

from dqx.report import cases, findings, methods
from dqx.report.references import REFERENCES
from dqx.settings import SETTINGS, override, preset, preset_names, show
from dqx.study import load
from tests.study.kit import make_study


def test_methods_cite_what_they_print_and_nothing_else(tmp_path):
    grid = {"double": [False, True]}
    make_study(tmp_path / "s", {"seeds": 3, "grid": grid})
    studies = [load(tmp_path / "s")]
    words, bibtex = methods.methods(studies, findings.groups(cases.read(studies)))
    cited = {key for keys in re.findall(r"\[([\w, ]+)\]", words) for key in keys.split(", ")}
    assert cited == set(re.findall(r"^@\w+\{(\w+),", bibtex, re.M))
    assert {"vanhasselt2016deep", "mnih2015human", "agarwal2021deep", "holm1979simple"} <= cited
    assert "400 environment steps a run, with 3 independent seeds of each of 2" in words
    assert bibtex.count("{") == bibtex.count("}")


@pytest.mark.parametrize("name", preset_names())
def test_methods_name_every_number_of_a_configuration(tmp_path, name):
    config, hyper = preset(name)
    words = " ".join([methods._agent(methods._Told(config, hyper, set())),
                      *methods._settings(config, hyper, set())])  # fmt: skip
    looked_at = {"chunk_width", "log_period", "eval_states", "total_steps", "replay_ends"}
    for field, one in SETTINGS.items():
        value = one.typed(getattr(hyper if one.traced else config, field))
        if field in looked_at or value == one.default or not isinstance(value, int | float):
            continue
        texts = [show(value), f"{value:,}", f"{float(value):,.0f}" if value >= 1000 else "none"]
        if field == "anneal_scale":
            texts = [f"{value * hyper.learning_rate:g}"]
        if isinstance(value, bool):
            texts = [KNOWN_BY.get(field, f"{field} = {show(value)}")]
        if field in ("eval_episodes", "epsilon_end", "epsilon_steps") or value == 1:
            continue  # told where it is the score, or has an effect
        assert any(re.search(rf"(?<![\d.]){re.escape(t)}(?![\d]|\.\d)", words) for t in texts), (
            field
        )
    for field, value in {**dict(config.extra), **hyper.extra}.items():
        assert f"{field} = {show(value)}" in words


KNOWN_BY = {
    "double": "vanhasselt2016deep",
    "epsilon_ladder": "horgan2018distributed",
    "exact_metrics": "is computed exactly",
}
CITED = {
    "breakout/rainbow": "C51 [bellemare2017distributional] with actions selected by the online "
    "network [vanhasselt2016deep], a dueling head (avg) with hidden layers 128 for each stream "
    "[wang2016dueling], noisy layers [fortunato2018noisy], returns of 3 steps and prioritized "
    "replay in proportion to divergences [schaul2016prioritized]",
    "cartpole/munchausen": "DQN [mnih2015human] with Munchausen targets [vieillard2020munchausen]",
    "breakout/maxmin": "Maxmin DQN [lan2020maxmin]",
    "deep-sea/bootstrapped": "Bootstrapped DQN [osband2016deep] with actions selected by the "
    "online network [vanhasselt2016deep]",
    "taxi/tabular": "tabular Q-learning [watkins1992q]",
}


@pytest.mark.parametrize("name", CITED)
def test_methods_name_what_an_agent_is_made_of(name):
    cited = set()
    assert methods._agent(methods._Told(*preset(name), cited)) == CITED[name]
    assert cited == set(re.findall(r"\[(\w+)\]", CITED[name])) <= REFERENCES.keys()


def test_methods_tell_what_else_is_annealed():
    pair = override(*preset("acrobot"), annealed=("learning_rate", "gamma"), anneal_scale=0.5)
    words = " ".join(methods._settings(*pair, set()))
    assert "annealed = learning_rate,gamma, " in words and "anneal_scale = 0.5" in words
    assert "falls linearly" not in words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate": 3e-4, "anneal_scale": 0.1}, "0.0003 that falls linearly to 3e-05 over"),
        ({"learning_rate": 1e-3, "anneal_scale": 2.0}, "0.001 that rises linearly to 0.002 over"),
    ],
)
def test_methods_give_rounded_ends_and_their_direction(fields, words):
    pair = override(*preset("cartpole"), annealed=("learning_rate",), **fields)
    assert words in methods._network(methods._Told(*pair, set()))
    pair = override(*preset("cartpole"), epsilon_schedule="linear", epsilon_start=0.05,
                    epsilon_end=0.5)  # fmt: skip
    assert "rises from 0.05 to 0.5" in methods._exploration(methods._Told(*pair, set()))


def test_methods_tell_apart_what_studies_were_trained_with(tmp_path):
    for name in "ab":
        make_study(tmp_path / name, {"name": name, "seeds": 2})
    studies = [load(tmp_path / name) for name in "ab"]
    (one,) = methods._software(studies)
    assert one.startswith("Training used dqx ") and one.count(" on ") == 1
    studies[1].plan["identity"]["jax"] = "0.0.1"
    (both,) = methods._software(studies)
    assert "Training of a used dqx" in both and re.search(r"Training of b used .*jax 0\.0\.1", both)


def test_methods_say_how_actions_are_chosen():
    words = methods._exploration(methods._Told(*preset("mountain-car"), set()))
    assert words.endswith(
        ", with an epsilon of 0.4 in one environment, and smaller ones in the others on a ladder "
        "of power 7 [horgan2018distributed]."
    )
    exponential = methods._exploration(methods._Told(*preset("cartpole/double-dqn"), set()))
    assert exponential == (
        "Actions are epsilon-greedy, with an epsilon that falls from 0.8 to 0.1 exponentially, "
        "with a time constant of 1,333 steps."
    )
    other = override(*preset("cartpole"), policy="boltzmann", temperature=0.5)
    words = methods._exploration(methods._Told(*other, set()))
    assert words == "Actions are chosen by the policy boltzmann at a temperature of 0.5."
    other = override(*preset("cartpole"), policy="boltzmann_gumbel", temperature=0.5)
    assert methods._exploration(methods._Told(*other, set())) == (
        "Actions are chosen by the policy boltzmann_gumbel [cesabianchi2017boltzmann] with C = 0.5."
    )
