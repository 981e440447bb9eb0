"""The page shows what was measured, whatever the names are, and says what it does not know."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import scipy.stats

from dqx import stats
from dqx.report import cases, compare, figures, findings, page
from dqx.report.page import sink as sinks
from dqx.report.page.document import document
from dqx.report.page.encode import packed, rounded, script_json
from dqx.report.page.sink import Page
from dqx.study import StudyError, load
from dqx.study.finish import replaces
from dqx.study.folder import Folder, read_plan_record
from dqx.study.schedule import groups as tasks_of
from dqx.study.store import FolderStore
from tests.study.kit import make_study

HOSTILE = "</script><script>alert(1)</script>'\"\u2028 \N{SNOWMAN}&amp;"


def shown(*folders):
    studies = [load(folder) for folder in folders]
    return page.content(studies, findings.groups(cases.read(studies)))


def curve_of(value):
    """A change that gives each run the evaluations ``value(config, seed)`` at 200 and 400."""

    def change(config, seed, run):
        run["metrics"]["eval_return"] = np.array(
            [np.nan, value(config, seed)[0], np.nan, value(config, seed)[1]], np.float32
        )

    return change


def unpacked(part):
    codes = np.frombuffer(base64.b64decode(part["data"]), "<u2").reshape(part["shape"])
    values = part["low"] + codes * (part["high"] - part["low"]) / 65534
    return np.where(codes == 65535, np.nan, values)


# --- Encoding.


def test_packed_numbers_come_back_within_half_a_step_and_missing_ones_as_missing():
    values = np.random.default_rng(0).normal(100, 50, (7, 11))
    values[2, 3], values[4, 5] = np.nan, np.inf
    part = packed(values)
    back = unpacked(part)
    finite = np.isfinite(values)
    step = (values[finite].max() - values[finite].min()) / 65534
    np.testing.assert_allclose(back[finite], values[finite], atol=0.5001 * step)
    assert np.isnan(back[~finite]).all() and finite.sum() == 75


def test_equal_numbers_and_no_numbers_are_packed_too():
    np.testing.assert_array_equal(unpacked(packed(np.full((2, 3), 500.0))), np.full((2, 3), 500.0))
    assert np.isnan(unpacked(packed(np.full((1, 2), np.nan)))).all()


def test_rounded_numbers_are_strict_json():
    assert rounded([1.23456789, float("nan"), 5.0, 7, np.float64(2.5)]) == [
        1.23457, None, 5, 7, 2.5,
    ]  # fmt: skip
    assert json.dumps(rounded(np.array([[np.inf, 1.0]])), allow_nan=False) == "[[null, 1]]"


def test_json_in_a_script_cannot_end_it():
    text = script_json({"name": HOSTILE, "half": "\ud800"})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"name": HOSTILE, "half": "?"}
    text.encode("utf-8")


# --- What is shown.


def test_scores_are_those_of_scipy_and_numpy(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 9, "grid": {"gamma": [0.9, 0.99]}})
    (group,) = shown(tmp_path / "s")["groups"]
    for case in group["cases"]:
        runs = [made.runs[case["label"], seed] for seed in range(9)]
        scores = np.array([run["metrics"]["eval_return"][-1] for run in runs], float)
        assert case["scores"] == pytest.approx(scores, rel=1e-5)
        assert case["iqm"] == pytest.approx(scipy.stats.trim_mean(scores, 0.25), rel=1e-5)
        assert case["std"] == pytest.approx(scores.std(ddof=1), rel=1e-5)
        assert case["low"] < case["iqm"] < case["high"]
        falling = np.sort(scores)[::-1]
        best, median, worst = (scores[case["extremes"][k]] for k in ("best", "median", "worst"))
        assert (best, median, worst) == (falling[0], falling[4], falling[8])
    iqms = [group["cases"][i]["iqm"] for i in group["ranking"]]
    assert iqms == sorted(iqms, reverse=True)


def test_curves_are_those_that_were_measured(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 5})
    (group,) = shown(tmp_path / "s")["groups"]
    (curve,) = group["curves"]
    expected = np.array(
        [made.runs["default", seed]["metrics"]["eval_return"][[1, 3]] for seed in range(5)]
    )
    assert curve["steps"] == curve["seedSteps"] == [200, 400]
    np.testing.assert_allclose(unpacked(curve["seeds"]), expected, atol=1e-3)
    middle = scipy.stats.trim_mean(expected.astype(float), 0.25, axis=0)
    _, low, high = stats.interval(expected)
    band = stats.simultaneous_band(expected)
    rows = [middle, low, high, band.low, band.high]
    np.testing.assert_allclose(curve["center"], rows, rtol=1e-5)
    assert (band.low < low).all() and (band.high > high).all()


def test_what_a_diverged_seed_lacks_counts_as_the_worst_and_is_told(tmp_path):
    def change(config, seed, run):
        curve_of(lambda _, s: (10.0 + s, 20.0 + s))(config, seed, run)
        if seed == 3:
            run["metrics"]["eval_return"][1:] = np.nan
            run["diverged_at"] = 150

    make_study(tmp_path / "s", {"seeds": 4}, change=change)
    (group,) = shown(tmp_path / "s")["groups"]
    (case,) = group["cases"]
    assert (case["n"], case["diverged"], case["lost"], group["worst"]) == (4, 1, 1, 10)
    assert case["scores"] == [20, 21, 22, 10] and case["divergedAt"] == [-1, -1, -1, 150]
    np.testing.assert_allclose(unpacked(group["curves"][0]["seeds"])[3], [10, 10])
    words = shown(tmp_path / "s")["methods"]["words"]
    assert "Of 4 runs 1 diverged; none is left out" in words


def test_a_single_seed_has_no_interval(tmp_path):
    make_study(tmp_path / "s", {"seeds": 1})
    (group,) = shown(tmp_path / "s")["groups"]
    (case,) = group["cases"]
    assert case["low"] is None and "one seed" in case["note"]
    assert group["curves"][0]["center"][1] == [None, None]


def test_a_study_under_way_shows_what_is_there_and_says_so(tmp_path):
    make_study(tmp_path / "s", {"seeds": 8, "grid": {"batch_size": [16, 32]}}, leave_out=[1, 2, 3])
    found = shown(tmp_path / "s")
    (group,) = found["groups"]
    assert [case["n"] for case in group["cases"]] == [4] and group["waiting"] == ["batch_size=32"]
    (study,) = found["studies"]
    assert not study["finished"]
    assert study["state"].startswith("4 of 16 runs are finished; nobody works on it")


def test_a_study_without_a_finished_run_has_no_numbers(tmp_path):
    make_study(tmp_path / "s", {"seeds": 4}, leave_out=[0])
    (group,) = shown(tmp_path / "s")["groups"]
    assert group["cases"] == [] and group["curves"] == [] and group["waiting"] == ["default"]


def test_only_runs_without_a_finite_score_leave_nothing_to_draw(tmp_path):
    make_study(tmp_path / "s", {"seeds": 4}, change=curve_of(lambda *_: (np.nan, np.nan)))
    (group,) = shown(tmp_path / "s")["groups"]
    assert group["cases"] == [] and group["worst"] is None


def test_a_damaged_file_is_named(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 4})
    made.folder.part("metrics", 0).write_bytes(b"nothing of the kind")
    with pytest.raises(StudyError, match=r"metrics/part-00000.parquet: .*dqx study resume"):
        shown(tmp_path / "s")


def test_several_studies_are_compared_whatever_their_steps(tmp_path):
    make_study(tmp_path / "a", {"name": "one", "seeds": 4})
    make_study(tmp_path / "b", {"name": "two", "seeds": 5, "base": {"total_steps": 800}})
    make_study(tmp_path / "c", {"name": "two", "seeds": 4, "base": {"env": "CartPole-v0"}})
    found = shown(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert [group["env"] for group in found["groups"]] == ["CartPole-v1", "CartPole-v0"]
    both, other = found["groups"]
    assert [case["label"] for case in both["cases"]] == [
        "one: default", f"{tmp_path / 'b'}: default",
    ]  # fmt: skip
    steps = {curve["case"]: curve["steps"] for curve in both["curves"]}
    assert steps == {0: [200, 400], 1: [200, 400, 600, 800]}
    assert len(both["improvements"]["table"]) == 2 and len(other["cases"]) == 1
    table = np.array(both["improvements"]["table"], float)
    assert table[0, 1, 0] + table[1, 0, 0] == pytest.approx(1, abs=1e-3)


def test_the_verdict_is_that_of_compare_corrected_for_all_pairs(tmp_path):
    heights = {"learning_rate=0.0001": 0, "learning_rate=0.001": 50, "learning_rate=0.01": 100}
    plan = {"name": "rates", "seeds": 12, "grid": {"learning_rate": [1e-4, 1e-3, 1e-2]}}
    make_study(tmp_path / "s", plan, change=curve_of(lambda c, s: (0, heights[c] + s)))
    (group,) = shown(tmp_path / "s")["groups"]
    best, _, worst = (group["cases"][place]["label"] for place in group["ranking"])
    assert group["verdict"] == compare.compare([load(tmp_path / "s")])[0].verdict
    assert group["verdict"].startswith(f"{best} is better than ") and worst in group["verdict"]


def test_one_configuration_and_very_many_have_no_verdict(tmp_path):
    for name, count in (("one", 1), ("many", 9)):
        grid = {"learning_rate": [i / 1e4 for i in range(1, count + 1)]}
        make_study(tmp_path / name, {"name": name, "seeds": 2, "grid": grid})
        assert shown(tmp_path / name)["groups"][0]["verdict"] is None


def test_panels_and_parallel_axes_have_their_numbers(tmp_path):
    made = make_study(tmp_path / "s", {"seeds": 4, "grid": {"gamma": [0.9, 0.99], "tau": [0.5, 1]}})
    (group,) = shown(tmp_path / "s")["groups"]
    panels = {panel["metric"]: panel for panel in group["panels"]}
    wanted = {"loss", "q_mean", "q_max", "td_error_abs", "grad_norm", "weight_norm", "epsilon"}
    assert wanted <= panels.keys()
    for name in wanted:
        assert len(panels[name]["lines"]) == 4
        for line in panels[name]["lines"]:
            label = group["cases"][line["case"]]["label"]
            rows = [made.runs[label, seed]["metrics"][name] for seed in range(4)]
            expected = scipy.stats.trim_mean(np.array(rows, float), 0.25, axis=0)
            np.testing.assert_allclose(line["center"][0], expected, rtol=1e-3)
    (part,) = group["fields"]
    values = {tuple(point["values"]) for point in part["points"]}
    assert values == {(gamma, tau) for gamma in (0.9, 0.99) for tau in (0.5, 1)}


def test_steps_to_a_score_count_seeds_that_never_got_there(tmp_path):
    curves = {0: (10, 40), 1: (40, 30), 2: (10, 20), 3: (0, 0)}
    make_study(tmp_path / "s", {"seeds": 4}, change=curve_of(lambda _, seed: curves[seed]))
    # The IQM goes from 10 to 25.
    found = shown(tmp_path / "s")["groups"][0]["thresholds"]
    assert [one["score"] for one in found] == [17.5, 21.2, 23.5, 25]
    (low,), (high,) = found[0]["cases"], found[3]["cases"]
    assert low["steps"] == [0, 200, 400] and low["center"][0] == [0, 0.25, 0.75]
    assert (low["reached"], low["fastest"], low["half"][0]) == (3, 200, 400)
    assert high["center"][0] == [0, 0.25, 0.5] and (high["reached"], high["half"][0]) == (2, 400)
    assert low["center"][1][1] < 0.25 < low["center"][2][1]


def test_a_score_that_half_of_the_seeds_never_reach_has_no_steps(tmp_path):
    curves = {0: (0, 90), 1: (0, 80), 2: (0, 1), 3: (0, 2), 4: (0, 3)}
    make_study(tmp_path / "s", {"seeds": 5}, change=curve_of(lambda _, seed: curves[seed]))
    one = shown(tmp_path / "s")["groups"][0]["thresholds"][-1]
    (case,) = one["cases"]
    # Of five, the middle three are averaged: 2, 3 and 80.
    assert one["score"] == 28.3 and case["reached"] == 2
    assert case["half"] == [None, 400, None] and case["center"][0] == [0, 0.4]


def test_episodes_are_averaged_over_the_last_hundred(tmp_path):
    rng = np.random.default_rng(5)
    ends, returns = np.arange(1, 251), rng.normal(size=250).astype(np.float32)

    def change(config, seed, run):
        run["episodes"] = (ends, returns, np.ones(250, np.int64))

    make_study(tmp_path / "s", {"seeds": 1}, change=change)
    (case,) = cases.read([load(tmp_path / "s")])
    for step, value in zip(case.episode_steps, case.episodes[0], strict=True):
        last = returns[ends <= step][-100:].astype(float)
        assert value == pytest.approx(last.mean(), rel=1e-9)


def test_many_configurations_show_the_best_and_the_worst(tmp_path):
    search = {"draws": 60, "learning_rate": {"uniform": [0.1, 0.9]}}
    make_study(
        tmp_path / "s",
        {"seeds": 1, "search": search, "base": {"chunk_width": 1}},
        change=curve_of(lambda config, _: (0.0, 100 * float(config.split("=")[1]))),
    )
    (group,) = shown(tmp_path / "s")["groups"]
    assert len(group["cases"]) == 60 and len(group["curves"]) == 48
    iqms = [group["cases"][curve["case"]]["iqm"] for curve in group["curves"]]
    every = sorted((case["iqm"] for case in group["cases"]), reverse=True)
    assert iqms == [*every[:36], *every[-12:]]


def test_thinned_points_are_even_and_keep_both_ends():
    assert findings.thinned(5, 10).tolist() == [0, 1, 2, 3, 4]
    kept = findings.thinned(1001, 101)
    assert kept.tolist() == list(range(0, 1001, 10))


# --- The document.


def test_the_page_runs_nothing_but_its_own_script_and_asks_no_network(tmp_path):
    make_study(tmp_path / "s", {"seeds": 2})
    text = document(shown(tmp_path / "s"))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(scripts) == len(styles) == 1
    for kind, content in (("script-src", scripts[0]), ("style-src", styles[0])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:" and "connect-src" not in rules
    hosts = set(re.findall(r"https?://[^\s\"'/)]+", text))
    assert hosts == {"http://www.w3.org", "https://github.com"}  # of SVG's name, uPlot's comment
    assert " on" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S).replace(" on ", "")


def test_names_that_are_hostile_stay_text(tmp_path):
    make_study(tmp_path / "s", {"seeds": 2, "case": [{"name": HOSTILE.replace("\u2028", "")}]})
    found = shown(tmp_path / "s")
    found["title"] = HOSTILE
    text = document(found)
    assert text.count("<script") == 2 and text.count("</script") == 2 and "alert(1)<" not in text
    assert "<title>&lt;/script&gt;&lt;script&gt;" in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(data)["groups"][0]["cases"][0]["label"] == HOSTILE.replace("\u2028", "")


# --- The folder.


def test_a_page_is_written_whole_and_disturbs_nothing_of_the_study(tmp_path, recwarn):
    made = make_study(tmp_path / "s", {"seeds": 4})
    path = page.write([load(tmp_path / "s")], made.folder.report)
    assert path == tmp_path / "s" / "report" / "index.html"
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    folder, record = Folder(tmp_path / "s"), read_plan_record(made.folder)
    tasks = {t.number: t for g in tasks_of(made.plan) for t in g.tasks}
    assert list(FolderStore(folder, record["sha256"]).finished(tasks)) == [0]
    assert folder.strangers(1) == folder.leftovers() == []
    assert replaces(tmp_path / "s", record, overwrite=True)
    assert load(tmp_path / "s").digests == load(tmp_path / "s").digests != {}
    assert len(recwarn) == 0


def test_a_finished_study_is_not_failed_by_its_page(tmp_path):
    make_study(tmp_path / "s", {"seeds": 4})
    (tmp_path / "s" / "report").write_text("in the way")
    sink = Page()
    sink.complete(load(tmp_path / "s"))
    assert sink.path is None
    assert "dqx report" in sink.problem and "report" in sink.problem


def test_a_large_study_gets_its_page_when_it_is_asked_for(tmp_path, monkeypatch):
    made = make_study(tmp_path / "s", {"seeds": 4})
    said = []
    monkeypatch.setattr(sinks, "MANY_ROWS", 15)  # there are 16
    sink = Page(said.append)
    sink.complete(load(tmp_path / "s"))
    assert said == ["writing the page..."] and sink.path == made.folder.report / "index.html"
    monkeypatch.setattr(sinks, "MOST_ROWS", 15)
    sink = Page(said.append)
    sink.complete(load(tmp_path / "s"))
    assert sink.path is None and "16 rows of metrics, to be quick: `dqx report" in sink.problem


def test_figures_of_one_environment_scored_in_two_ways_have_names_of_their_own(tmp_path):
    cases_ = [{"name": "a"}, {"name": "b", "eval_period": 0}]
    make_study(tmp_path / "s", {"seeds": 3, "case": cases_})
    studies = [load(tmp_path / "s")]
    names = [d.name for d in figures.drawings(studies, findings.groups(cases.read(studies)))]
    assert len(set(names)) == len(names)
    assert {"scores-CartPole-v1-eval-return", "scores-CartPole-v1-episode-return"} <= set(names)


def test_figures_of_varied_fields_name_their_study(tmp_path):
    for name in ("one", "two"):
        make_study(tmp_path / name, {"name": name, "seeds": 2, "grid": {"gamma": [0.9, 0.99]}})
    studies = [load(tmp_path / name) for name in ("one", "two")]
    drawn = figures.drawings(studies, findings.groups(cases.read(studies)))
    titles = {
        one.name: one.draw().axes[0].get_title(loc="left")
        for one in drawn
        if one.name in ("effects-1", "effects-2", "scores")
    }
    assert len({one.name for one in drawn}) == len(drawn)
    assert titles == {
        "scores": "comparison: CartPole-v1",
        "effects-1": "one: CartPole-v1, others averaged over",
        "effects-2": "two: CartPole-v1, others averaged over",
    }
