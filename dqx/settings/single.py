"""Numbers as programs use them: in float32."""

import math
import struct
from typing import Any

from dqx.settings.errors import ConfigError

# Below the least normal number processors may take a number for 0, or not.
LEAST, LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold, as not all whole numbers are."""
    try:
        is_real = isinstance(value, int | float) and not isinstance(value, bool)
        return is_real and math.isfinite(value)
    except OverflowError:
        return False


def single(number: float) -> float:
    """The float32 number that is nearest to a number; infinite where it is too large."""
    if not math.isfinite(number):
        return float(number)
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return math.copysign(math.inf, number)
    return float(rounded)


def check_single(name: str, number: float) -> None:
    """Refuses what float32 turns into 0 or infinity, or holds with fewer digits only.

    Raises:
        ConfigError: naming the setting and the sizes that there are.
    """
    size = abs(single(number))
    if math.isfinite(number) and number != 0 and not LEAST <= size <= LARGEST:
        kind = "large" if size > 1 else "small"
        raise ConfigError(
            f"{name} = {number:g} is too {kind} for float32, in which programs compute: give 0 or "
            f"a size between {LEAST:.2g} and {LARGEST:.2g}"
        )
