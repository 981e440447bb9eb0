"""The page of a study: one HTML file that holds everything it shows and asks no network."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqx.files import OutputError, whole_file
from dqx.report import cases, findings
from dqx.report.page.content import content
from dqx.report.page.document import document
from dqx.study.results import Study

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
_OURS = b'<meta name="referrer" content="no-referrer">'


def check_place(folder: Path) -> None:
    """Refuses a folder in which a page would be in the way of something else.

    Raises:
        OutputError: if it lies in a study, beside the place of that study's own page, or holds a
            page that dqx has not written.
    """
    for outer in (folder, *folder.resolve().parents):
        own = (outer / "report").resolve() == folder.resolve()
        if not own and (outer / "plan.json").is_file():
            raise OutputError(
                f"{folder} lies in the study {outer}, whose folder is for its own files: choose "
                "another folder with --out"
            )
    page = folder / NAME
    if page.is_file():
        with page.open("rb") as file:
            known = _OURS in file.read(4096)
        if not known:
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
