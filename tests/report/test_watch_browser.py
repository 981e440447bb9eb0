"""`dqx watch` in a browser, beside a study that trains."""

import re
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.kit import FIELDS, environment
from tests.report.browser import Tab, launched

pytestmark = pytest.mark.browser

PLAN = """
name = "live"
seeds = 24
[base]
preset = "cartpole"
total_steps = 120_000
{fields}
"""


def started(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "dqx", *arguments],
        cwd=cwd, env=environment(XDG_CACHE_HOME=str(cwd / "cache")),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_a_page_follows_a_study_until_it_is_finished(tmp_path):
    fields = dict(field.split("=") for field in FIELDS)
    fields["hidden_sizes"] = "[8]"
    lines = "\n".join(f"{name} = {value}" for name, value in fields.items())
    (tmp_path / "live.toml").write_text(PLAN.format(fields=lines))
    folder, processes = tmp_path / "runs" / "live", []
    with launched() as browser:
        try:
            processes += [started("study", "live.toml", "--devices", "cpu:1", cwd=tmp_path)]
            while not (folder / "plan.json").exists():
                assert processes[0].poll() is None
                time.sleep(0.05)
            processes += [started("watch", str(folder), cwd=tmp_path)]
            followed(Tab(browser), *processes, folder / "chunks")
        finally:
            for process in processes:
                process.kill()
                process.communicate()


def followed(tab, study, watch, chunks):
    address = watch.stdout.readline().split(" is at ")[1].strip()
    shown = tab.open(address)
    state = shown.locator("#head p").first.inner_text()
    assert re.match("Still running: [0-9]+ of 24 runs are finished", state)
    while not list(chunks.glob("0*.json")):
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGSTOP)  # so that the browser, however slow, sees a part
    shown.wait_for_selector("#answer", timeout=120_000)
    seeds = shown.locator("#answer tbody td:nth-child(2)")
    assert re.fullmatch(r"\d+ of 24", seeds.inner_text())
    shown.uncheck("#every-seed")
    shown.locator("#seeds").scroll_into_view_if_needed()
    there = shown.evaluate("scrollY")
    study.send_signal(signal.SIGCONT)
    shown.get_by_text("Finished: 24 runs.", exact=True).wait_for(timeout=200_000)
    assert seeds.inner_text() == "24"
    # What was chosen and read stays.
    assert not shown.is_checked("#every-seed")
    assert abs(shown.evaluate("scrollY") - there) < 150
    assert tab.said == [] and all(url.startswith(address) for url in tab.asked)
    watch.send_signal(signal.SIGINT)
    assert watch.wait(60) == 0
    shown.get_by_text("no longer renewed").wait_for()
    out = study.communicate(timeout=120)[0].splitlines()
    assert study.returncode == 0 and out[-1].endswith("runs/live/report/index.html")
