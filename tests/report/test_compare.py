"""Comparisons of studies of made-up numbers: facts against SciPy, verdicts, and every format."""

import csv
import io
import json
import re

import numpy as np
import pytest
import scipy.stats

from dqx import stats
from dqx.report import cases, formats, page
from dqx.report import compare as comparing
from dqx.report.compare import compare
from dqx.study import load
from dqx.study.folder import StudyError
from dqx.study.results import Study
from tests.study.kit import make_study

CASES = [{"name": "a"}, {"name": "b", "gamma": 0.5}, {"name": "c", "gamma": 0.9}]


def made(path, means, seeds=12, *, spread=10.0, luck=0.0, lost=(), **options):
    """A study whose scores have these means by configuration, and share so much luck by seed."""

    def change(name, seed, run):
        rng = np.random.default_rng([seed, list(means).index(name)])
        shared = np.random.default_rng([seed, 99]).normal(0, luck)
        run["metrics"]["eval_return"][-1] = means[name] + shared + rng.normal(0, spread)
        if (name, seed) in lost:
            run["metrics"]["eval_return"][-1] = np.nan
            run["diverged_at"] = 300

    cases = [{"name": name, "gamma": 0.5 + i / 100} for i, name in enumerate(means)]
    plan = {"name": path.name, "seeds": seeds, "case": cases, **options.pop("plan", {})}
    make_study(path, plan, change=change, **options)
    return load(path)


@pytest.mark.parametrize("lost", [(), [("low", 3)]])
def test_reading_scores_alone_compares_as_reading_everything(tmp_path, monkeypatch, lost):
    """Curves are read only where a run has no score, and then the worst of them counts."""
    one = made(tmp_path / "one", {"low": 100.0, "high": 112.0, "mid": 104.0}, lost=lost)
    two = made(tmp_path / "two", {"far": 90.0}, seeds=5, leave_out={0})
    read, real = [], Study.to_arrays
    monkeypatch.setattr(Study, "to_arrays", lambda s, m: read.append(m) or real(s, m))
    monkeypatch.setattr(Study, "metrics", None)
    (found,) = compare([one, two])
    assert read == (["eval_return"] * 2 if lost else [])
    monkeypatch.undo()
    monkeypatch.setattr(comparing, "read_scores", cases.read)
    (whole,) = compare([one, two])
    assert formats.FORMATS["json"]([found]) == formats.FORMATS["json"]([whole])
    assert found.group.lost == whole.group.lost == tuple([len(lost), 0, 0, 0])
    if lost:
        assert found.group.worst == whole.group.worst < 90


def test_a_pair_by_scipy(tmp_path):
    study = made(tmp_path / "s", {"low": 100.0, "high": 112.0}, luck=40)
    (found,) = compare([study])
    assert [found.name(i) for i in found.order] == ["high", "low"]
    (pair,) = found.pairs
    x, y = study.scores("high"), study.scores("low")
    assert pair.shared == 12
    assert pair.gap.value == pytest.approx(scipy.stats.trim_mean(x - y, 0.25))
    assert pair.gap == stats.difference(x, y, paired=True)
    u = scipy.stats.mannwhitneyu(x, y).statistic
    assert pair.improvement.value == pytest.approx(u / 144)
    assert pair.delta == pytest.approx(2 * u / 144 - 1)
    assert pair.p == pair.holm == stats.permutation_test(x, y, paired=True).p
    assert pair.needed == stats.seeds_needed(x, y, paired=True, resamples=1000)
    # The luck that seeds share is far wider than what sets the two apart.
    assert pair.better == 1 and stats.difference(x, y).low < 0
    assert re.fullmatch(
        r"high is better than low by \d+\.\d \(95 % interval \d+\.\d to \d+\.\d; p [=<] 0\.\d+\)",
        found.verdict,
    )


