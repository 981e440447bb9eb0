"""What the hostile trials found, counted by trial and written as a page of Markdown."""

import datetime
import platform
import re
from pathlib import Path

# Files in the order of the page, and what each asks.
TRIALS = {
    "test_kills": "Killed at any moment, then resumed to equal bits",
    "test_damage": "Damaged, then named or healed to equal bits; no wrong data taken",
    "test_folders": "A hostile folder: no write outside, no hang, no 2 GiB, no raw exception",
    "test_full_disk": "The disk full at every write, then resumed to equal bits",
    "test_lines": "A wrong command line: one line and status 2",
    "test_calls": "A wrong call: an error of ours",
}
INTRO = """\
# Hostile trials

Made by `make hostile ARGS="--table docs/hostile.md"`; a part of it (`ARGS="-k kills --table ..."`)
renews its own rows. Every case is generated from a fixed seed, so that one that failed can be run
again by its name. The tests are in `tests/hostile/`.

"""
HEAD = ["| trial | held | cases | made |", "|---|---|---|---|"]


class Tally:
    """A plugin that counts the cases of every trial as their tests end.

    Args:
        path: of the page; None: none is written.
    """

    def __init__(self, path):
        self._path, self.found = path, {}

    def pytest_runtest_logreport(self, report):
        given = dict(report.user_properties)
        if "trial" not in given or not (report.when == "call" or report.outcome != "passed"):
            return
        entry = self.found.setdefault(tuple(given["trial"]), [0, 0, []])
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
            entry[2].append(reason.removeprefix("Skipped: "))
            return
        held, count = given.get("cases", (int(report.passed), 1))
        entry[0] += held
        entry[1] += count

    def pytest_terminal_summary(self, terminalreporter):
        if self.found:
            terminalreporter.section("hostile trials")
            for line in [*HEAD, *(line for lines in self.groups().values() for line in lines)]:
                terminalreporter.write_line(line)

    def pytest_sessionfinish(self):
        if self._path and self.found:
            path = Path(self._path)
            groups = {**_groups_of(path), **self.groups()}
            lines = [line for title in TRIALS.values() for line in groups.get(title, [])]
            path.write_text(INTRO + "\n".join([*HEAD, *lines]) + "\n", encoding="utf-8")

    def groups(self):
        """The rows of each trial, by its title."""
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        made, found = f"{day}, Python {platform.python_version()}", {}
        for file, title in TRIALS.items():
            parts = {what: x for (at, what), x in self.found.items() if at.startswith(file)}
            if parts:
                held, count = (sum(entry[i] for entry in parts.values()) for i in (0, 1))
                found[title] = [f"| **{title}** | **{held:,}** | **{count:,}** | {made} |"]
            for what, (held, count, reasons) in parts.items():
                left_out = f" (left out: {'; '.join(sorted(set(reasons)))})" if reasons else ""
                words = re.sub(r"\.$", "", what) + left_out
                found[title].append(f"| {words} | {held:,} | {count:,} | |")
        return found


def _groups_of(path):
    """The groups of a page that was written before."""
    found, title = {}, None
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        start = re.match(r"\| \*\*(.+?)\*\* \|", line)
        title = start[1] if start else title
        if title is not None and line.startswith("|"):
            found.setdefault(title, []).append(line)
    return found
