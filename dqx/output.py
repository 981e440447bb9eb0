"""A run's folder: what is in it, how it is written, and how it is read back.

    manifest.json            everything needed to repeat the run
    metrics/part-0.parquet   columns config, seed, step, then one a metric
    episodes/part-0.parquet  columns config, seed, step, return, length
    params/part-0.npz        the final parameters, leading axis S
    learning_curve.png

``pandas.read_parquet("runs/cartpole/metrics")`` reads the metrics; `load_params` and
`read_manifest` the rest. Nothing is pickled.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqx.digest import flatten, nested
from dqx.files import OutputError, Staging, whole_file

if TYPE_CHECKING:
    import pandas

    from dqx.run import TrainResult

MANIFEST = "manifest.json"
# Whose versions a result depends on.
PACKAGES = ("jax", "jaxlib", "dqx", "flax", "optax", "gymnax", "numpy")


class RunFolder(Staging):
    """A run's folder under way; it remembers when the run started and from which code.

    Attributes:
        started: time in UTC.
        code: ``git_commit`` and ``git_modified`` of the checkout that dqx was imported from.
    """

    def __init__(self, out: str | os.PathLike[str], overwrite: bool) -> None:
        self.started, self.code = _now(), checkout()
        super().__init__(Path(out), lambda target: _replaces(target, overwrite))


def prepare(out: str | os.PathLike[str], overwrite: bool = False) -> RunFolder:
    """Opens a new run's folder, so that a folder that cannot be written is known before training.

    >>> with output.prepare("runs/mine") as folder:
    ...     result = dqx.train(config, hyper, seeds=8)
    ...     output.write_run(result, folder, label="mine")

    Args:
        out: the folder; it may exist if it is empty.
        overwrite: replace an older run of dqx; nothing else is ever replaced.

    Returns:
        A context manager; what is not complete at its end is removed.

    Raises:
        OutputError: if the folder exists, is a file, or cannot be written, or if the disk is nearly
            full.
    """
    return RunFolder(out, overwrite)


def write_run(
    result: "TrainResult", folder: RunFolder, *, label: str, command: str | None = None
) -> None:
    """Writes a whole run and puts its folder in place.

    Args:
        result: of ``dqx.train``.
        folder: of `prepare`.
        label: the run's name, such as that of its preset: the column config.
        command: the command line that made it, for the manifest.

    Raises:
        OutputError: if anything cannot be written; an older folder is then left as it was.
    """
    where = folder.folder
    try:
        write_metrics(where / "metrics", label, result.seeds, result.metrics)
        write_episodes(where / "episodes", label, result.episodes)
        write_params(where / "params", result.seeds, result.params)
        draw_learning_curve(where / "learning_curve.png", label, result)
        write_manifest(where, {"label": label, "command": command, **_record(result, folder)})
        folder.commit()
    except OSError as error:
        raise OutputError(f"cannot write {folder.target}: {error.strerror or error}") from error


def write_metrics(
    folder: Path, label: str, seeds: np.ndarray, metrics: Mapping[str, np.ndarray], part: int = 0
) -> None:
    """Writes one row a seed and step: config, seed and step int64, then every metric as float32.

    Args:
        folder: made if it is missing.
        label: the column config.
        seeds: int64 ``[S]``.
        metrics: ``"step"`` ``[K]``, and for every other name ``[S, K]``.
        part: number of the file in the folder.
    """
    steps = metrics["step"]
    columns: dict[str, np.ndarray] = {
        "seed": np.repeat(seeds, len(steps)).astype(np.int64),
        "step": np.tile(steps, len(seeds)).astype(np.int64),
    }
    for name, values in metrics.items():
        if name != "step":
            columns[name] = np.asarray(values, np.float32).reshape(len(seeds) * len(steps))
    _write_labelled(folder / f"part-{part}.parquet", label, columns)


def write_episodes(folder: Path, label: str, episodes: "pandas.DataFrame", part: int = 0) -> None:
    """Writes one row a finished episode: config, seed, step, return (float32) and length (int64).

    Args:
        folder: made if it is missing.
        label: the column config.
        episodes: columns seed, step, return, length.
        part: number of the file in the folder.
    """
    types = {"seed": np.int64, "step": np.int64, "return": np.float32, "length": np.int64}
    columns = {name: episodes[name].to_numpy(dtype=kind) for name, kind in types.items()}
    _write_labelled(folder / f"part-{part}.parquet", label, columns)


def write_params(folder: Path, seeds: np.ndarray, params: Mapping[str, Any], part: int = 0) -> None:
    """Writes parameters as arrays named by their path, such as ``params/Dense_0/kernel``.

    Args:
        folder: made if it is missing.
        seeds: int64 ``[S]``, written under the name ``seeds``.
        params: nested dictionaries of arrays with leading axis S.
        part: number of the file in the folder.

    Raises:
        ValueError: for a name with a slash, or an array that NumPy's format cannot hold.
    """
    arrays = flatten(params)
    if "seeds" in arrays:
        raise ValueError("a parameter is named 'seeds', which is the name of the seed numbers")
    folder.mkdir(exist_ok=True)
    with whole_file(folder / f"part-{part}.npz") as file:
        np.savez(file, allow_pickle=False, seeds=np.asarray(seeds, np.int64), **arrays)


def load_params(folder: str | os.PathLike[str], part: int = 0) -> dict[str, Any]:
    """Reads what `write_params` wrote: nested dictionaries of arrays with leading axis S.

    The order of the seeds is that of ``seeds`` in the manifest.

    Args:
        folder: such as ``runs/cartpole/params``.
        part: number of the file in the folder.

    Raises:
        OutputError: if there is no such file.
    """
    path = Path(folder) / f"part-{part}.npz"
    if not path.is_file():
        raise OutputError(f"{path} does not exist: give the folder params of a finished run")
    with np.load(path, allow_pickle=False) as arrays:
        return nested({name: arrays[name] for name in arrays.files if name != "seeds"})


def write_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes ``manifest.json`` as strict JSON; numbers that are not finite become texts."""
    text = json.dumps(_strict(record), indent=2, allow_nan=False, ensure_ascii=False)
    with whole_file(folder / MANIFEST) as file:
        file.write(text.encode() + b"\n")


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the manifest of a run's folder.

    Raises:
        OutputError: if there is none, or it is not one of dqx.
    """
    path = Path(folder) / MANIFEST
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["versions"]["dqx"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is no manifest of a dqx run ({error})") from None
    return record


def draw_learning_curve(path: Path, label: str, result: "TrainResult") -> None:
    """Draws the greedy return, else that of training; nothing where no value is finite."""
    from dqx import plots  # here, because it is only needed at the end

    if result.config.eval_period:
        values, ylabel = result.metrics["eval_return"], plots.RETURN_LABEL
    else:
        values = result.metrics["episode_return"]
        ylabel = "return of training episodes (sum of rewards an episode; no evaluation)"
    if np.isfinite(values).any():
        title = f"{label}: {result.config.env}"
        plots.learning_curve(
            result.metrics["step"],
            values,
            path=path,
            title=title,
            ylabel=ylabel,
            diverged_at=result.diverged_at,
        )


def _replaces(target: Path, overwrite: bool) -> bool:
    """Whether there is an old run to replace; raises if anything else is there."""
    if not os.path.lexists(target):
        return False
    if not target.is_dir():
        raise OutputError(f"{target} is a file: choose another folder")
    try:
        if not any(target.iterdir()):
            return False
    except OSError as error:
        raise OutputError(f"cannot read {target}: {error.strerror}; choose another") from None
    if not overwrite:
        raise OutputError(f"{target} exists: choose another folder, or --overwrite to replace it")
    try:
        read_manifest(target)
    except OutputError:
        raise OutputError(
            f"{target} is not replaced, because it holds no {MANIFEST} of a dqx run: "
            "choose another folder"
        ) from None
    return True


def _record(result: "TrainResult", folder: RunFolder) -> dict[str, Any]:
    config = dataclasses.asdict(result.config)
    hyper = {f.name: float(getattr(result.hyper, f.name)) for f in dataclasses.fields(result.hyper)}
    return {
        "config": config,
        "hyper": hyper,
        "seeds": result.seeds.tolist(),
        "diverged_at": result.diverged_at.tolist(),
        "digests": list(result.digests),
        "chunk_width": result.config.chunk_width,
        "root_seed": result.root_seed,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        **folder.code,
        "device_kind": result.device_kind,
        "devices": list(result.devices),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "started": folder.started.isoformat(timespec="milliseconds"),
        "ended": _now().isoformat(timespec="milliseconds"),
        "compile_seconds": result.compile_seconds,
        "run_seconds": result.run_seconds,
        "peak_memory_bytes": _peak_bytes(),
        "peak_device_memory_bytes": _peak_device_bytes(result.devices),
    }


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def checkout() -> dict[str, Any]:
    """The commit dqx was imported from, and whether tracked files differ; None without one."""
    root = Path(__file__).resolve().parent.parent
    # Set in hooks of git, these would point to another repository.
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(root), *arguments]
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A folder of installed packages may lie inside some checkout that is not dqx's.
    commit = git("rev-parse", "--verify", "HEAD") if (root / ".git").exists() else None
    status = git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit, "git_modified": None if status is None else bool(status)}


def _peak_bytes() -> int | None:
    """The most memory that this process has had resident; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _peak_device_bytes(names: tuple[str, ...]) -> int | None:
    """The sum of the devices' peaks; None for CPUs, whose memory is the process's."""
    if "jax" not in sys.modules:  # a result that was not trained in this process
        return None
    import jax

    devices = [device for device in jax.local_devices() if str(device) in names]
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) if known else None


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_table(file: Any, columns: Mapping[str, Any]) -> None:
    """Writes columns of equal length, NumPy's or Arrow's, as Parquet to an open file."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), file)


def _write_labelled(path: Path, label: str, columns: Mapping[str, np.ndarray]) -> None:
    import pyarrow

    config: pyarrow.Array = pyarrow.repeat(
        pyarrow.scalar(label, pyarrow.string()), len(columns["seed"])
    )
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as file:
        write_table(file, {"config": config, **columns})
