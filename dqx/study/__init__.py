"""Studies: configurations x seeds, one compiled program a group, safe against anything that stops.

>>> study = dqx.study.run("lr-and-target.toml")
>>> study.to_arrays("eval_return")  # [configs, seeds, steps]

`run` and `resume` train, `verify` trains a sample again and compares every bit, `load` reads.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqx.study.certify import Certificate, Check, verify
    from dqx.study.engine import StudyInterrupted, StudyWarning, resume, run
    from dqx.study.estimate import Estimate, dry_run
    from dqx.study.folder import StudyError
    from dqx.study.plan import Plan, Point, read_plan
    from dqx.study.results import Study, load
    from dqx.study.tally import Standing, StudyProgress

__all__ = [
    "Certificate",
    "Check",
    "Estimate",
    "Plan",
    "Point",
    "Standing",
    "Study",
    "StudyError",
    "StudyInterrupted",
    "StudyProgress",
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
    "engine": ("StudyInterrupted", "StudyWarning", "resume", "run"),
    "estimate": ("Estimate", "dry_run"),
    "folder": ("StudyError",),
    "plan": ("Plan", "Point", "read_plan"),
    "results": ("Study", "load"),
    "tally": ("Standing", "StudyProgress"),
    "certify": ("Certificate", "Check", "verify"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dqx.study' has no attribute {name!r}; see its __all__")
    value = getattr(importlib.import_module(f"dqx.study.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
