"""The page in a browser: what it draws, says and asks for, by pointer, keyboard and reader."""

import json
import re
import time

import numpy as np
import pytest

from dqx.report import cases, findings, page
from dqx.report.page.document import document
from dqx.study import load
from tests.report.browser import launched, tab
from tests.study.kit import make_study

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>alert(1)</script>'\"<img src=x onerror=alert(2)>&amp;"
SIZES = [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")]
# A rising curve a configuration, and each seed a little beside the others.
RATES = (1e-4, 1e-3, 1e-2)


def change(config, seed, run):
    rng = np.random.default_rng([len(config), seed])
    level = 10.0 + 60 * config.count("0") + 30 * config.count("true") + 3.0 * seed
    found = level * np.array([np.nan, 0.5, np.nan, 1.0]) + rng.normal(0, 2, 4)
    run["metrics"]["eval_return"] = found.astype(np.float32)
    if seed == 5 and "0.01" in config:
        run["metrics"]["eval_return"][3] = np.nan
        run["diverged_at"] = 333


@pytest.fixture(scope="module")
def browser():
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study of a grid, and its page."""
    place = tmp_path_factory.mktemp("page")
    plan = {
        "name": "grid",
        "seeds": 9,
        "grid": {"learning_rate": list(RATES), "double": [False, True]},
        "case": [{"name": HOSTILE, "gamma": 0.5}],
    }
    study = make_study(place / "s", plan, change=change)
    return study, page.write([load(place / "s")], place / "out").as_uri()


def canvas_of(tab, name):
    return tab.get_by_role("slider", name=re.compile(f"^{name}"))


# Of a chart: where a number is on the screen, and the colour of the canvas around it.
WHERE = """(place, [x, y]) => {
  const box = place.plot.over.getBoundingClientRect();
  return [box.left + place.plot.valToPos(x, 'x'), box.top + place.plot.valToPos(y, 'y')];
}"""
INK = """(place, [x, y]) => {
  const { plot } = place, ratio = devicePixelRatio;
  const [left, top] = [plot.valToPos(x, 'x', true), plot.valToPos(y, 'y', true)];
  return [...plot.ctx.getImageData(Math.round(left), Math.round(top), 1, 1).data];
}"""
PAINTED = """(place) => {
  const { canvas } = place.plot.ctx;
  const data = place.plot.ctx.getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
  return count;
}"""


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_chart_is_drawn_and_nothing_overflows(made, browser, width, scheme):
    with tab(browser, width=width, scheme=scheme) as opened:
        shown = opened.open(made[1])
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        for chart in shown.query_selector_all(".chart[role=slider]"):
            assert chart.evaluate(PAINTED) > 2_000, chart.get_attribute("aria-label")
        assert shown.evaluate("document.querySelectorAll('.chart[role=slider]').length") >= 13
        assert len(shown.query_selector_all("#scores svg circle")) == 9 * 7
        ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 22, 26)")


@pytest.mark.parametrize("width", [1400, 400])
def test_no_text_of_a_figure_lies_on_another_or_outside(made, browser, width):
    overlapping = """() => {
      const found = [];
      for (const svg of document.querySelectorAll('svg')) {
        const texts = [...svg.querySelectorAll('text')].map(
          (text) => [text.textContent, text.getBoundingClientRect()]);
        const frame = svg.getBoundingClientRect();
        texts.forEach(([one, a], i) => {
          if (a.left < frame.left - 3 || a.right > frame.right + 3) found.push([one, 'outside']);
          for (const [two, b] of texts.slice(i + 1)) {
            const beside = a.left >= b.right - 1 || b.left >= a.right - 1;
            const below = a.top >= b.bottom - 2 || b.top >= a.bottom - 2;
            if (!beside && !below) found.push([one, two]);
          }
        });
      }
      return found;
    }"""
    with tab(browser, width=width) as opened:
        assert opened.open(made[1]).evaluate(overlapping) == []


def test_the_line_is_where_the_numbers_are_and_ticks_are_short(made, browser):
    study, address = made
    with tab(browser) as opened:
        shown = opened.open(address)
        shown.uncheck("#every-seed")
        opened.settle()
        chart = canvas_of(shown, "Learning curves")
        data = shown.evaluate("[...document.querySelectorAll('.chart')][0].plot.data")
        best = np.sort([study.runs[HOSTILE, s]["metrics"]["eval_return"][3] for s in range(9)])
        assert data[0] == [200, 400]
        # The hostile case has most zeros in none of its names: it is the last of the ranking.
        assert data[3 * 7][1] == pytest.approx(best[2:7].mean(), rel=1e-4)
        for i, color in enumerate([(31, 95, 168), (213, 94, 0)]):
            middle = data[3 * i + 3]
            ink = chart.evaluate(INK, [300, (middle[0] + middle[1]) / 2])
            assert np.abs(np.array(ink[:3]) - color).max() < 40, (i, ink)


def test_hovering_names_the_seed(made, browser):
    study, address = made
    with tab(browser) as opened:
        shown = opened.open(address)
        chart = canvas_of(shown, "Learning curves")
        name = "learning_rate=0.0001, double=false"
        chart.scroll_into_view_if_needed()
        named = set()
        for seed in (0, 4, 8):
            value = float(study.runs[name, seed]["metrics"]["eval_return"][3])
            x, y = chart.evaluate(WHERE, [400, value])
            shown.mouse.move(x - 1, y)
            tip = chart.locator(".tip").inner_text()
            found = re.search(r"seed (\d+) of (.+): ([\d.]+)", tip)
            stored = study.runs[found[2], int(found[1])]["metrics"]["eval_return"][3]
            assert float(found[3]) == pytest.approx(stored, abs=0.06)
            assert stored == pytest.approx(value, abs=2.5)  # two pixels
            named.add(found[1])
            assert "step 400" in tip and "IQM" in tip
        assert len(named) > 1
        shown.mouse.move(2, 2)
        assert not chart.locator(".tip").is_visible()
        dot = shown.locator("#scores circle").first
        dot.hover(force=True)
        assert re.search(r"seed \d+ of ", shown.locator("#scores .tip").inner_text())


def test_the_keyboard_moves_along_and_names_seeds(made, browser):
    with tab(browser) as opened:
        shown = opened.open(made[1])
        chart = canvas_of(shown, "Learning curves")
        chart.focus()
        shown.keyboard.press("ArrowRight")
        first = chart.get_attribute("aria-valuetext")
        assert first.startswith("step 200: IQM; ")
        shown.keyboard.press("ArrowRight")
        assert chart.get_attribute("aria-valuetext").startswith("step 400: IQM; ")
        assert chart.get_attribute("aria-valuenow") == "400"
        shown.keyboard.press("ArrowUp")
        one = chart.get_attribute("aria-valuetext").split("; ")[1]
        shown.keyboard.press("ArrowUp")
        two = chart.get_attribute("aria-valuetext").split("; ")[1]
        assert re.match(r"seed 0 of .+: [\d.]+", one) and re.match(r"seed 1 of .+", two)


def test_tables_sort_by_pointer_and_keyboard(made, browser):
    with tab(browser) as opened:
        shown = opened.open(made[1])
        table = shown.locator("#answer table")

        def column(number):
            cells = table.locator(f"tbody td:nth-child({number})").all_inner_texts()
            return [float(cell.replace(",", "")) for cell in cells]

        iqms = column(4)
        assert iqms == sorted(iqms, reverse=True) and len(iqms) == 7
        head = table.get_by_role("columnheader", name="Lowest")
        table.get_by_role("button", name="Lowest").click()
        assert column(8) == sorted(column(8), reverse=True)
        assert head.get_attribute("aria-sort") == "descending"
        table.get_by_role("button", name="Lowest").press("Enter")
        assert column(8) == sorted(column(8)) and head.get_attribute("aria-sort") == "ascending"
        table.get_by_role("button", name="Configuration").click()
        names = table.locator("tbody td:nth-child(2)").all_inner_texts()
        assert names[0].startswith("</script>") and head.get_attribute("aria-sort") is None


def test_everything_has_a_name_for_a_screen_reader(made, browser):
    unnamed = """() => [...document.querySelectorAll(
        'svg[role=img], [role=slider], [role=region], input, select, button, img, pre',
      )].filter((one) => {
      const label = one.getAttribute('aria-label') || one.textContent || one.getAttribute('alt')
        || [...(one.labels || [])].map((l) => l.textContent).join('');
      return !label.trim();
    }).map((one) => one.outerHTML.slice(0, 80))"""
    with tab(browser) as opened:
        shown = opened.open(made[1])
        assert shown.evaluate(unnamed) == []
        ids = shown.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
        assert len(ids) == len(set(ids))
        assert shown.locator("html").get_attribute("lang") == "en"
        levels = shown.evaluate(
            "[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        scores = shown.locator("#scores svg").get_attribute("aria-label")
        assert "learning_rate=0.001, double=true " in scores
        focusable = shown.evaluate("document.querySelectorAll('.scroll:not([tabindex])').length")
        assert focusable == 0
        shown.keyboard.press("Tab")
        assert shown.evaluate("document.activeElement.textContent") == "Skip to the results"


def test_hostile_names_are_text_and_foreign_scripts_do_not_run(made, browser):
    with tab(browser) as opened:
        shown = opened.open(made[1])
        assert HOSTILE in shown.locator("#answer table").inner_text()
        assert shown.locator("img[src=x]").count() == 0
        ran = shown.evaluate("""() => {
          const script = document.createElement('script');
          script.textContent = 'window.foreign = 1';
          document.body.append(script);
          return window.foreign;
        }""")
        assert ran is None
        assert opened.said and all("Content Security Policy" in text for text in opened.said)
        opened.said.clear()


def test_curves_of_a_single_evaluation_show_seeds_and_the_interval(tmp_path, browser):
    def once(config, seed, run):
        run["metrics"]["eval_return"] = np.array([np.nan] * 3 + [(11.3, 17.7, 32.1, 44.9)[seed]])

    make_study(tmp_path / "s", {"seeds": 4, "base": {"eval_period": 400}}, change=once)
    address = page.write([load(tmp_path / "s")], tmp_path / "out").as_uri()
    with tab(browser) as opened:
        shown = opened.open(address)
        curves = canvas_of(shown, "Learning curves")
        scale = curves.evaluate("(place) => [place.plot.scales.x.min, place.plot.scales.x.max]")
        assert scale == [0, pytest.approx(420)]
        everything = curves.evaluate(PAINTED)
        shown.get_by_label("every seed").uncheck()
        opened.settle()
        without_seeds = curves.evaluate(PAINTED)
        shown.locator("#bands").select_option("none")
        opened.settle()
        assert everything > without_seeds > curves.evaluate(PAINTED) > 0


def test_choosing_configurations_and_what_is_shown(made, browser):
    with tab(browser) as opened:
        shown = opened.open(made[1])
        assert shown.locator("#curves .legend li").count() == 7
        first = shown.locator("#answer tbody td:nth-child(2)").first.inner_text()
        shown.get_by_label(f"show {first} in the figures").uncheck()
        opened.settle()
        assert first not in shown.locator("#curves .legend").inner_text()
        assert shown.locator("#curves .legend li").count() == 6
        before = canvas_of(shown, "Learning curves").evaluate(PAINTED)
        shown.get_by_label("every seed").uncheck()
        opened.settle()
        assert canvas_of(shown, "Learning curves").evaluate(PAINTED) < before
        scores = shown.locator("#threshold-score option").all_inner_texts()
        shown.get_by_label("greedy return").select_option(label=scores[0])
        assert f"Steps to a score of {scores[0]}" in shown.locator("#threshold").inner_text()
        shown.get_by_text("Every run (63)").click()
        shown.locator("#every tbody tr").first.wait_for()  # made once it is open
        assert shown.locator("#every tbody tr").count() == 63
        assert shown.locator("#diverged tbody tr").count() == 2
        assert "2 runs diverged and are counted" in shown.locator("#answer").inner_text()
        assert (
            "Verdict: learning_rate=0.0001, double=true is better than "
            in shown.locator("#answer").inner_text()
        )


def test_matrix_heat_map_and_records_hold_their_numbers(made, browser):
    with tab(browser) as opened:
        shown = opened.open(made[1])
        cells = shown.locator("#improvement tbody tr").first.locator("td").all_inner_texts()
        assert cells[0] == "–" and re.fullmatch(r"[01]\.\d\d\s*[01]\.\d\d to [01]\.\d\d", cells[1])
        assert shown.locator("#fields svg").count() >= 3
        assert "jax" in shown.locator("#ran").inner_text()
        assert "Not verified yet: dqx verify" in shown.locator("#certificate").inner_text()
        assert "@inproceedings{agarwal2021deep" in shown.locator("#bibtex").inner_text()


@pytest.mark.parametrize(
    ("plan", "leave_out", "words"),
    [
        ({"seeds": 1}, [], "it says nothing about other seeds"),
        ({"seeds": 8}, [1], "4 of 8 runs are finished; nobody works on it"),
        ({"seeds": 4}, [0], "No run is finished yet"),
        ({"seeds": 2, "case": [{"name": "a"}, {"name": "b", "env": "CartPole-v0"}]}, [],
         "Environment"),
        ({"seeds": 3, "base": {"eval_period": 0}}, [], "return of training episodes"),
    ],
)  # fmt: skip
def test_little_or_other_studies_make_pages_too(tmp_path, browser, plan, leave_out, words):
    make_study(tmp_path / "s", plan, leave_out=leave_out)
    address = page.write([load(tmp_path / "s")], tmp_path / "out").as_uri()
    with tab(browser, width=400) as opened:
        shown = opened.open(address)
        assert words in shown.locator("body").inner_text()
        if words == "Environment":
            shown.get_by_label("Environment").select_option(index=1)
            assert "Scores on CartPole-v0" in shown.locator("#answer h2").inner_text()


def test_two_thousand_seeds_are_small_and_open_fast(tmp_path, browser):
    base = {"total_steps": 100_000, "log_period": 1000, "eval_period": 1000, "chunk_width": 250}
    make_study(tmp_path / "s", {"seeds": 2000, "base": base})
    path = page.write([load(tmp_path / "s")], tmp_path / "out")
    assert path.stat().st_size < 8_000_000
    with tab(browser) as opened:
        begun = time.monotonic()
        shown = opened.open(path.as_uri())
        seconds = time.monotonic() - begun
        assert canvas_of(shown, "Learning curves").evaluate(PAINTED) > 50_000
        print(f"{path.stat().st_size / 1e6:.2f} MB, open in {seconds:.2f} s")
        assert seconds < 3


def test_configurations_that_finish_later_come_into_the_figures(browser, tmp_path):
    """As `dqx watch` renews them: their places change, and what was ticked stays ticked."""
    plan = {"seeds": 4, "base": {"chunk_width": 4}, "case": [
        {"name": name, "gamma": gamma} for name, gamma in (("a", 0.8), ("b", 0.9), ("c", 0.95))
    ]}  # fmt: skip
    make_study(tmp_path / "all", plan)
    make_study(tmp_path / "first", plan, leave_out={0, 2})
    first, later = (
        page.content([study], findings.groups(cases.read([study])))
        for study in (load(tmp_path / "first"), load(tmp_path / "all"))
    )
    (tmp_path / "page.html").write_text(document(first))
    with tab(browser) as opened:
        shown = opened.open((tmp_path / "page.html").as_uri())
        renew = "(next) => { DATA = next; render(); }"
        legend = "[...document.querySelectorAll('#curves .legend li')].map((li) => li.textContent)"
        shown.evaluate(renew, json.loads(json.dumps(later)))
        assert sorted(shown.evaluate(legend)) == ["a", "b", "c"]
        shown.get_by_label("show a in the figures").uncheck()
        assert sorted(shown.evaluate(legend)) == ["b", "c"]
        shown.evaluate(renew, json.loads(json.dumps(first)))
        shown.evaluate(renew, json.loads(json.dumps(later)))
        assert sorted(shown.evaluate(legend)) == ["b", "c"]
