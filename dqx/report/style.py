"""How everything that dqx draws looks: one palette and one way to write numbers.

The colours are Okabe and Ito's, which colour-blind people tell apart too, with a dark blue in
front and a brown in place of the yellow, which is faint on white; on a dark ground each has a
lighter twin.
"""

import math

# On a light ground, and its twin on a dark one.
LIGHT = ("#1f5fa8", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#222222", "#7f3b08")
DARK = ("#6ea8e8", "#ff8f4a", "#2ec495", "#e8a5cb", "#a5dcff", "#f5c04e", "#eeeeee", "#c48a5a")

BLUE, RED, GREY, BLACK = LIGHT[0], "#c0392b", "#555555", LIGHT[6]
GRID = "#e4e4e4"
# Low, middle and high: of what has no middle, and of what is about one half.
SEQUENTIAL = ("#eef4fb", "#8fb8e0", "#1f5fa8")
DIVERGING = ("#d55e00", "#f7f4ef", "#1f5fa8")

MAX_COLORS = len(LIGHT)


def steps(count: float) -> str:
    """Environment steps as a tick says them: 500, 50k, 2.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:.3g}"


def number(value: float | None) -> str:
    """A score as a table says it: four significant digits, no exponent for usual sizes."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 6)}f}" if abs(value) < 1000 else f"{value:,.1f}"
