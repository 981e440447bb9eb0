"""Whether configurations of one environment play the same task: settings of it may differ."""

import contextlib
from collections.abc import Sequence

from dqx.report.findings import Group
from dqx.report.terminal import listed
from dqx.settings import Config, ConfigError, Hyper, environments, not_defaults, show
from dqx.study.results import Study


def _task(config: Config, hyper: Hyper) -> dict[str, str]:
    """What is set of the task that is played and is no default, as texts."""
    found = not_defaults(config, hyper)
    own = {name: text for name, text in found.items() if environments.is_own(name)}
    known = {}
    if own:
        with contextlib.suppress(ConfigError):  # of a module that is not imported here
            environments.check_loaded(config.env)
            known = environments.defaults(config)
    task = {name: text for name, text in own.items() if text != show(known.get(name))}
    return task | {name: found[name] for name in environments.OF_TASKS if name in found}


def told(group: Group, studies: Sequence[Study]) -> str | None:
    """Say what differs in the tasks that are played; None where they are the same."""
    tasks = [_task(*studies[case.study].point(case.name)) for case in group.cases]
    every = sorted({name for task in tasks for name in task})
    differ = [name for name in every if len({task.get(name) for task in tasks}) > 1]
    if not differ:
        return None
    return f"what is played differs in {listed(differ)}, so scores are of different tasks"