def test_the_share_of_seeds_at_a_bar_is_a_note(tmp_path):
    study = made(tmp_path / "s", {"a": 100.0, "b": 100.0}, lost={("b", 1)})
    bar = float(np.median(study.scores("a")))
    (found,) = compare([study], bar=bar)
    many = sum(score >= bar for score in study.scores("b"))  # what is NaN is not
    notes = [note for note in found.notes if " end at " in note]
    assert notes[0].startswith(f"of a 6 of 12 seeds end at {bar:g} or better: 50.00 %, 95 % int")
    assert notes[1].startswith(f"of b {many} of 12 seeds end at")
    assert notes[0].endswith("interval 25.38 to 74.62")
    assert all(note in formats.text([found]) for note in notes)
    assert compare([study])[0].notes == tuple(n for n in found.notes if n not in notes)
    # As numbers, too.
    (row,) = csv.DictReader(io.StringIO(formats.csv_text([found])))
    sides = {row["a"]: "a", row["b"]: "b"}
    assert [float(row[f"{sides['a']}_{k}"]) for k in ("bar", "share")] == [bar, 0.5]
    low, high = (float(row[f"{sides['a']}_share_{k}"]) for k in ("low", "high"))
    assert (round(low, 4), round(high, 4)) == (0.2538, 0.7462)
    (one,) = json.loads(formats.json_text([found]))["comparisons"]
    assert {c["configuration"]: c["share"] for c in one["configurations"]}["b"] == many / 12
    assert "bar" not in formats.csv_text(compare([study])).partition("\n")[0]


def test_a_score_in_single_precision_reaches_its_bar(tmp_path):
    def change(name, seed, run):
        run["metrics"]["eval_return"][-1] = np.float32(7.93) if seed else np.float32(7.92)

    study = load(make_study(tmp_path / "s", {"seeds": 4}, change=change).folder.path)
    (found,) = compare([study], bar=7.93)
    assert found.notes[-1].startswith("of default 3 of 4 seeds end at 7.93 or better: 75.00 %")
    assert (
        json.loads(formats.json_text([found]))["comparisons"][0]["configurations"][0]["share"]
        == 0.75
    )


def test_environments_that_are_played_otherwise_are_told(tmp_path):
    default = {"env.length": 0.5}  # says nothing
    cases = [{"name": "a"}, {"name": "b", "time_limit": 30, "env.gravity": 12.0, **default}]
    make_study(tmp_path / "s", {"name": "s", "seeds": 3, "case": cases})
    (found,) = compare([load(tmp_path / "s")])
    assert (
        "what is played differs in env.gravity and time_limit, so scores are of different tasks"
        in found.notes
    )
    (group,) = page.content([load(tmp_path / "s")], [found.group])["groups"]
    assert group["tasks"] in found.notes
    make_study(tmp_path / "t", {"name": "t", "seeds": 3, "case": CASES})
    (found,) = compare([load(tmp_path / "t")])
    assert not [note for note in found.notes if "different tasks" in note]


def test_seeds_that_are_not_shared_are_not_paired(tmp_path):
    one = made(tmp_path / "one", {"a": 100.0})
    two = made(tmp_path / "two", {"b": 150.0}, plan={"seeds": "100:112"})
    three = made(tmp_path / "three", {"c": 150.0}, plan={"root_seed": 7})
    for other in (two, three):
        (pair,) = compare([one, other])[0].pairs
        assert pair.shared == 0 and pair.better == 1
        x, y = other.scores(), one.scores()
        assert pair.gap == stats.difference(x, y) and pair.p == stats.permutation_test(x, y).p
    assert "not paired" in formats.text(compare([one, two]))


def test_what_these_seeds_cannot_tell_has_a_number(tmp_path):
    study = made(tmp_path / "s", {"a": 100.0, "b": 106.0}, seeds=6)
    (found,) = compare([study])
    (pair,) = found.pairs
    assert pair.better == 0 and pair.needed > 6
    assert found.verdict == f"cannot tell b from a with these seeds; about {pair.needed} would"
    same = made(tmp_path / "t", {"a": 100.0, "b": 100.0}, spread=0.0)
    verdict = compare([same])[0].verdict
    assert verdict == "cannot tell a from b with these seeds: their middle seeds do not differ"
    close = made(tmp_path / "u", {"a": 100.0, "b": 97.7}, seeds=40)
    assert compare([close])[0].pairs[0].needed is None
    assert "more than 1,000 would" in compare([close])[0].verdict


