"""Numbers and sizes as text."""

import math


def format_number(value: float | None) -> str:
    """Three significant digits, a symbol if ``value`` is not finite, or a dash if it is None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
    return f"{value:.3g}"


def format_size(count: int) -> str:
    """Bytes as kB or MB (powers of 1000)."""
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"
