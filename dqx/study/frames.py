"""Tables of a study's runs as data frames, of which no more is read than is asked for."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas
import pyarrow
import pyarrow.compute

from dqx.study.entries import StudyError
from dqx.study.shelf import TABLES

if TYPE_CHECKING:
    from dqx.study.results import Study


def frame(
    study: "Study", kind: str, columns: Sequence[str] | None, configs: Sequence[str] | None
) -> pandas.DataFrame:
    """A part of a table; see `Study.frame`.

    Args:
        study: whose runs they are.
        kind: of the table.
        columns: that are read beside config, seed and step; None: all.
        configs: names of configurations, which there are; None: all.

    Raises:
        StudyError: if no run is finished, there is no such table or column, or a file is damaged.
    """
    if kind not in TABLES:
        raise StudyError(f"there is no table {kind!r}; there are: {', '.join(TABLES)}")
    tables, known = [], dict[str, None]()
    with study._repair():
        for table, names in _tables(study, kind, columns, configs):
            tables.append(table)
            known |= dict.fromkeys(names)
    if not tables:
        raise StudyError(f"no run of {study.path} is finished yet")
    for name in (name for name in columns or () if name not in known):
        raise StudyError(
            f"there is no column {name!r} in {kind} of {study.path}; there are: {', '.join(known)}"
        )
    # Agents differ in their metrics: where one has no such column, there is no number.
    found = pyarrow.concat_tables(tables, promote_options="default").to_pandas()
    found["config"] = pandas.Categorical(found["config"], categories=list(study.configs))
    seeds = np.array(study.seeds)
    order = np.argsort(seeds)
    place = order[np.searchsorted(seeds, found["seed"].to_numpy(), sorter=order)]
    rows = np.lexsort((found["step"].to_numpy(), place, found["config"].cat.codes.to_numpy()))
    return found.iloc[rows].reset_index(drop=True)


def _tables(
    study: "Study", kind: str, columns: Sequence[str] | None, configs: Sequence[str] | None
) -> Iterator[tuple[pyarrow.Table, list[str]]]:
    """The rows that are wanted, with the names of all columns that there are."""
    shelf = study._shelf
    wanted = None if columns is None else {"config", "seed", "step", *columns}
    chunks = None
    if configs is not None:
        places = [shelf.index.of(study._rank[name]) for name in configs]
        chunks = {int(c) for at in places for c in np.unique(shelf.index.chunk[at])}
    for piece in shelf.pieces(kind, wanted, chunks):
        table = piece.table
        if configs is not None:
            mine = pyarrow.array(configs, pyarrow.string())
            table = table.filter(pyarrow.compute.is_in(table.column("config"), mine))
        yield table, piece.names
