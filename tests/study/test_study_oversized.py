"""Plans and searches whose numbers are too large, or nested too deeply: one clear line, at once."""

import itertools
import math

import pytest

from dqx.settings import Config, ConfigError, Hyper, brief, check_seeds, override, validate
from dqx.settings.environments import resolved
from dqx.settings.single import is_number
from dqx.study import StudyError, read_plan
from dqx.study.plan import MAX_FILE_BYTES
from dqx.study.tuning.file import read_tune

HUGE = 10**400  # no float
DIGITS = "9" * 5000  # more than Python reads or writes
RANGE = "learning_rate = {log_uniform = [1e-5, 1e-2]}"
SEARCH = f"[base]\npreset = 'cartpole'\n[tune.space]\n{RANGE}\n[tune]\n"


def nested(depth, brackets="[]"):
    return brackets[0] * depth + brackets[1] * depth


PLANS = {
    "deep list": (f"seeds = {nested(3000)}", r"nested too deeply for a plan"),
    "deep table": (f"[base]\nenv = {'{a = ' * 3000}1{'}' * 3000}", "nested too deeply for a plan"),
    "less deep list": (f"[base]\ngamma = {nested(150)}", r"gamma must be a number, got \[\[\["),
    "less deep table": (f"[base]\nenv.x = {'{a=' * 150}1{'}' * 150}", "env.x is drawn by uniform"),
    "digits": (f"seeds = {DIGITS}", r"is no TOML: Exceeds the limit"),
    "hex": (f"[base]\nbatch_size = 0x{'f' * 6000}", "batch_size must be below 2.* about 7,2.. dig"),
    "hex float": (f"[base]\ngamma = 0x{'f' * 6000}", "gamma must be a number, got a whole number"),
    "env": (f"[base]\nenv.gravity = {HUGE}", "env.gravity must be a finite number, got a whole"),
    "env nan": ("[base]\nenv.gravity = nan", "env.gravity must be a finite number, got nan"),
    "env draw": (f"[base]\nenv.gravity = {{uniform = [1, {HUGE}]}}", "env.gravity is drawn by"),
    "draw": (f"[search]\ndraws = 2\ngamma = {{uniform = [0, {HUGE}]}}", "uniform of gamma takes"),
    "draw whole": (
        f"[search]\ndraws = 2\nbatch_size = {{log_uniform = [1, {HUGE}]}}",
        "log_uniform of batch_size takes two rising positive numbers",
    ),
    "draws": (f"[search]\ndraws = {HUGE}\ngamma = {{uniform = [0, 1]}}", "draws must be a whole"),
    "seeds": (f"seeds = {HUGE}", "more than 1,000,000"),
    "seeds text": ("seeds = '0:9999999999'", "more than 1,000,000"),
    "root_seed": (f"root_seed = {HUGE}", "root_seed must be a whole number from 0 to"),
    "snapshots": (f"snapshot_every = {HUGE}", "snapshot_every must be a whole number"),
    "rows": (
        "[base]\ntotal_steps = 2147483647\nlog_period = 1\ntrain_period = 1\neval_period = 0",
        "log_period 1 makes 2,147,483,647 rows of metrics",
    ),
    "name": (f"name = '{'x' * 10**6}'", r"name must be letters.*got 'xxx.*\.\.\."),
    "case": (f"[[case]]\nname = '{'x' * 10**6}'", "at most 4,000 characters"),
    "date": ("[base]\ngamma = 2020-01-01", "gamma must be a number, got datetime.date"),
}
TUNES = {
    "fresh": (f"fresh_seeds = {HUGE}", "fresh_seeds: seeds are more than 1,000,000"),
    "rungs": (f"rungs = [2, {HUGE}]", "seeds: seeds = a whole number .* more than 1,000,000"),
    "keep": (f"keep = {HUGE}", "keep must be above 0"),
    "level": ("level = nan", "level must be above 0"),
    "seed": (f"seed = 0x{'f' * 6000}", "seed must be a whole number from 0 to"),
}


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        *[pytest.param(read_plan, *case, id=name) for name, case in PLANS.items()],
        *[pytest.param(read_tune, SEARCH + text, words, id=f"tune {name}")
          for name, (text, words) in TUNES.items()],
    ],
)  # fmt: skip
def test_a_file_that_asks_for_too_much_is_told_in_a_line(tmp_path, read, text, words):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises((StudyError, ConfigError), match=words) as caught:
        read(tmp_path / "a.toml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_file_that_never_ends_is_not_read_to_its_end():
    with pytest.raises(StudyError, match=f"larger than {MAX_FILE_BYTES // 2**20} MiB"):
        read_plan("/dev/zero")


@pytest.mark.parametrize("seeds", [itertools.count(), range(10**12), [*range(1_000_001)]])
def test_seeds_without_end_are_refused(seeds):
    with pytest.raises(ConfigError, match="seeds are more than 1,000,000"):
        check_seeds(seeds)


def test_numbers_that_no_float_holds():
    assert [is_number(x) for x in (0, -1.5, 2**1023)] == [True] * 3
    assert not any(map(is_number, (HUGE, -HUGE, math.inf, math.nan, True, "1", None, [1])))
    for value in (HUGE, math.inf, "x", True):
        with pytest.raises(ConfigError, match=r"env\.gravity must be a finite number, got"):
            resolved(*override(Config(), Hyper(), env={"gravity": value}))
    for name in ("learning_rate", "total_steps", "initial_q"):
        with pytest.raises(ConfigError, match="about 401 digits"):
            validate(*override(Config(), Hyper(), **{name: HUGE}))


def test_a_message_shows_little_of_a_large_value():
    deep, twin = [], []
    for _ in range(10_000):
        deep = [deep]
    assert brief(deep) == "[[[[...]]]]"
    assert brief([1, 0.5, "a", None]) == "[1, 0.5, 'a', None]" and brief("é") == "'é'"
    assert brief(10**39) == str(10**39) and brief(-(10**41)).endswith("about 42 digits")
    assert all(len(brief(value)) < 200 for value in ("x" * 10**6, [0] * 10**6, 1 << 10**6))
    twin.append(twin)
    assert len(brief(twin)) < 200
