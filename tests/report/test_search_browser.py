"""The page of a search in a browser: its answer, its seeds and its table of candidates."""

import pytest

from dqx.report.page import search
from dqx.study.tuning.file import read_tune
from dqx.study.tuning.results import Tuned
from dqx.study.tuning.search import Search
from tests.report.browser import launched, tab
from tests.study.tune_kit import Listed, Maker, table

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A search of eight candidates, and its page."""
    path = tmp_path_factory.mktemp("search")
    rates = (1e-5, 1e-4, 5e-4, 1e-3, 2e-3, 1e-2, 1e-3)
    born = [{"learning_rate": rate, "gamma": 0.95} for rate in rates]
    born.append({"learning_rate": 1e-3, "gamma": 7.0})
    found = Search(read_tune(table(generations=1, rungs=[4, 8], fresh_seeds=16)))
    found.run(Listed(born), Maker(path))
    tuned = Tuned(path, found)
    return tuned, search.write(tuned).as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
def test_the_page_of_a_search_says_what_its_winner_is_worth(made, width, scheme):
    tuned, address = made
    with launched() as browser, tab(browser, width=width, scheme=scheme) as here:
        here.open(address)
        part = here.page.locator("#search")
        words = part.locator("p.answer").inner_text()
        assert f"a score of {tuned.score.value:.4g}" in words
        assert f"it had {tuned.search_value.value:.4g}" in words
        rows = part.locator("tbody tr")
        assert rows.count() == 8
        first = rows.nth(0).locator("td").all_inner_texts()
        assert first[0] == str(tuned.winner.number) and first[5] == "winner"
        # Sorted by number, the candidate that could not work is the first.
        part.get_by_role("button", name="Candidate").click()
        last = rows.nth(0).locator("td").all_inner_texts()
        assert last[0] == "7" and "gamma" in last[5] and last[3] == ""
        assert here.page.evaluate("document.documentElement.scrollWidth") <= width
        assert here.said == [] and set(here.asked) <= {address, "data:,"}
