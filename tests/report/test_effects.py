"""Effects of varied fields: over what they are averaged, bins, and their figures."""

import numpy as np
import pytest
import scipy.stats

from dqx.report import boards, cases, findings
from dqx.study import load
from tests.report.test_page import curve_of, shown
from tests.study.kit import make_study


def test_a_varied_field_is_averaged_over_the_others_seed_by_seed(tmp_path):
    values = {}

    def value(config, seed):
        rng = np.random.default_rng([len(config), seed, config.count("9")])
        values[config, seed] = float(np.float32(rng.uniform(0, 100)))
        return 0.0, values[config, seed]

    grid = {"gamma": [0.9, 0.99], "batch_size": [16, 32, 64]}
    make_study(tmp_path / "s", {"seeds": 6, "grid": grid}, change=curve_of(value))
    (group,) = shown(tmp_path / "s")["groups"]
    (part,) = group["fields"]
    assert [effect["field"] for effect in part["effects"]] == ["batch_size", "gamma"]
    for effect in part["effects"]:
        for level in effect["levels"]:
            of = f"{effect['field']}={level['name']}"
            names = {n for n, _ in values if of in n.split(", ")}
            means = [np.mean([values[n, seed] for n in names]) for seed in range(6)]
            assert level["configs"] == len(names) == 6 // len(effect["levels"])
            assert level["iqm"] == pytest.approx(scipy.stats.trim_mean(means, 0.25), rel=1e-5)
    (found,) = part["maps"]
    assert found["fields"] == ("batch_size", "gamma") and len(found["cells"]) == 3
    cell = found["cells"][1][0]
    scores = [values["gamma=0.9, batch_size=32", seed] for seed in range(6)]
    assert cell["iqm"] == pytest.approx(scipy.stats.trim_mean(scores, 0.25), rel=1e-5)


def test_a_case_beside_a_grid_is_compared_only_with_what_differs_from_it_in_one_field(tmp_path):
    values = {}

    def value(config, seed):
        values[config, seed] = 10.0 * len(values) + seed
        return 0.0, values[config, seed]

    plan = {
        "seeds": 4,
        "grid": {"gamma": [0.9, 0.99], "batch_size": [16, 32]},
        "case": [{"name": "other", "gamma": 0.9, "batch_size": 32, "target_period": 32}],
    }
    make_study(tmp_path / "s", plan, change=curve_of(value))
    (part,) = shown(tmp_path / "s")["groups"][0]["fields"]
    found = {effect["field"]: effect for effect in part["effects"]}

    def mean(*names):
        return np.mean([values[name, seed] for name in names for seed in (1, 2)])  # the middle two

    gamma = {level["name"]: level for level in found["gamma"]["levels"]}
    grid = [f"gamma={{}}, batch_size={size}" for size in (16, 32)]
    for name in ("0.9", "0.99"):
        assert gamma[name]["configs"] == 2
        assert gamma[name]["iqm"] == pytest.approx(mean(*(one.format(name) for one in grid)))
    assert found["gamma"]["leftOut"] == 1 and found["gamma"]["matched"]
    target = {level["name"]: level for level in found["target_period"]["levels"]}
    (default,) = target.keys() - {"32"}
    assert target["32"]["iqm"] == pytest.approx(mean("other"))
    assert target[default]["iqm"] == pytest.approx(mean("gamma=0.9, batch_size=32"))
    assert found["target_period"]["leftOut"] == 3
    (cells,) = [one for one in part["maps"] if set(one["fields"]) == {"gamma", "batch_size"}]
    assert cells["leftOut"] == 1
    assert sum(cell["n"] > 0 for row in cells["cells"] for cell in row) == 4


def test_cases_that_differ_in_several_fields_at_once_are_said_to(tmp_path):
    cases = [{"name": "a", "gamma": 0.9, "batch_size": 16}, {"name": "b"}]
    make_study(tmp_path / "s", {"seeds": 2, "case": cases})
    (part,) = shown(tmp_path / "s")["groups"][0]["fields"]
    assert [effect["field"] for effect in part["effects"]] == ["batch_size", "gamma"]
    assert not any(effect["matched"] or effect["leftOut"] for effect in part["effects"])