def test_three_seeds_never_tell_and_one_has_no_interval(tmp_path):
    """However far apart: no rearrangement of 3 a side comes below p = 0.1, of 3 pairs 0.25."""
    three = made(tmp_path / "three", {"a": 0.0, "b": 1000.0}, seeds=3, spread=1.0)
    (pair,) = compare([three])[0].pairs
    assert pair.p == pair.least == 0.1 and pair.better == 0 and pair.gap.low > 900
    assert compare([three])[0].verdict == "cannot tell b from a with these seeds; about 4 would"
    four = made(tmp_path / "four", {"a": 0.0, "b": 1000.0}, seeds=4, spread=1.0)
    assert compare([four])[0].pairs[0].better == 1
    one = made(tmp_path / "one", {"a": 0.0, "b": 1000.0}, seeds=1)
    (found,) = compare([one])
    assert found.verdict.startswith("cannot tell b from a with these seeds: one seed tells nothing")
    assert any(note.startswith("one seed only, so no interval: a, b") for note in found.notes)
    assert "one seed, no interval" in formats.text([found]) and "> 1,000" not in formats.text(
        [found]
    )
    alone = made(tmp_path / "alone", {"a": 0.0})
    assert compare([alone])[0].verdict == "there is only a, and nothing to compare it with"


def test_one_seed_gets_no_verdict_against_many(tmp_path):
    """Of 31 seeds one is the least by chance in 3 % of studies, and so says the test."""
    one = made(tmp_path / "one", {"a": 0.0}, seeds=1)
    many = made(tmp_path / "many", {"b": 1000.0}, plan={"seeds": "100:130"})
    (found,) = compare([one, many])
    (pair,) = found.pairs
    assert pair.holm < 0.05 and pair.better == 0
    assert found.verdict.startswith("cannot tell b from a with these seeds: one seed tells nothing")


def test_middle_seeds_that_agree_leave_the_verdict_to_the_test(tmp_path):
    """Five seeds at the cap do not say that the IQM is known exactly."""
    cap = made(tmp_path / "cap", {"cap": 500.0}, seeds=8, spread=0.0)
    low = made(tmp_path / "low", {"low": 300.0}, plan={"seeds": "100:108"})
    (found,) = compare([cap, low])
    (pair,) = found.pairs
    assert pair.shared == 0 and np.isnan(pair.gap.low) and pair.better == 1
    assert re.fullmatch(
        r"cap is better than low by \d+\.\d \(no interval, since all middle seeds of cap agree; "
        r"p [=<] 0\.\d+\)",
        found.verdict,
    )


def test_who_is_better_seed_by_seed_is_said_against_the_order_of_iqms(tmp_path):
    """On 54 of 60 seeds b is better by 1; on 6, which carry the IQM, it is worse by 100."""
    a = np.repeat([0.0, 100.0], [29, 31]) + np.linspace(0, 0.1, 60)
    b = a + np.where(np.arange(60) < 54, 1.0, -100.0) + np.sin(np.arange(60)) / 10
    scores = {"a": a, "b": b, "c": np.linspace(-500, -499, 60), "d": a - np.tile([5.0, -4.9], 30)}

    def change(name, seed, run):
        run["metrics"]["eval_return"][-1] = scores[name][seed]

    cases = [{"name": name, "gamma": 0.5 + i / 100} for i, name in enumerate(scores)]
    make_study(tmp_path / "s", {"name": "s", "seeds": 60, "case": cases}, change=change)
    (found,) = compare([load(tmp_path / "s")])
    assert [found.name(i) for i in found.order] == ["a", "d", "b", "c"]
    assert [pair.better for pair in found.pairs if pair.a == found.order[0]] == [0, -1, 1]
    assert found.verdict.startswith(
        "a is better than c; b is better than a, which has the highest IQM, by the seeds that "
        "both have; cannot tell a from d with these seeds"
    )
    (two,) = compare([load(tmp_path / "s")], ["a", "b"])
    assert two.verdict.startswith("b is better than a by 1.0 (95 % interval")
    assert two.verdict.endswith("; a has the higher IQM")


def test_few_shared_seeds_are_paired_only_where_pairs_can_tell(tmp_path):
    """Signs of 8 pairs reach p = 2 / 256, which 15 pairs of configurations make 0.12."""
    means = {f"c{i}": 1000.0 * i for i in range(6)}
    (found,) = compare([made(tmp_path / "s", means, seeds=8)])
    assert {pair.shared for pair in found.pairs} == {0}
    assert all(pair.better == 1 for pair in found.pairs)
    (found,) = compare([made(tmp_path / "t", means, seeds=8)], ["c0", "c1"])
    assert found.pairs[0].shared == 8 and found.pairs[0].better == 1


