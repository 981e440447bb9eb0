"""What the JSON files of studies and searches may hold: their forms, declared.

A seal tells damage, and anybody can seal anything. So a file is held against its form before
anything is made of it: which entries there are, of which types, in which ranges; see
`dqx.study.strict`.
"""

from dqx.study.strict import (
    anything,
    entries,
    flag,
    free_text,
    items,
    maybe,
    number,
    setting_value,
    table,
    text,
    whole,
)

# Configurations of a plan.
MAX_POINTS = 10_000

# --- The files of a study.

SHA256 = text("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")
LABEL = text(most=4_000, words="a text in one line of at most 4,000 characters")
SEED = whole(0, 2**32 - 1)
_NAME = text("[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}", "a name that a folder can have")
_STEP = "0|[1-9][0-9]{0,9}"
_FIELD = ".{1,200}"
_SETTINGS = entries(_FIELD, setting_value)
MARK = table({"bytes": whole(), "sha256": SHA256})
_MARKS = entries(_STEP, MARK, "a table whose names are steps")
_MADE = {
    "git_commit": maybe(text()), "git_modified": maybe(flag), "command": maybe(free_text),
    "created": text(),
}  # fmt: skip

_IDENTITY = entries(_FIELD, free_text)
PLAN = table(
    {
        "name": _NAME,
        "seeds": items(SEED, least=1),
        "root_seed": SEED,
        "snapshot_every": whole(0, 2**31 - 1),
        "points": items(
            table({"name": LABEL, "config": _SETTINGS, "hyper": _SETTINGS, "varied": _SETTINGS}),
            least=1,
            most=MAX_POINTS,
        ),
        "identity": _IDENTITY,
        "sha256": SHA256,
    },
    {**_MADE, "kinds": items(table({"identity": _IDENTITY, "points": items(LABEL)}), least=1)},
)
RUN = table(
    {
        "config": LABEL,
        "seed": SEED,
        "digest": SHA256,
        "diverged_at": whole(-1, 2**31 - 1),
        "score": maybe(number()),
    }
)
RECORD = table(
    {
        "plan_seal": SHA256,
        "chunk": whole(),
        "files": table({"metrics": MARK, "episodes": MARK, "params": MARK}),
        "snapshots": _MARKS,
        "runs": items(RUN, least=1),
    },
    {"machine": free_text},
)
FAILURE = table({"plan_seal": SHA256, "chunk": whole(), "error": free_text})
_PIECE = table(
    {"chunks": items(whole(), least=1), "rows": items(whole(), least=1), "bytes": whole(1),
     "sha256": SHA256}
)  # fmt: skip
_PIECES = table({"pieces": items(_PIECE, least=1), "end": MARK})
_MEMBERS = items(
    table(
        {"chunk": whole(), "offset": whole(), "bytes": whole(), "sha256": SHA256},
        {"step": whole(0, 2**31 - 1)},
    )
)
BUNDLE = table(
    {
        "plan_seal": SHA256,
        "bundle": whole(),
        "chunks": items(whole(), least=1),
        "machines": items(free_text),
        "counts": items(whole(1), least=1),
        "configs": items(LABEL, least=1),
        "runs": table(
            {
                "config": items(whole()),
                "seed": items(SEED),
                "digest": items(SHA256),
                "diverged_at": items(whole(-1, 2**31 - 1)),
                "score": items(maybe(number())),
            }
        ),
        "metrics": _PIECES,
        "episodes": _PIECES,
        "params": _MEMBERS,
        "snapshots": _MEMBERS,
        "files": table({"metrics": MARK, "episodes": MARK, "params": MARK}, {"snapshots": MARK}),
    }
)
BUNDLE_COPY = table(
    {"record": BUNDLE, "ends": table({"metrics": free_text, "episodes": free_text})}
)
CHECKPOINT = table(
    {"plan_seal": SHA256, "chunk": whole(), "step": whole(0, 2**31 - 1), "arrays": MARK,
     "snapshots": _MARKS}
)  # fmt: skip
MANIFEST = table(
    {"plan_seal": SHA256},
    {
        **_MADE,
        "steps": maybe(whole()),
        "steps_per_second": maybe(number(0)),
        "compile_seconds": number(0),
        "run_seconds": number(0),
        "checkpoint_seconds": number(0),
        "devices": items(free_text),
        "peak_memory_bytes": maybe(number(0)),
        "peak_device_memory_bytes": anything,
        "finished": text(),
        "config": _SETTINGS,
        "hyper": _SETTINGS,
        "digest": SHA256,
    },
)
CERTIFICATE = table(
    {
        "plan_seal": maybe(SHA256),
        "verdict": text(),
        "checked": whole(),
        "runs": whole(),
        "differences": items(free_text),
        "statistics": free_text,
        "checks": items(
            table(
                {"config": text(), "seed": SEED, "stored": text(), "found": text(),
                 "verdict": text(), "detail": free_text},
                {"trained_kind": whole(), "again_kind": whole()},
            )
        ),
        "written": text(),
    },
    {
        "kinds": items(_IDENTITY),
        "problems": items(free_text), "planned": whole(), "digest": maybe(text()),
        "expected": maybe(text()), "elsewhere": whole(),
    },
)  # fmt: skip
PROGRESS = table(
    {
        "steps": whole(), "total_steps": whole(1), "steps_per_second": maybe(number(0)),
        "seconds_left": maybe(number(0, 8e13)), "time": number(0),
    }
)  # fmt: skip
# What names of Weights & Biases' runs are kept in.
TRACKED = entries(".{1,5000}", text("[0-9a-f]{12}"))

# --- The files of a search.

_JUDGED = table(
    {"seeds": whole(), **dict.fromkeys(("value", "low", "high", "mean", "least", "most"),
                                       maybe(number())), "diverged": whole()}
)  # fmt: skip
_SCORES = items(maybe(number()))
_PLACES = "generation-[0-9]{2,4}/seeds-[0-9]{1,7}|fresh"
_SPACE = entries(
    _FIELD, entries("log_uniform|uniform|choice", items(setting_value, most=MAX_POINTS))
)
SEARCH = table(
    {
        "search": table(
            {"name": _NAME, "base": _SETTINGS, "tune": table({"space": _SPACE}), "proposer": text()}
        ),
        "search_seal": SHA256,
    },
    _MADE,
)
CANDIDATES = table({"search_seal": SHA256, "generation": whole(), "candidates": items(_SETTINGS)})
RESULT = table(
    {
        "search_seal": SHA256,
        "candidates": items(
            table(
                {
                    "number": whole(),
                    "generation": whole(),
                    "values": _SETTINGS,
                    "state": text("racing|finished|dropped|repeated|refused", "a known state"),
                    "scores": _SCORES,
                    "history": items(_JUDGED),
                    "dropped": maybe(
                        table({"rule": text("interval|share", "a rule"), "bar": maybe(number())})
                    ),
                    "same_as": maybe(whole()),
                    "why": text(),
                }
            ),
            least=1,
        ),
        "winner": whole(),
        "score": _JUDGED,
        "fresh_scores": _SCORES,
        "optimism": table(dict.fromkeys(("value", "low", "high"), maybe(number()))),
        "studies": items(
            table({"place": text(_PLACES, "the place of a study"), "runs": whole(),
                   "digest": SHA256}),
            least=1,
        ),
    }
)  # fmt: skip
