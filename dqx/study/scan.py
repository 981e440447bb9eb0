"""What of a folder's finished chunks is undamaged, before a study goes on; mends what can be.

Bundles of which a part was damaged are written anew without it, what a killed merge has left is
cleared away, and nothing that is needed is removed before what takes its place is there.
"""

import re
from collections.abc import Callable, Iterable

from dqx.study import bundle, entries, merge
from dqx.study.bundle import ARRAYS, Bundle
from dqx.study.folder import Folder, ForeignRecord, StudyError, read_record
from dqx.study.held import TABLES, Held, Loose
from dqx.study.planned import Chunks

_PART = re.compile(r"part-([0-9]{5,})(-[0-9]+)?\.(npz|parquet)")


def intact(
    folder: Folder, seal: str, chunks: Chunks, warn: Callable[[str], None]
) -> dict[int, Held]:
    """What holds each chunk whose every file is as it was written.

    Args:
        folder: of the study, locked.
        seal: of its plan.
        chunks: of the plan.
        warn: is told what was damaged, and what it costs.

    Raises:
        ForeignRecord: if a bundle is of another plan.
        OSError: if a bundle cannot be written anew.
    """
    found: dict[int, Held] = {}
    bundles: dict[Bundle, dict[str, tuple[int, ...]]] = {}
    numbers = bundle.numbers(folder)
    whole = [number for number in numbers if folder.bundle_record(number).exists()]
    lost = [_bundle(folder, seal, number, chunks, found, bundles, warn) for number in whole]
    problems = _loose(folder, seal, chunks, found)
    # A kill leaves a copy without a record, and all of its chunks where they were.
    lost += [
        _bundle(folder, seal, number, chunks, found, bundles, warn)
        for number in numbers
        if number not in whole
    ]
    for text, touched in ((t, c) for known in bundles.values() for t, c in known.items()):
        gone = sorted(chunk for chunk in touched if chunk not in found)
        costs = f"The runs of {_named(gone)} are trained again" if gone else "It is mended"
        warn(f"{text}. {costs}")
        problems |= dict.fromkeys(gone, "")  # which is told now
    expected = folder.manifest.exists() and not any(lost)
    for chunk in (chunk for chunk in range(chunks.count) if chunk not in found):
        missing = f"{folder.record(chunk)}: it is missing" if expected else ""
        if text := problems.get(chunk, missing):
            warn(f"{text}. The runs of chunk {chunk} are trained again")
    _mend(folder, seal, chunks, found, bundles)
    _clear(folder, found)
    return found


def _bundle(
    folder: Folder,
    seal: str,
    number: int,
    chunks: Chunks,
    found: dict[int, Held],
    bundles: dict[Bundle, dict[str, tuple[int, ...]]],
    warn: Callable[[str], None],
) -> bool:
    """Adds the intact chunks of a bundle that nothing else holds; whether it was lost whole."""
    try:
        each = Bundle(folder, number, bundle.read(folder, seal, number, chunks), chunks)
    except ForeignRecord:
        raise
    except StudyError as error:
        warn(f"{error}; nor is its copy intact. The runs of its chunks are trained again")
        return True
    damage = each.damage()
    bad = {chunk for touched in damage.values() for chunk in touched}
    for chunk in (chunk for chunk in each.chunks if chunk not in bad):
        found.setdefault(chunk, each)
    needed = any(chunk not in found or found[chunk] is each for chunk in each.chunks)
    bundles[each] = damage if needed else {}
    return False


def _loose(folder: Folder, seal: str, chunks: Chunks, found: dict[int, Held]) -> dict[int, str]:
    """Adds the chunks in files of their own; what is damaged of others, by chunk."""
    problems = {}
    for chunk in folder.finished():
        if chunk in found or chunk >= chunks.count:
            continue
        try:
            record = read_record(folder, seal, chunk)
            if record is not None:
                each = Loose(folder, chunk, record, chunks.chunk(chunk))
                for text in each.damage():
                    raise StudyError(text)
                found[chunk] = each
        except StudyError as error:
            problems[chunk] = str(error)
    return problems


def _mend(
    folder: Folder,
    seal: str,
    chunks: Chunks,
    found: dict[int, Held],
    bundles: dict[Bundle, dict[str, tuple[int, ...]]],
) -> None:
    """Writes bundles anew that were damaged, or parts of which others hold; removes the old."""
    for each, problems in bundles.items():
        kept = {chunk: each for chunk in each.chunks if found.get(chunk) is each}
        if not problems and len(kept) == len(each.chunks):
            continue
        if kept:
            new = merge.write(folder, seal, merge.next_number(folder), kept, chunks)
            found |= dict.fromkeys(kept, new)
        each.remove()


def _clear(folder: Folder, found: dict[int, Held]) -> None:
    """Removes files of chunks that a bundle holds, and files of bundles without a record."""
    bundles = {held.path for held in found.values()}
    bundled = {chunk for chunk, held in found.items() if isinstance(held, Bundle)}
    for chunk in bundled & set(folder.finished()):
        folder.record(chunk).unlink(missing_ok=True)
    for name in ("chunks", *TABLES, *ARRAYS):
        for entry in entries.names(folder.path / name):
            number, part = merge.bundle_number(entry), _PART.fullmatch(entry)
            if not re.fullmatch(entries.FOLDERS[name], entry):
                continue  # it is not dqx's
            stray = number is not None and folder.bundle_record(number) not in bundles
            if stray or (part is not None and int(part[1]) in bundled):
                (folder.path / name / entry).unlink(missing_ok=True)


def _named(chunks: Iterable[int]) -> str:
    """Chunks in words, those in a row as a range."""
    chunks = list(chunks)
    ranges: list[list[int]] = []
    for chunk in chunks:
        if ranges and chunk == ranges[-1][1] + 1:
            ranges[-1][1] = chunk
        else:
            ranges.append([chunk, chunk])
    texts = [f"{a}" if a == b else f"{a} to {b}" for a, b in ranges]
    return f"chunk{'' if len(chunks) == 1 else 's'} {', '.join(texts)}"
