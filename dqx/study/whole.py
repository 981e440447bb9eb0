"""The digest of a whole study: equal digests, equal results, whoever trained them. Needs no JAX.

It hangs on what was asked and on what the files hold, not on how they hold it: not on times, hosts,
versions, checksums of files, or the division into files.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dqx.compute.digest import digest
from dqx.study.folder import StudyError
from dqx.study.sealed import seal

if TYPE_CHECKING:
    import pyarrow

    from dqx.study.results import Study

# What of a plan is part of the digest, beside its points; the rest says when and on what.
ASKED = ("name", "seeds", "root_seed", "snapshot_every")


# The runs of a chunk as its record has them, by configuration and seed.
Said = Mapping[tuple[str, int], Mapping[str, Any]]


class Content(NamedTuple):
    """The files of a finished chunk, its snapshots left out, as they are.

    Attributes:
        metrics: a row for each run and step.
        episodes: a row for each episode.
        params: final parameters by path, leading axis ``w``.
    """

    metrics: "pyarrow.Table"
    episodes: "pyarrow.Table"
    params: dict[str, np.ndarray]


def read_chunk(study: "Study", chunk: int) -> Content:
    """Reads and checks the files of a chunk.

    Raises:
        StudyError: naming one that is missing or damaged.
    """
    metrics, episodes = (study._table(kind, chunk) for kind in ("metrics", "episodes"))
    return Content(metrics, episodes, study._arrays(chunk))


def numbers(metrics: "pyarrow.Table", runs: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The steps of a chunk's rows, int64 ``[K]``, and its metrics, ``{name: [w, K]}``."""
    names = metrics.column_names
    names = names[names.index("step") + 1 :]
    steps = metrics.column("step").to_numpy().reshape(runs, -1)[0]
    return steps, {name: metrics.column(name).to_numpy().reshape(runs, -1) for name in names}


def lanes(episodes: "pyarrow.Table", runs: list[tuple[str, int]]) -> np.ndarray:
    """Which of a chunk's runs each row of episodes is of, int64; -1 for one that is not there."""
    column = episodes.column("config").combine_chunks().dictionary_encode()
    names, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
    pairs = np.stack([codes.astype(np.int64), episodes.column("seed").to_numpy()])
    found, inverse = np.unique(pairs, axis=1, return_inverse=True)
    place = {run: i for i, run in enumerate(runs)}
    known = [place.get((names[code], seed), -1) for code, seed in found.T.tolist()]
    return np.array(known, np.int64)[inverse.ravel()]


def by_chunk(study: "Study") -> dict[int, Said]:
    """What is said of each finished run, by chunk."""
    found: dict[int, dict[tuple[str, int], Mapping[str, Any]]] = {}
    for run in study.runs:
        found.setdefault(run["chunk"], {})[run["config"], run["seed"]] = run
    return dict(found)


def run_facts(study: "Study", chunk: int, content: Content, said: Said) -> list[dict[str, Any]]:
    """All that the folder says of each run of a chunk, in digests: of the files, not the record.

    Args:
        study: the folder.
        chunk: its number.
        content: its files.
        said: its runs as the record has them.

    Raises:
        StudyError: if a snapshot is missing, damaged or of other arrays.
    """
    runs = study._planned.chunk(chunk).runs
    facts = [{key: v for key, v in said[run].items() if key != "chunk"} for run in runs]
    steps, metrics = numbers(content.metrics, len(runs))
    lane = lanes(content.episodes, runs)
    ends = content.episodes.column("step").to_numpy()
    columns = {name: content.episodes.column(name).to_numpy() for name in ("return", "length")}
    for i, fact in enumerate(facts):
        curves = {name: values[i] for name, values in metrics.items()}
        fact["digest"] = digest(steps, curves, _lane(content.params, i))
        mine = lane == i
        fact["episodes"] = digest(ends[mine], {}, {n: v[mine] for n, v in columns.items()})
        fact["snapshots"] = {}
    for step in study._snapshots(chunk):
        arrays = study._arrays(chunk, step)
        if _form(arrays) != _form(content.params):
            name = study._shelf.name("snapshots", chunk, step)
            raise StudyError(f"{name}: its arrays are not those of the final parameters")
        for i, fact in enumerate(facts):
            fact["snapshots"][str(step)] = digest(np.array([step]), {}, _lane(arrays, i))
    return facts


def _form(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[Any, ...]]:
    return {name: (array.dtype, array.shape) for name, array in arrays.items()}


def _lane(arrays: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: values[i] for name, values in arrays.items()}


def together(study: "Study", facts: list[dict[str, Any]]) -> str:
    """The SHA-256 of a finished study, from its plan and the facts of all of its runs."""
    rank = {name: i for i, name in enumerate(study.configs)}
    place = {seed: i for i, seed in enumerate(study.seeds)}
    return seal(
        {
            **{key: study.plan[key] for key in ASKED},
            "points": [
                {key: point[key] for key in ("name", "config", "hyper")}
                for point in study.plan["points"]
            ],
            "runs": sorted(facts, key=lambda run: (rank[run["config"]], place[run["seed"]])),
        }
    )


def study_digest(study: "Study") -> str:
    """The SHA-256 of a finished study, from all of its files; see ``Study.digest``."""
    facts = []
    for chunk, said in by_chunk(study).items():
        facts += run_facts(study, chunk, read_chunk(study, chunk), said)
    return together(study, facts)
