"""A search's folder: what is in it, and what may replace it.

    search.json                        what is searched; written once
    generation-00/candidates.json      what was proposed
    generation-00/seeds-4/             the study that brings the candidates left to 4 seeds
    fresh/                             the study of the winner on fresh seeds
    tune.json                          the finished search as a whole
    tune.png                           its picture
    report/index.html                  its page
    lock                               of the process at work

Every study is an ordinary one; the records are those of `dqx.study.tuning.records`.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path, PurePath
from typing import Any

from dqx.arguments import PATH, require
from dqx.study import entries, strict
from dqx.study.entries import check_reach, check_report, refuse_unless
from dqx.study.folder import StudyError, is_free
from dqx.study.lock import holder

_HALF_MADE = r"\..+\.[0-9a-f]{8}\.tmp"


class TuneFolder:
    """The names within a search's folder. All are made of numbers: none comes from a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require(StudyError, path=(path, PATH))
        self.path = Path(path)

    @property
    def search(self) -> Path:
        return self.path / "search.json"

    @property
    def result(self) -> Path:
        return self.path / "tune.json"

    @property
    def picture(self) -> Path:
        return self.path / "tune.png"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def fresh(self) -> Path:
        return self.path / "fresh"

    def candidates(self, generation: int) -> Path:
        return self.path / f"generation-{generation:02d}" / "candidates.json"

    def leftovers(self) -> list[Path]:
        """Half-made studies and records of a process that was killed."""
        folders = [self.path, *self.path.glob("generation-*")]
        found = [path for folder in folders for path in folder.glob(".*.tmp")]
        return [p for p in found if re.fullmatch(_HALF_MADE, p.name)]


def is_tune(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a search."""
    return TuneFolder(path).search.is_file()


def holds_search(path: str | os.PathLike[str]) -> bool:
    """Whether dqx has written the search's record of a folder."""
    with contextlib.suppress(OSError, ValueError):
        content = strict.read(TuneFolder(path).search)
        return isinstance(content, dict) and {"search", "search_seal"} <= set(content)
    return False


def check_entries(folder: TuneFolder) -> None:
    """Refuses a link, a pipe or a device under a name of the layout; studies check their own.

    Raises:
        StudyError: naming it.
    """
    check_reach(folder.path)
    own = (folder.search, folder.result, folder.picture, folder.path / "lock")
    for path in (*own, *folder.path.glob("generation-*/candidates.json")):
        refuse_unless(path, "a file")
    generations = sorted(folder.path.glob("generation-[0-9]*"))
    studies = sorted(folder.path.glob("generation-[0-9]*/seeds-*"))
    for path in (folder.fresh, *generations, *studies):
        refuse_unless(path, "a folder")
    check_report(folder.path)


def replaces(target: Path, overwrite: bool) -> bool:
    """Whether there is an old search to replace; False where there is nothing.

    Raises:
        StudyError: if something is in the way, saying what it is and what to do.
    """
    if is_free(target):
        return False
    if not is_tune(target):
        held = "a study" if (target / "plan.json").exists() else "no search of dqx"
        raise StudyError(
            f"{target} exists and holds {held}, so it is not replaced: choose another folder"
        )
    check_free(target)
    if overwrite:
        return True
    raise StudyError(
        f"{target} already holds a search: `dqx tune resume {target}` goes on with it, "
        "--overwrite replaces it"
    )


def is_ours(name: PurePath) -> bool:
    """Whether an entry of a search's folder, named relative to it, has a name of the layout."""
    top, *rest = name.parts
    if not rest:
        files = ("search.json", "tune.json", "tune.png", "lock", "report", "fresh")
        return top in files or bool(re.fullmatch(rf"generation-[0-9]{{2,}}|{_HALF_MADE}", top))
    if top == "report":
        return entries.is_ours(name)
    if top != "fresh" and not re.fullmatch(_HALF_MADE, top):
        place, *rest = rest
        if not rest:
            return bool(re.fullmatch(rf"candidates\.json|seeds-[0-9]+|{_HALF_MADE}", place))
    return entries.is_ours(PurePath(*rest))


def check_free(target: Path) -> None:
    """Raises `StudyError` if another process works on a search."""
    working = holder(target)
    if working is not None:
        raise StudyError(
            f"{target} is being worked on by {working}: wait for it, or watch it with `dqx tune "
            f"status {target}`"
        )


def tidy(folder: TuneFolder) -> None:
    """Deletes what a killed process has left half-made."""
    for path in folder.leftovers():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def written(folder: TuneFolder) -> Any:
    """Says of a failed write what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot write {error.filename or folder.path}: {error.strerror or error}; nothing "
            f"that was finished is lost. When that is mended: dqx tune resume {folder.path}"
        ) from error
