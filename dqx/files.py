"""Files and folders that are either whole or absent: written beside their place, synced, renamed.

A power cut or an interrupt leaves at most a name that starts with a dot and that nobody reads.
"""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, BinaryIO, Self

# Below this much free space a run is refused: it is more than a run of a thousand small seeds
# writes.
MIN_FREE_BYTES = 100 * 2**20


class OutputError(ValueError):
    """Files that cannot be written or read; names the path, the reason and a way out."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for binary writing that takes its place only if the block succeeds.

    Raises:
        OutputError: if a device or a pipe is there, which a file would take the place of.
        OSError: when it cannot be written; nothing is left behind, an older file stays.
    """
    if path.exists() and not path.is_dir():
        check_file(path)
    beside = _beside(path, "tmp")
    try:
        # Closed below; before the other try, as what is there already may be another's.
        file = open(beside, "xb")  # noqa: SIM115
    except OSError as error:
        raise _renamed(error, path) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            if error.filename is None:  # as of a full disk
                error.filename = str(path)
            elif str(error.filename) == str(beside):
                raise _renamed(error, path) from None
        raise


def _renamed(error: OSError, path: Path) -> OSError:
    """The same error of the file itself, not of the temporary one beside it."""
    return OSError(error.errno, error.strerror, str(path))


def check_file(path: Path) -> None:
    """Refuses a place that no file can take, before there is anything to write.

    Raises:
        OutputError: if its folder is missing, or a folder, a device or a pipe is there.
    """
    if not path.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {path.parent} for {path.name}: make it first")
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise OutputError(f"{path} is {kind}, and no file to replace: give a file's name")


