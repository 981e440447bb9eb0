"""All finished chunks of a study as one, wherever they lie, also while they are being merged."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.study import held
from dqx.study.folder import Folder, StudyError
from dqx.study.held import TABLES, Held, Piece
from dqx.study.planned import Chunks

if TYPE_CHECKING:
    import pyarrow

__all__ = ["TABLES", "Index", "Shelf"]
# Row groups that are kept in memory, for who asks for chunks one after the other.
_KEPT = 16


class Index(NamedTuple):
    """The finished runs, configuration by configuration in the order of the plan, ``[R]`` each.

    Attributes:
        config: place of its configuration within the plan.
        seed: place of its seed within the plan.
        chunk: number of its chunk.
        lane: its place within the chunk.
        score: float64, NaN where there is none.
        diverged_at: step, -1 for never.
    """

    config: np.ndarray
    seed: np.ndarray
    chunk: np.ndarray
    lane: np.ndarray
    score: np.ndarray
    diverged_at: np.ndarray

    def of(self, config: int) -> slice:
        """Where the runs of a configuration are."""
        first, last = np.searchsorted(self.config, [config, config + 1])
        return slice(int(first), int(last))


class Shelf:
    """Reads what the finished chunks of a study have found.

    Args:
        folder: of the study.
        seal: of its plan.
        chunks: of the plan.
        configs: place of each configuration by its name.
        seeds: place of each seed.

    Raises:
        StudyError: if a record is damaged.
    """

    def __init__(
        self,
        folder: Folder,
        seal: str,
        chunks: Chunks,
        configs: Mapping[str, int],
        seeds: Mapping[int, int],
    ) -> None:
        self._find = lambda: held.find(folder, seal, chunks)
        self._chunks = chunks
        self._held = self._find()
        self._kept: dict[tuple[str, tuple[int, ...]], dict[int, pyarrow.Table]] = {}
        self.index = _index([each.columns() for each, _ in self._owned()], configs, seeds)
        self._by_chunk = np.lexsort((self.index.lane, self.index.chunk))
        self._chunks_in_order = self.index.chunk[self._by_chunk]

    def runs(self) -> list[dict[str, Any]]:
        """What is known of each run, in the order of `index`, with its chunk."""
        known: dict[int, list[dict[str, Any]]] = {}
        for each, chunks in self._owned():
            known |= {chunk: runs for chunk, runs in each.runs().items() if chunk in chunks}
        where = zip(self.index.chunk.tolist(), self.index.lane.tolist(), strict=True)
        return [{**known[chunk][lane], "chunk": chunk} for chunk, lane in where]

    def pieces(
        self,
        kind: str,
        columns: Collection[str] | None = None,
        chunks: Collection[int] | None = None,
    ) -> Iterator[Piece]:
        """Reads tables, each checked.

        Args:
            kind: ``"metrics"`` or ``"episodes"``.
            columns: that are wanted, where they are there; all if left out.
            chunks: numbers of those that are wanted; all if left out.

        Raises:
            StudyError: naming the file, if one was damaged.
        """
        for each, mine in self._owned(chunks):
            try:
                found = list(each.pieces(kind, mine, columns))
            except StudyError:
                if not self._moved(each, mine):
                    raise
                found = list(self.pieces(kind, columns, mine))
            yield from found

    def table(self, kind: str, chunk: int) -> "pyarrow.Table":
        """The rows of one chunk, as they were written; raises as `pieces` does.

        Chunks are asked for one after the other, so that what lies in the same place is kept.
        """
        key = next((key for key in self._kept if key[0] == kind and chunk in key[1]), None)
        if key is None:
            each = self._held[chunk]
            near = {c for c in each.beside(kind, chunk) if self._held.get(c) is each}
            found = list(self.pieces(kind, chunks=near))
            key = (kind, tuple(c for piece in found for c in piece.chunks))
            self._kept[key] = {c: t for piece in found for c, t in held.apart(piece)}
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[key][chunk]

    def arrays(self, chunk: int, step: int | None = None) -> dict[str, np.ndarray]:
        """The parameters of a chunk's runs, final or at a snapshot; raises as `pieces` does."""
        each = self._held[chunk]
        try:
            return each.arrays(chunk, step)
        except StudyError:
            if not self._moved(each, {chunk}):
                raise
            return self.arrays(chunk, step)

    def snapshots(self, chunk: int) -> tuple[int, ...]:
        """The steps of a chunk's snapshots."""
        return self._held[chunk].snapshots(chunk)

    def name(self, kind: str, chunk: int, step: int | None = None) -> str:
        """How the file is called that holds a part of a chunk; see `Held.name`."""
        return self._held[chunk].name(kind, chunk, step)

    def machines(self) -> dict[int, str]:
        """The machine that trained each chunk."""
        return {chunk: each.machine(chunk) for chunk, each in sorted(self._held.items())}

    def files(self) -> dict[Path, int]:
        """The files of data, and their bytes as they were written."""
        return {path: size for each, _ in self._owned() for path, size in each.files().items()}

    def owners(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        """Whose row each row of metrics is, as places in `index`, and its step."""
        planned = [self._chunks.chunk(chunk) for chunk in piece.chunks]
        firsts = np.searchsorted(self._chunks_in_order, piece.chunks)
        counts = [len(chunk.runs) for chunk in planned]
        runs = [self._by_chunk[a : a + n] for a, n in zip(firsts, counts, strict=True)]
        steps = [np.tile(chunk.steps, len(chunk.runs)) for chunk in planned]
        rows = np.repeat([len(chunk.steps) for chunk in planned], counts)
        return np.repeat(np.concatenate(runs), rows), np.concatenate(steps)

    def _owned(self, chunks: Collection[int] | None = None) -> list[tuple[Held, set[int]]]:
        """What holds chunks, and which of them, in the order of their numbers."""
        found: dict[int, tuple[Held, set[int]]] = {}
        wanted = self._held.keys() if chunks is None else self._held.keys() & set(chunks)
        for chunk in sorted(wanted):
            each = self._held[chunk]
            found.setdefault(id(each), (each, set()))[1].add(chunk)
        return list(found.values())

    def _moved(self, each: Held, chunks: Collection[int]) -> bool:
        """Whether chunks that a holder had are elsewhere by now, merged; notes where all are."""
        now = self._find()
        if not all(chunk in now for chunk in chunks):
            return False
        self._held |= {chunk: now[chunk] for chunk in self._held if chunk in now}
        return any(now[chunk].path != each.path for chunk in chunks)


def _index(
    parts: Collection[Mapping[str, Any]], configs: Mapping[str, int], seeds: Mapping[int, int]
) -> Index:
    def joined(name: str, dtype: Any, place: Callable[[Any], Any] | None = None) -> np.ndarray:
        arrays = [
            np.array(part[name] if place is None else [place(x) for x in part[name]], dtype)
            for part in parts
        ]
        return np.concatenate([np.zeros(0, dtype), *arrays])

    found = Index(
        config=joined("config", np.int64, configs.__getitem__),
        seed=joined("seed", np.int64, seeds.__getitem__),
        chunk=joined("chunk", np.int64),
        lane=joined("index", np.int64),
        score=joined("score", np.float64),
        diverged_at=joined("diverged_at", np.int64),
    )
    order = np.lexsort((found.seed, found.config))
    return Index(*(values[order] for values in found))