def test_many_configurations_are_told_apart_too(tmp_path):
    """Of 40 there are 780 pairs, which 10,000 rearrangements could never tell after Holm."""
    means = {f"c{i}": 10_000.0 * (i == 7) for i in range(40)}
    (found,) = compare([made(tmp_path / "s", means, seeds=20)])
    assert found.pairs and all(pair.better == 1 for pair in found.pairs)


def test_scores_that_are_all_lost_are_not_called_unfinished(tmp_path):
    def change(name, seed, run):
        run["metrics"]["eval_return"][:] = np.nan

    study = load(make_study(tmp_path / "s", {"seeds": 3}, change=change).folder.path)
    assert study.finished
    with pytest.raises(StudyError, match="no run has a finite score: there is nothing to compare"):
        compare([study])


def test_all_pairs_are_corrected_and_the_best_named(tmp_path):
    study = made(tmp_path / "s", {"a": 100.0, "b": 150.0, "c": 152.0, "d": 90.0}, seeds=8)
    (found,) = compare([study])
    assert len(found.pairs) == 6
    # Holm's rule: the smallest p times 6, the next times 5, and none below the one before.
    rising = sorted(found.pairs, key=lambda q: q.p)
    expected = np.maximum.accumulate([q.p * (6 - i) for i, q in enumerate(rising)]).clip(max=1)
    assert [q.holm for q in rising] == pytest.approx(expected.tolist())
    best, second = (found.name(i) for i in found.order[:2])
    needed = max(found.pairs[0].needed or 0, 9)
    assert found.verdict == (
        f"{best} is better than a and d; cannot tell it from {second} with these seeds; "
        + (f"about {needed} would" if found.pairs[0].needed else
           "if they differ by so little, more than 1,000 would")
    )  # fmt: skip


def test_of_many_configurations_the_best_is_compared_with_each(tmp_path):
    study = made(tmp_path / "s", {f"c{i}": 10.0 * i for i in range(12)}, seeds=12)
    (found,) = compare([study])
    assert len(found.pairs) == 11 and found.left_out == 66 - 11
    assert {pair.a for pair in found.pairs} == {found.order[0]}
    # The smallest p counts against all 66 pairs, not against the 11 that were looked at.
    least = min(found.pairs, key=lambda p: p.p)
    assert least.holm == pytest.approx(66 * least.p) and least.holm < 1
    assert any("55 pairs left out count" in note for note in found.notes)


def test_diverged_seeds_count_as_the_worst_and_it_is_said(tmp_path):
    study = made(tmp_path / "s", {"a": 100.0, "b": 100.0}, lost={("b", 1), ("b", 2)})
    (found,) = compare([study])
    place = [found.name(i) for i in range(2)].index("b")
    worst = min(np.nanmin(study.to_arrays("eval_return")), 1e9)
    assert found.group.worst == pytest.approx(worst)
    expected = np.where(np.isnan(study.scores("b")), worst, study.scores("b"))
    assert found.center(place).iqm == pytest.approx(scipy.stats.trim_mean(expected, 0.25))
    assert any(re.match("2 seeds of b without a finite score count as the worst", note)
               for note in found.notes)  # fmt: skip
    shown = json.loads(formats.json_text([found]))["comparisons"][0]["configurations"]
    assert {c["configuration"]: c["counted_as_worst"] for c in shown} == {"a": 0, "b": 2}


def test_what_differs_between_studies_is_said(tmp_path):
    one = made(tmp_path / "one", {"a": 100.0}, seeds=8, leave_out={1})
    two = made(tmp_path / "two", {"a": 100.0}, plan={"base": {"total_steps": 800}},
               identity={"device_kind": "abacus", "jax": "1"})  # fmt: skip
    (found,) = compare([one, two])
    assert {found.name(i) for i in found.order} == {"one: a", "two: a"}
    assert found.notes == (
        "one is not finished: 4 of 8 runs are there, and only these are compared",
        "the studies were trained with different jax: scores of equal seeds may differ by that "
        "alone",
        "the numbers of environment steps differ: one: a 400, two: a 800",
    )
    text = formats.text([found])
    assert "4 of 8" in text and all(f"note: {note}" in text for note in found.notes)


def test_environments_are_compared_apart(tmp_path):
    one = made(tmp_path / "one", {"a": 100.0, "b": 120.0})
    two = made(tmp_path / "two", {"m": -100.0}, plan={"base": {"env": "MountainCar-v0"}})
    found = compare([one, two])
    assert [c.group.env for c in found] == ["CartPole-v1", "MountainCar-v0"]
    assert formats.text(found).count("verdict: ") == 2
    with pytest.raises(StudyError, match="cannot be compared: CartPole-v1.*; MountainCar-v0"):
        compare([one, two], ["a", "m"])


