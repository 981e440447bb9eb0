"""Studies: configurations x seeds, one compiled program a group, safe against anything that stops.

>>> study = dqx.study.run("lr-and-target.toml")
>>> study.to_arrays("eval_return")  # [configs, seeds, steps]

`run` and `resume` train, `verify` trains a sample again and compares every bit, `load` reads.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqx.run import StudyInterrupted, resume, run
    from dqx.study.certify import Certificate, Check, verify
    from dqx.study.estimate import Estimate, dry_run
    from dqx.study.executors.cluster import Ray
    from dqx.study.folder import StudyError
    from dqx.study.plan import Plan, read_plan
    from dqx.study.point import Point
    from dqx.study.results import Study, load
    from dqx.study.sinks import Progress, Row, Sink
    from dqx.study.store import StudyWarning

__all__ = [
    "Certificate",
    "Check",
    "Estimate",
    "Plan",
    "Point",
    "Progress",
    "Ray",
    "Row",
    "Sink",
    "Study",
    "StudyError",
    "StudyInterrupted",
    "StudyWarning",
    "dry_run",
    "load",
    "read_plan",
    "resume",
    "run",
    "verify",
]

# Loaded on first use: reading a study needs no JAX.
_HOMES = {
    "run": ("StudyInterrupted", "resume", "run"),
    "study.estimate": ("Estimate", "dry_run"),
    "study.executors.cluster": ("Ray",),
    "study.folder": ("StudyError",),
    "study.plan": ("Plan", "read_plan"),
    "study.point": ("Point",),
    "study.results": ("Study", "load"),
    "study.sinks": ("Progress", "Row", "Sink"),
    "study.store": ("StudyWarning",),
    "study.certify": ("Certificate", "Check", "verify"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dqx.study' has no attribute {name!r}; see its __all__")
    value = getattr(importlib.import_module(f"dqx.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
