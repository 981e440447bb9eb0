"""Numbers in the page: few digits, and curves of many seeds as 16 bits each."""

import base64
import json
import math
from typing import Any

import numpy as np

_MISSING = 65535


def packed(values: np.ndarray) -> dict[str, Any]:
    """An array as text that the page decodes: shape, range, and base64 of 16 bits a number.

    Numbers lie within 1/131,068 of their range of what they were; what is not finite is missing.
    """
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    low = float(array[finite].min()) if finite.any() else 0.0
    high = float(array[finite].max()) if finite.any() else 0.0
    scale = (_MISSING - 1) / (high - low) if high > low else 0.0
    codes = np.full(array.shape, _MISSING, "<u2")
    codes[finite] = ((array[finite] - low) * scale).round().astype("<u2")
    return {
        "shape": list(array.shape),
        "low": low,
        "high": high,
        "data": base64.b64encode(codes.tobytes()).decode("ascii"),
    }


def rounded(values: Any, digits: int = 6) -> Any:
    """Numbers, alone or in arrays and lists, with so many significant digits; else null."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list | tuple):
        return [rounded(value, digits) for value in values]
    if isinstance(values, float):
        if not math.isfinite(values):
            return None
        short = float(f"{values:.{digits}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return values


def strict_json(content: Any) -> str:
    """JSON that can be written as UTF-8: half a surrogate pair becomes a question mark."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def script_json(content: Any) -> str:
    """Strict JSON that can stand in a script element: no text in it ends the element.

    Line separators that JSON allows and JavaScript once did not are escaped too.
    """
    text = strict_json(content)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
