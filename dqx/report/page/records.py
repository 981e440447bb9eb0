"""What a study says of itself: how far it is, what ran on what, its settings, its certificate."""

from typing import Any

from dqx.report.terminal import clock, counted, size
from dqx.settings import show
from dqx.study import forms
from dqx.study.finish import read_progress
from dqx.study.folder import Folder, StudyError
from dqx.study.lock import holder
from dqx.study.results import Study
from dqx.study.sealed import read_sealed

_MAX_CONFIGS = 64  # of the table of settings
_MAX_CHECKS = 200  # of the certificate's table


def study(found: Study, title: str) -> dict[str, Any]:
    """One study's part of the page."""
    return {
        "title": title,
        "state": state(found),
        "finished": found.finished,
        "ran": _ran(found),
        "settings": _settings(found),
        "certificate": _certificate(found),
    }


def state(found: Study) -> str:
    """How far a study is, in a sentence."""
    total, done = len(found.configs) * len(found.seeds), len(found.runs)
    if found.finished:
        return f"Finished: {counted(done, 'run')}."
    words = f"{done:,} of {total:,} runs are finished"
    working = holder(found.path)
    if working is None:
        return f"{words}; nobody works on it: dqx study resume {found.path} goes on."
    progress = read_progress(Folder(found.path))
    rate, left = progress.get("steps_per_second"), progress.get("seconds_left")
    steps, all_steps = progress.get("steps"), progress.get("total_steps")
    if isinstance(steps, int) and isinstance(all_steps, int) and all_steps > 0:
        words += f"; {100 * steps // all_steps} % of all steps"
    if isinstance(rate, int | float):
        words += f", {rate:,.0f} steps/s"
    if isinstance(left, int | float):
        words += f", about {clock(left)} left"
    return f"Still running: {words}."


def _ran(found: Study) -> list[tuple[str, str]]:
    """What ran, when and on what: names and texts."""
    facts = found.manifest
    identity = found.plan["identity"]
    rows: list[tuple[str, Any]] = [
        ("command", facts.get("command")),
        ("begun", facts.get("created")),
        ("finished", facts.get("finished")),
        ("configurations x seeds", f"{len(found.configs):,} x {len(found.seeds):,}"),
        ("seeds", _seeds(found.seeds)),
        ("root seed", found.plan["root_seed"]),
        ("environment steps", _count(facts.get("steps"))),
        ("speed", _count(facts.get("steps_per_second"), " steps/s")),
        ("time to run", _seconds(facts.get("run_seconds"))),
        ("time to compile", _seconds(facts.get("compile_seconds"))),
        ("peak memory", _bytes(facts.get("peak_memory_bytes"))),
        ("places", ", ".join(facts.get("devices") or [])),
        ("commit", _commit(facts)),
        *identity.items(),
        ("seal of the plan", found.plan["sha256"]),
        ("folder", str(found.path)),
    ]
    return [(name.replace("_", " "), str(text)) for name, text in rows if text not in (None, "")]


def _seeds(seeds: tuple[int, ...]) -> str:
    rising = seeds == tuple(range(seeds[0], seeds[0] + len(seeds)))
    if rising and len(seeds) > 2:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:20])) + (", ..." if len(seeds) > 20 else "")


def _count(value: Any, unit: str = "") -> str | None:
    return f"{value:,.0f}{unit}" if isinstance(value, int | float) else None


def _seconds(value: Any) -> str | None:
    return f"{value:,.1f} s" if isinstance(value, int | float) else None


def _bytes(value: Any) -> str | None:
    return size(value) if isinstance(value, int | float) else None


def _commit(facts: dict[str, Any]) -> str | None:
    commit = facts.get("git_commit")
    return f"{commit}, changed since" if commit and facts.get("git_modified") else commit


def _settings(found: Study) -> dict[str, Any]:
    """Every setting of every configuration; those that are the same in all, once."""
    points = found.plan["points"][:_MAX_CONFIGS]
    rows = [{**point["config"], **point["hyper"]} for point in points]
    names = dict.fromkeys(name for row in rows for name in row)
    table = []
    for name in names:
        values = [_value(row.get(name)) for row in rows]
        table.append((name, values[:1] if len(set(values)) == 1 else values))
    return {
        "configs": [point["name"] for point in points],
        "more": len(found.plan["points"]) - len(points),
        "table": table,
    }


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_value(part)}" for name, part in value.items())
    if isinstance(value, list) and any(isinstance(part, list | dict) for part in value):
        return ", ".join(map(_value, value))
    return show(value)


def _certificate(found: Study) -> dict[str, Any]:
    """What `dqx verify` has found, or that nobody has asked it."""
    path = Folder(found.path).certificate
    how = f"dqx verify {found.path}"
    if not path.exists():
        return {"words": f"Not verified yet: {how} trains runs again and compares every bit."}
    try:
        record = read_sealed(path, forms.CERTIFICATE)
    except StudyError as error:
        return {"words": f"{error}; {how} writes a new one."}
    if record["plan_seal"] != found.plan["sha256"]:
        return {"words": f"The certificate is of another study: {how} writes one of this."}
    checks = record["checks"]
    return {
        "verdict": record["verdict"],
        "words": f"{record['checked']:,} of {counted(record['runs'], 'run')} were trained again, "
        f"each alone, and every bit compared ({record['written']}). {record['statistics']}".strip(),
        "differences": [*record.get("problems", ()), *record["differences"]],
        "checks": [
            (c["config"], c["seed"], c["stored"][:12], c["found"][:12], c["verdict"], c["detail"])
            for c in checks[:_MAX_CHECKS]
        ],
    }
