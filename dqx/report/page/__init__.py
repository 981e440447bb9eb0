"""The page of a study: one HTML file that holds everything it shows and asks no network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqx.files import OutputError, whole_file
from dqx.report import cases, findings
from dqx.report.page.content import content
from dqx.report.page.document import document
from dqx.study.finish import holds_study
from dqx.study.folder import Folder
from dqx.study.results import Study
from dqx.study.tuning.folder import holds_search

NAME = "index.html"


def write(studies: Sequence[Study], folder: str | os.PathLike[str]) -> Path:
    """Writes the page of studies into a folder, without films; gives its path.

    Raises:
        StudyError: naming the file, if one of a study is damaged.
        ConfigError: if an agent is not known here: import the module that registers it.
        OSError: when it cannot be written; an older page stays.
    """
    return write_content(content(studies, findings.groups(cases.read(studies))), Path(folder))


# In the head of every page, of older ones too.
_OURS = (b'<meta name="referrer" content="no-referrer">', b" - dqx</title>")


def check_place(folder: Path, own: Sequence[Path] = ()) -> None:
    """Refuses a folder in which a page would be in the way of something else.

    Args:
        folder: for the page and its figures.
        own: the folders that the studies and searches which are shown have for it.

    Raises:
        OutputError: if it lies in a study or a search and is not one of these, or holds a page that
            dqx has not written.
    """
    place = folder.resolve()
    if place not in [path.resolve() for path in own]:
        for outer in (place, *place.parents):
            if holds_study(Folder(outer)) or holds_search(outer):
                raise OutputError(
                    f"{folder} lies in {outer}, whose folder is for its own files: choose another "
                    "folder with --out"
                )
    page = folder / NAME
    if page.is_file():
        with page.open("rb") as file:
            head = file.read(4096)
        if not all(mark in head for mark in _OURS):
            raise OutputError(
                f"{page} is no page of dqx, so it is not replaced: choose another folder with --out"
            )


def write_content(shown: Mapping[str, Any], folder: Path) -> Path:
    """Writes a page of what `content` gave, whole or not at all.

    Raises:
        OSError: when it cannot be written; an older page stays.
    """
    text = document(shown)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with whole_file(path) as file:
        file.write(text.encode())
    return path
