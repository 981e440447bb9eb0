"""What is said when a study stops before its end: what is kept, what is lost, how to go on."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

from dqx.study.background import Stopped
from dqx.study.folder import Folder, StudyError


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C or a termination signal; says what is kept and how to go on."""


@contextlib.contextmanager
def explained(folder: Folder, least_seconds: float) -> Iterator[None]:
    """Says of what stops a study what is kept and how to go on.

    Args:
        folder: of the study.
        least_seconds: between checkpoints; infinite: there are none.

    Raises:
        StudyInterrupted: in place of Ctrl-C.
        StudyError: in place of an error of the file system.
    """
    again = f"dqx study resume {folder.path}"
    try:
        yield
    except Stopped:
        kept = "what is finished" if least_seconds == math.inf else "everything so far"
        raise StudyInterrupted(
            f"interrupted; {kept} is in {folder.path}. Go on with: {again}"
        ) from None
    except KeyboardInterrupt:
        raise StudyInterrupted(
            f"interrupted at once; {again} goes on from what was last written"
        ) from None
    except (OSError, StudyError) as error:
        if not folder.path.is_dir():
            raise StudyError(
                f"{folder.path} was deleted or moved away while it was being trained, and with it "
                "all that was finished: if it was moved, put it back and go on with: "
                f"{again}; if it was deleted, nothing of it is left, and the study has to be "
                "trained again from its beginning"
            ) from error
        if isinstance(error, StudyError):
            raise
        raise StudyError(_unwritten(folder, error, again)) from error


def _unwritten(folder: Folder, error: OSError, again: str) -> str:
    """What is said where a file cannot be written."""
    place = Path(error.filename or folder.path)
    if isinstance(error, FileNotFoundError):
        gone = next((p for p in place.parents if not p.is_dir() and p != folder.path), None)
        if gone is not None and gone.is_relative_to(folder.path):
            return (
                f"{gone} was deleted or moved away while the study was being trained: what was in "
                f"it is lost, unless it is put back, and is trained again by: {again}"
            )
    return (
        f"cannot write {place}: {error.strerror or error}; nothing that was finished is lost. "
        f"When that is mended: {again}"
    )