def test_configurations_are_chosen_by_name(tmp_path):
    one = made(tmp_path / "one", {"a": 100.0, "b": 120.0, "c": 1.0})
    two = made(tmp_path / "two", {"a": 100.0})
    (found,) = compare([one, two], ["b", "a"])
    assert sorted(found.name(i) for i in found.order) == ["b", "one: a", "two: a"]
    (found,) = compare([one, two], ["two: a", "c"])
    assert {found.name(i) for i in found.order} == {"two: a", "c"}
    with pytest.raises(StudyError, match="no configuration 'bb'.*there are: one: a; b; c; two: a"):
        compare([one, two], ["bb"])
    with pytest.raises(StudyError, match="given twice"):
        compare([one, load(one.path)])
    with pytest.raises(StudyError, match="no run is finished yet in .*: see `dqx study status "):
        compare([made(tmp_path / "e", {"a": 1.0}, seeds=4, leave_out={0})])


# --- Formats.

HOSTILE = '=HYPERLINK("x")&<b>|`\\input{/etc/passwd}$x$_%#~^\''


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    place = tmp_path_factory.mktemp("hostile")
    return compare([made(place / "s", {HOSTILE: -100.0, "@SUM(A1)": -150.0, "-c": 5.0})])


def test_json_has_every_number_and_nothing_that_is_no_json(hostile):
    shown = json.loads(formats.json_text(hostile), parse_constant=pytest.fail)
    (comparison,) = shown["comparisons"]
    (found,) = hostile
    names = [c["configuration"] for c in comparison["configurations"]]
    assert names == ["-c", HOSTILE, "@SUM(A1)"]
    assert comparison["pairs"][0]["difference"] == float(found.pairs[0].gap.value)
    assert comparison["verdict"] == found.verdict


def test_csv_has_a_row_a_pair_and_no_formula(hostile, tmp_path):
    rows = list(csv.DictReader(io.StringIO(formats.csv_text(hostile))))
    assert len(rows) == 3
    for row, pair in zip(rows, hostile[0].pairs, strict=True):
        assert float(row["difference"]) == float(pair.gap.value)
        assert float(row["a_iqm"]) == hostile[0].center(pair.a).iqm
        for cell in row.values():
            if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell):
                assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r"), cell
    assert {row["a"] for row in rows} == {"'-c", f"'{HOSTILE}"}
    alone = compare([made(tmp_path / "s", {"a": 5.0}, seeds=1)])
    (row,) = csv.DictReader(io.StringIO(formats.csv_text(alone)))
    assert row["a"] == "a" and row["a_low"] == "" and row["a_note"] == "one seed, no interval"


def test_latex_runs_nothing_and_balances(hostile):
    text = formats.latex(hostile)
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    assert commands <= {
        "usepackage", "begin", "end", "centering", "small", "toprule", "midrule", "bottomrule",
        "par", "medskip", "caption", "textbackslash", "textasciitilde", "textasciicircum",
        "textless", "textgreater", "textbar",
    }  # fmt: skip
    bare = re.sub(r"\\[{}$&#_%]", "", text)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    assert {row.count("&") for row in rows} == {5, 11} and len(rows) == 2 + 3 + 3
    assert re.sub(r"\$-\$", "", bare).count("$") == 0
    assert "$-$100" in text or "$-$1" in text  # a minus, no hyphen


def test_markdown_tables_keep_their_columns(hostile):
    lines = [line for line in formats.markdown(hostile).splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in lines]
    assert cells == [6] * 5 + [12] * 5
    assert not re.search(r"(?<!\\)[<`]", "\n".join(lines))


def test_text_moves_no_cursor(tmp_path):
    assert formats._printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    (found,) = compare([made(tmp_path / "s", {"a": 100.0, "b": 150.0})])
    lines = formats.text([found]).splitlines()
    assert lines[0] == "CartPole-v1: greedy return"
    assert lines[1].split()[:4] == ["CONFIGURATION", "SEEDS", "STEPS", "IQM"]
    assert lines[-1] == f"verdict: {found.verdict}" and lines[-1].startswith("verdict: b is better")