def effects_of(tmp_path, plan, **options):
    make_study(tmp_path / "s", {"seeds": 2, **plan}, **options)
    (part,) = shown(tmp_path / "s")["groups"][0]["fields"]
    return {effect["field"]: effect for effect in part["effects"]}


def test_a_value_that_only_a_case_has_leaves_the_grid_as_it_is(tmp_path):
    grid = {"gamma": [0.9, 0.99], "batch_size": [16, 32]}
    case = {"name": "other", "gamma": 0.95, "batch_size": 64, "target_period": 32}
    found = effects_of(tmp_path, {"grid": grid, "case": [case]})
    for name, values in (("gamma", ["0.9", "0.99"]), ("batch_size", ["16", "32"])):
        levels = found[name]["levels"]
        assert [(one["name"], one["configs"]) for one in levels] == [(v, 2) for v in values]
        assert found[name]["matched"] and found[name]["leftOut"] == 1


def test_settings_that_one_agent_has_alone_make_no_grid_uneven(tmp_path):
    grid = {"agent": ["dqn", "c51"], "learning_rate": [1e-3, 1e-2]}
    found = effects_of(tmp_path, {"grid": grid})
    for name in ("agent", "learning_rate"):
        assert found[name]["matched"] and not found[name]["leftOut"]
        assert [one["configs"] for one in found[name]["levels"]] == [2, 2]


@pytest.mark.parametrize("seed", range(4))
def test_draws_are_all_averaged_and_never_called_matched(tmp_path, seed):
    search = {"draws": 23, "seed": seed, "learning_rate": {"log_uniform": [1e-5, 1e-1]},
              "double": {"choice": [False, True]}}  # fmt: skip
    found = effects_of(tmp_path, {"search": search})
    for effect in found.values():
        assert not effect["matched"] and effect["leftOut"] == 0
        assert sum(one["configs"] for one in effect["levels"]) == 23


def test_a_value_that_most_have_is_a_bin_of_its_own(tmp_path):
    rates = [2.5e-4] * 20 + [i / 1e4 for i in range(10, 21)]
    cases = [{"name": f"c{i}", "learning_rate": rate, "gamma": 0.5 + i / 100}
             for i, rate in enumerate(rates)]  # fmt: skip
    found = effects_of(tmp_path, {"case": cases})["learning_rate"]
    assert found["levels"][0]["name"] == "0.00025" and found["levels"][0]["configs"] == 20
    assert sum(one["configs"] for one in found["levels"]) == 31


def test_bins_of_values_that_are_close_are_told_apart(tmp_path):
    search = {"draws": 23, "seed": 1, "gamma": {"uniform": [0.999, 0.9999]}}
    make_study(tmp_path / "s", {"seeds": 2, "search": search})
    (group,) = shown(tmp_path / "s")["groups"]
    (effect,) = group["fields"][0]["effects"]
    counts = [level["configs"] for level in effect["levels"]]
    assert len(counts) == 5 and sum(counts) == len(group["cases"]) > 20 and min(counts) >= 4


def test_many_values_of_a_search_are_put_in_bins(tmp_path):
    search = {"draws": 23, "seed": 1, "learning_rate": {"log_uniform": [1e-5, 1e-1]}}
    make_study(tmp_path / "s", {"seeds": 2, "search": search})
    (group,) = shown(tmp_path / "s")["groups"]
    (effect,) = group["fields"][0]["effects"]
    assert effect["binned"] and [level["configs"] for level in effect["levels"]] == [5, 5, 5, 4, 4]


def test_giant_intervals_of_seeds_are_cut_and_those_of_effects_are_not(tmp_path):
    """Of two seeds an interval is many times as wide as both; two fields' IQMs lie close."""
    curves = curve_of(lambda config, seed: (0.0, 100.0 + (config == "gamma=0.99") + 8.0 * seed))
    study = make_study(tmp_path / "s", {"seeds": 2, "grid": {"gamma": [0.9, 0.99]}}, change=curves)
    (group,) = findings.groups(cases.read([load(study.folder.path)]))
    low, high = boards.scores(group, "s").axes[0].get_xlim()
    assert low > 100 - 9 and high < 109 + 9 and min(c.low for c in group.centers) < low
    effects = findings.effects(group, 0)
    low, high = boards.effects(group, effects, "s").axes[0].get_xlim()
    ends = [end for level in effects[0].levels for end in level.center[2:4]]
    assert low < min(ends) and high > max(ends)
