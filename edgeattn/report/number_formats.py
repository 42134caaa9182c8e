"""Numbers and sizes as text."""

import math
from datetime import UTC, datetime


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


def format_date(seconds: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