def check_folder(path: Path, way_out: str) -> None:
    """Refuses a folder that cannot be written or made; tried for real, and nothing is left.

    Args:
        path: the folder, there or not yet.
        way_out: what to do instead.

    Raises:
        OutputError: if a file is in its place or above it, or nothing can be written.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise OutputError(f"{path if there == path.absolute() else there} is a file: {way_out}")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write in {path}: {error.strerror or error}; {way_out}"
        ) from error


def write_json(path: Path, content: Any) -> bytes:
    """Writes strict JSON, whole or not at all: an infinity has to be the text ``"inf"`` already.

    Returns:
        What was written.

    Raises:
        OSError: when it cannot be written; nothing is left behind, an older file stays.
        ValueError: for a number that is not finite.
    """
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    # Names of files may hold what is no UTF-8; JSON has escapes for it.
    written = f"{text}\n".encode(errors="backslashreplace")
    with whole_file(path) as file:
        file.write(written)
    return written


class Staging:
    """A folder under a temporary name that takes its place in one step, or goes without a trace.

    As a context manager it removes what was not put in place, missing parents that it made
    included.

    Args:
        target: where the folder shall be.
        check: ``check(target)`` returns whether there is an old folder to replace, and raises
            `OutputError` if something is in the way; called now and again before the old one goes.
        ours: ``ours(name)`` returns whether an entry of the old folder, named relative to it, may
            go; what may not is moved into the new folder, under its name, and told of in a
            `UserWarning`. All may go if left out.

    Attributes:
        target: the place, with links resolved.
        folder: the temporary folder beside it, to be filled.
        in_place: whether the folder has reached its place.

    Raises:
        OutputError: if the folder cannot be written; tried for real.
    """

    def __init__(
        self,
        target: Path,
        check: Callable[[Path], bool],
        ours: Callable[[PurePath], bool] | None = None,
    ) -> None:
        self.target = _resolved(target)
        self.in_place = False
        self._check, self._ours = check, ours
        check(self.target)
        self._made: list[Path] = []
        self.folder = _beside(self.target, "tmp")
        try:
            for parent in reversed([p for p in self.target.parents if not os.path.lexists(p)]):
                parent.mkdir()
                self._made.append(parent)
            self.folder.mkdir()
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            self._remove()
            raise OutputError(
                f"cannot write in {self.target.parent}: {error.strerror or error}; "
                "choose another folder"
            ) from error
        if free < MIN_FREE_BYTES:
            self._remove()
            raise OutputError(
                f"the disk of {self.target} is nearly full: {free / 2**20:.0f} MiB are free and "
                f"{MIN_FREE_BYTES / 2**20:.0f} MiB are wanted; make room or choose another folder"
            )

    def commit(self) -> None:
        """Puts the folder in its place; an old one goes only after that, and stays if it fails.

        Raises:
            OutputError: if something has come in the way.
            OSError: if it cannot be synced or renamed.
        """
        for folder, _, _ in os.walk(self.folder):
            sync_folder(Path(folder))
        aside = _beside(self.target, "old")
        try:
            if self._check(self.target):
                os.rename(self.target, aside)
            os.rename(self.folder, self.target)
            self.in_place = True
        except BaseException:
            self.in_place = not self.folder.exists()
            if not self.in_place and aside.exists():
                os.rename(aside, self.target)
            raise
        finally:
            if self.in_place:
                self._delete_old(aside)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.in_place:
            self._remove()

    def _delete_old(self, aside: Path) -> None:
        sync_folder(self.target.parent)
        if not aside.exists():
            return
        if self._ours is None:
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # it stays whole, and is named below
                self._tell(_cleared(aside, self.target, self._ours))
        if aside.exists():
            warnings.warn(f"the old folder could not be deleted: {aside}", stacklevel=3)

    def _tell(self, kept: list[PurePath]) -> None:
        if kept:
            shown = ", ".join(map(str, kept[:5])) + (", ..." if len(kept) > 5 else "")
            warnings.warn(
                f"{self.target} held what is not dqx's, which was kept: {shown}", stacklevel=4
            )

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in reversed(self._made):
            with contextlib.suppress(OSError):  # another run has put something there
                parent.rmdir()


def _resolved(target: Path) -> Path:
    """The target without links, which a rename would replace instead of following."""
    try:
        resolved = target.resolve()
        inside, mounted = Path.cwd().is_relative_to(resolved), os.path.ismount(resolved)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write {target}: {error}; choose another folder") from None
    if inside:
        raise OutputError(
            f"'{target}' is or holds the current folder, which cannot be replaced: choose a folder "
            "inside it"
        )
    if mounted:
        raise OutputError(f"{target} is a mount point: choose a folder inside it")
    return resolved


def _cleared(old: Path, new: Path, ours: Callable[[PurePath], bool]) -> list[PurePath]:
    """Moves what is not ours out of an old folder and deletes the rest; gives what was moved."""
    strangers = list(_strangers(old, PurePath(), ours))
    moved = [name for name in strangers if _moved(old / name, new / name)]
    _delete(old, PurePath(), set(strangers))
    return moved


def _strangers(
    folder: Path, inside: PurePath, ours: Callable[[PurePath], bool]
) -> Iterator[PurePath]:
    """The names of entries that are not ours; a folder that is not ours is one, and whole."""
    with os.scandir(folder / inside) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = inside / entry.name
        if not ours(name):
            yield name
        elif entry.is_dir(follow_symlinks=False):
            yield from _strangers(folder, name, ours)


def _moved(source: Path, target: Path) -> bool:
    """Moves an entry to where nothing is; whether it could."""
    if os.path.lexists(target):
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
    except OSError:
        return False
    return True


def _delete(folder: Path, inside: PurePath, kept: set[PurePath]) -> None:
    """Deletes what lies in a folder but what is kept, and the folders that are empty then."""
    with contextlib.suppress(OSError):  # what stays is told of by who asked
        with os.scandir(folder / inside) as found:
            entries = list(found)
        for entry in entries:
            name = inside / entry.name
            if name in kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                _delete(folder, name, kept)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
        os.rmdir(folder / inside)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{suffix}")


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
