"""How scripts keep what they have trained: small Parquet files, facts beside the table."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

import dqx
from dqx.files import whole_file
from dqx.settings import ConfigError, not_defaults

MOST_POINTS = 25  # of a curve


def settings_of(config: dqx.Config, hyper: dqx.Hyper) -> dict[str, str]:
    """The settings that are no defaults; the width of a chunk is the machine's choice."""
    found: dict[str, str] = not_defaults(dataclasses.replace(config, chunk_width=None), hyper)
    return found


def write_table(path: Path, columns: Mapping[str, Any], kind: str, facts: dict[str, Any]) -> None:
    """Writes columns and facts, whole or not at all; ``kind`` tells whose file it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(dict(columns)).replace_schema_metadata({kind: json.dumps(facts)})
    with whole_file(path) as file:
        pyarrow.parquet.write_table(table, file, compression="zstd", compression_level=19)


def read_table(path: Path, kind: str, what: str) -> tuple[pyarrow.Table, dict[str, Any]]:
    """The columns and facts that `write_table` wrote.

    Raises:
        ConfigError: if the file is of no such kind, ``what`` it ought to be.
    """
    table = pyarrow.parquet.read_table(path)
    facts = json.loads((table.schema.metadata or {}).get(kind.encode(), b"null"))
    if facts is None:
        raise ConfigError(f"{path} {what}: move it away")
    return table, facts
