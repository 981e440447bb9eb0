"""What the hostile trials found, counted by trial and written as a page of Markdown."""

import datetime
import platform
import re
from pathlib import Path

# Files in the order of the page, what each asks, and the numbers that are asked for.
TRIALS = {
    "test_kills": ("Killed at any moment, then resumed to equal bits", 200),
    "test_damage": ("Damaged, then named or healed to equal bits", 500),
    "test_folders": (
        "A hostile folder: nothing outside is written, no hang, no 2 GiB, no raw exception", 100,
    ),
    "test_full_disk": ("The disk full at every write, then resumed to equal bits", 100),
    "test_lines": ("A wrong command line: one line and status 2", 250),
    "test_calls": ("A wrong call: an error of ours", 100),
}  # fmt: skip
INTRO = """\
# Hostile trials

Made by `make hostile ARGS="--table {path}"`{where}. Every case is generated from a
fixed seed, so that one that failed can be run again by its name (`make hostile ARGS="-k NAME"`).

"""


class Tally:
    """A plugin that counts the cases of every trial as their tests end.

    Args:
        path: of the page; None: none is written.
    """

    def __init__(self, path):
        self._path, self.found, self._asked = path, {}, {}

    def pytest_runtest_logreport(self, report):
        given = dict(report.user_properties)
        if "trial" not in given or not (report.when == "call" or report.failed):
            return
        held, count = given.get("cases", (int(report.passed), 1))
        if report.failed and "cases" not in given:
            held, count = 0, 1
        entry = self.found.setdefault(tuple(given["trial"]), [0, 0, []])
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
            entry[2].append(reason.removeprefix("Skipped: "))
            return
        entry[0] += held
        entry[1] += count

    def pytest_terminal_summary(self, terminalreporter):
        if self.found:
            terminalreporter.section("hostile trials")
            for line in self.rows():
                terminalreporter.write_line(line)

    def pytest_sessionfinish(self):
        if self._path and self.found:
            Path(self._path).write_text(self.page(), encoding="utf-8")

    def rows(self):
        """The table, as lines of Markdown."""
        lines = ["| trial | held | cases |", "|---|---|---|"]
        for file, (title, _) in TRIALS.items():
            parts = {what: x for (at, what), x in self.found.items() if at.startswith(file)}
            if not parts:
                continue
            held, count = (sum(entry[i] for entry in parts.values()) for i in (0, 1))
            lines.append(f"| **{title}** | **{held:,}** | **{count:,}** |")
            for what, (held, count, reasons) in parts.items():
                words = re.sub(r"\.$", "", what)
                if reasons:
                    words += f" (left out: {'; '.join(sorted(set(reasons)))})"
                lines.append(f"| {words} | {held:,} | {count:,} |")
        return lines

    def page(self):
        """The whole page."""
        day = datetime.datetime.now(datetime.UTC).date().isoformat()
        where = f" on {day}, Python {platform.python_version()}"
        return INTRO.format(path=self._path, where=where) + "\n".join(self.rows()) + "\n"
