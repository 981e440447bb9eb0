"""Fields of an environment's parameters that say their unit and what they mean."""

from __future__ import annotations

from typing import Any

from flax import struct


def setting(default: Any, unit: str, doc: str) -> Any:
    """Declare a field of a `flax.struct.dataclass`, for `describe` with its unit and meaning.

    `unit` is such as "m/s^2", empty for a number without one; `doc` a sentence, no full stop.
    """
    return struct.field(default=default, metadata={"unit": unit, "doc": doc})
