"""The page of a study: one HTML file that holds everything it shows and asks no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqx.files import whole_file
from dqx.report import cases, findings
from dqx.report.page.content import content
from dqx.report.page.document import document
from dqx.study.results import Study

NAME = "index.html"


def write(studies: Sequence[Study], folder: Path) -> Path:
    """Writes the page of studies into a folder, without films; gives its path.

    Raises:
        StudyError: naming the file, if one of a study is damaged.
        ConfigError: if an agent is not known here: import the module that registers it.
        OSError: when it cannot be written; an older page stays.
    """
    return write_content(content(studies, findings.groups(cases.read(studies))), folder)


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
