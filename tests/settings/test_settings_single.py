"""Ranges hold for the float32 number that programs use, whatever was written."""

import math

import numpy as np
import pytest

from dqx.settings import Config, ConfigError, Hyper, environments, override, validate
from dqx.settings.field import Setting
from dqx.settings.single import LARGEST, LEAST, single
from dqx.study import read_plan


def test_a_number_is_what_numpy_makes_of_it():
    rng = np.random.default_rng(0)
    numbers = [*(rng.normal(size=500) * 10.0 ** rng.integers(-60, 60, 500)), 0.0, -0.0, 0.1, 1e39,
               3.4028235677973366e38, 3.402823466385289e38, 1e-46, 7e-46, 1e-40, -1e-40, math.inf,
               -math.inf, 1 - 1e-9]  # fmt: skip
    with np.errstate(over="ignore", under="ignore"):
        for number in numbers:
            expected = np.float32(number)
            assert np.float32(single(number)).tobytes() == expected.tobytes(), number
    assert math.isnan(single(math.nan))
    info = np.finfo(np.float32)
    assert (float(info.smallest_normal), float(info.max)) == (LEAST, LARGEST)


@pytest.mark.parametrize("value", [1e-46, 1e-40, 1.1e-38, 1e39, 1e300])
def test_what_float32_cannot_hold_is_refused(value):
    for name in ("learning_rate", "reward_scale", "epsilon_steps"):
        kind = "large" if value > 1 else "small"
        with pytest.raises(ConfigError, match=rf"^{name} = .* is too {kind} for float32.*1.2e-38"):
            validate(*override(Config(), Hyper(), **{name: value}))
    with pytest.raises(ConfigError, match=r"^env.gravity = .* float32"):
        environments.resolved(*override(Config(), Hyper(), env={"gravity": value}))
    with pytest.raises(ConfigError, match=r"^env.gravity = .* float32"):
        draw = {"uniform": [-value, value]}
        environments.resolved(*override(Config(), Hyper(), env={"gravity": draw}))


def test_limits_are_met_by_the_value_that_is_used():
    """0.1 as float32 is above 0.1, and still the limit itself; 1 - 1e-9 is 1."""
    closed = Setting("x", float, 0.1, "", low=0.0, high=0.1)
    assert closed.check(0.1) == 0.1 and closed.check(0.0) == 0.0
    with pytest.raises(ConfigError, match="between 0 and 0.1, got 0.1001"):
        closed.check(0.1001)
    open_below = Setting("x", float, 1.0, "", above=0.999999999)
    with pytest.raises(ConfigError, match="greater than"):
        open_below.check(0.9999999999)
    endless = Setting("x", float, 1.0, "", above=0.0, infinite=True)
    assert endless.check(math.inf) == math.inf
    with pytest.raises(ConfigError, match="too large for float32"):
        endless.check(1e39)


def test_annealing_and_plans_are_checked_too():
    ends = {"annealed": ("learning_rate",), "learning_rate": 1e-3, "anneal_scale": 1e-37}
    with pytest.raises(ConfigError, match=r"at the end learning_rate = 1e-40 is too small"):
        validate(*override(Config(), Hyper(), **ends))
    with pytest.raises(ConfigError, match=r"learning_rate=1e-50.* too small"):
        read_plan({"grid": {"learning_rate": [1e-3, 1e-50]}})
