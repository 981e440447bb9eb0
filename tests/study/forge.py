"""Studies that are sealed and wrong: files changed after the fact, and sealed again."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from dqx.report import cases
from dqx.study import load
from dqx.study.folder import Folder
from dqx.study.sealed import write_sealed

DEFLATED = zipfile.ZIP_DEFLATED


class Forge:
    """Changes the files of a study's folder and seals what hangs on them.

    Args:
        path: of the folder, whose chunk 0 is finished.
    """

    def __init__(self, path):
        self.folder = Folder(path)

    def json(self, path, change):
        """Lets ``change`` alter the content of a sealed file, or give another."""
        path = Path(path)
        content = json.loads(path.read_text())
        content.pop("sha256", None)
        content = given if (given := change(content)) is not None else content
        if not isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            write_sealed(path, content)

    def plan(self, change):
        """Alters both copies of the plan, and lets all records be of it."""
        for path in (self.folder.plan, self.folder.plan_copy):
            if path.exists():
                self.json(path, change)
        mark = json.loads(self.folder.plan.read_text()).get("sha256")
        for path in self.folder.records():
            self.json(path, lambda record: record.update(plan_seal=mark))

    def record(self, change):
        self.json(self.folder.record(0), change)

    def part(self, kind, change):
        """Puts other bytes, which ``change(bytes)`` gives, in the place of a data file."""
        path = self.folder.part(kind, 0)
        path.write_bytes(change(path.read_bytes()))
        content = path.read_bytes()
        mark = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.record(lambda record: record["files"].update({kind: mark}))

    def table(self, kind, change, **options):
        """Puts another table, which ``change(table)`` gives, in the place of one."""

        def changed(content):
            table = change(pyarrow.parquet.read_table(pyarrow.BufferReader(content)))
            sink = io.BytesIO()
            pyarrow.parquet.write_table(table, sink, **options)
            return sink.getvalue()

        self.part(kind, changed)

    def arrays(self, change, save=np.savez):
        """Lets ``change(arrays)`` alter the parameters."""

        def changed(content):
            arrays = dict(np.load(io.BytesIO(content)))
            change(arrays)
            sink = io.BytesIO()
            save(sink, **arrays)
            return sink.getvalue()

        self.part("params", changed)


def archive(members, compression=zipfile.ZIP_STORED):
    """A zip archive of these members."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return sink.getvalue()


def header(shape, dtype="'<f4'", version=1):
    """The head of an array of NumPy's format, whatever it says."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text


def read_all(path):
    """What the commands read of a study, as they do."""
    found = load(path)
    found.metrics, found.episodes  # noqa: B018
    cases.read([found])
    found.params("a", found.seeds[0])
