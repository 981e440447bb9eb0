"""The page that a training leaves behind."""

from pathlib import Path

from dqx.report import page
from dqx.study.folder import Folder
from dqx.study.results import Study
from dqx.study.sinks import Sink


class Page(Sink):
    """Writes the page of a study once all runs are finished, without films and other files.

    Attributes:
        path: of the page; None if there is none.
        problem: why there is none, in words; empty if nothing went wrong.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.problem = ""

    def complete(self, study: Study) -> None:
        try:
            self.path = page.write([study], Folder(study.path).report)
        except Exception as error:  # the study is whole without it, and is not failed by a picture
            self.problem = (
                f"the page could not be made ({type(error).__name__}: {error}); "
                f"`dqx report {study.path}` tries again"
            )
