"""What children of the server do. Nothing that starts JAX's backend is imported at the top."""

import os
from pathlib import Path

# The status of a process that died at its moment; no command ends with it.
DIED = 77


def die(scenario, out, moment):
    """Does what a scenario says, and dies at a moment, as ``kill -9`` ends a process."""
    from dqx.compute import cache
    from tests.hostile.moments import Death
    from tests.hostile.studies import SCENARIOS

    cache.enable()
    with Death(moment, leave=lambda: os._exit(DIED)):
        SCENARIOS[scenario].act(Path(out))


def train_in(out):
    """Starts a study where there may be no room; None, or the refusal in words."""
    from dqx import files
    from dqx.compute import cache
    from dqx.study import StudyError
    from tests.hostile import studies

    cache.enable()
    files.MIN_FREE_BYTES = 0  # which would refuse it at once, and is tested elsewhere
    try:
        studies.start(Path(out))
    except (StudyError, files.OutputError) as error:
        return str(error)
    return None


def visit(study, commands, home, plain=False):
    """Lets the command work on a folder; of every command its status, its lines and its time.

    Args:
        study: the folder.
        commands: lists of arguments.
        home: a folder to be in.
        plain: whether permissions shall hold, which they do not for root.
    """
    import time
    import traceback

    from tests.study.kit import call

    os.chdir(home)
    if plain and os.geteuid() == 0:
        _obey_permissions()
    found = []
    for arguments in [["read"], *commands]:
        started, used = time.monotonic(), time.process_time()
        try:
            if arguments == ["read"]:
                status, lines = 0, _read(study)
            else:
                status, out, err = call(*arguments)
                lines = [*out, *err]
        except BaseException as error:
            status = None
            lines = [f"{type(error).__name__}: {error}", *traceback.format_exc().splitlines()[-6:]]
        entry = {"command": arguments, "status": status, "lines": [line[:2000] for line in lines]}
        entry["seconds"] = time.monotonic() - started
        found.append({**entry, "cpu_seconds": time.process_time() - used})
    return found


def _read(path):
    """Reads all that a study has; what is refused, in words."""
    from dqx.study import StudyError, load

    refused = []

    def attempt(read):
        try:
            return read()
        except StudyError as error:
            refused.append(f"dqx: error: {error}")

    study = attempt(lambda: load(path))
    if study is None:
        return refused
    attempt(lambda: study.manifest)
    if study.runs:
        attempt(lambda: study.metrics)
        attempt(lambda: study.episodes)
        attempt(lambda: study.to_arrays("eval_return"))
    for run in study.runs:
        attempt(lambda run=run: study.params(run["config"], run["seed"]))
        attempt(lambda run=run: study.params(run["config"], run["seed"], 176))
        attempt(lambda run=run: study.point(run["config"]))
    attempt(study.scores)
    return refused


def _obey_permissions():
    """Gives up root's rights to read and write what nobody may: CAP_DAC_OVERRIDE and its like."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
    rights = ctypes.create_string_buffer(24)
    assert libc.capget(header, rights) == 0
    effective, permitted, *rest = struct.unpack("<6I", rights.raw)
    override, search = 1 << 1, 1 << 2
    kept = ~(override | search) & 0xFFFFFFFF
    rights = struct.pack("<6I", effective & kept, permitted & kept, *rest)
    assert libc.capset(header, ctypes.create_string_buffer(rights)) == 0, ctypes.get_errno()
