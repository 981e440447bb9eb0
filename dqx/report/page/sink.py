"""The page that a training leaves behind."""

from collections.abc import Callable
from pathlib import Path

from dqx.report import page
from dqx.settings import row_steps
from dqx.study.folder import Folder
from dqx.study.results import Study
from dqx.study.sinks import Sink

# Rows of metrics whose page takes more than a second or two, and those that are too many to read
# unasked, beside a training that has just filled the memory: 200,000 take 4 s and 440 MiB.
MANY_ROWS, MOST_ROWS = 50_000, 500_000


class Page(Sink):
    """Writes the page of a study once all runs are finished, without films and other files.

    Args:
        say: told when that begins, if it takes more than a moment.

    Attributes:
        path: of the page; None if there is none.
        problem: why there is none, in words; empty if nothing went wrong.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.path: Path | None = None
        self.problem = ""
        self._say = say

    def complete(self, study: Study) -> None:
        again = f"`dqx report {study.path}`"
        try:
            rows = sum(len(row_steps(study.point(name)[0])) for name in study.configs)
            rows *= len(study.seeds)
            if rows > MOST_ROWS:
                self.problem = f"no page was made of {rows:,} rows of metrics, to be quick: {again}"
                return
            if rows > MANY_ROWS and self._say is not None:
                self._say("writing the page...")
            self.path = page.write([study], Folder(study.path).report)
        except Exception as error:  # the study is whole without it, and is not failed by a picture
            self.problem = (
                f"the page could not be made ({type(error).__name__}: {error}); {again} tries again"
            )
