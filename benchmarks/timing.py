"""Interleaved timing and statistics of ratios.

All routes of a model take turns in each round, so other load affects all of them alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Approximate seconds of one turn of a route, far above the resolution of the clock.
TURN_SECONDS = 0.005
# Smallest relative change of a ratio that is reported; the location of code and data in memory
# can cause smaller ones.
MIN_CHANGE = 0.05


def interleaved(
    openers: Mapping[str, Callable[[], Callable[[Any], Any]]],
    rows: Sequence[Any],
    rounds: int,
    sittings: int,
) -> dict[str, list[float]]:
    """Return the seconds of a call, by label and round.

    In each sitting everything is opened again: the location of its memory affects the time as long
    as it stays open, which the spread within one sitting does not show.
    """
    times: dict[str, list[float]] = {label: [] for label in openers}
    for sitting in range(sittings):
        calls, runs = {}, {}
        for label, open_route in openers.items():
            run = open_route()
            run(rows[0])
            start = time.perf_counter()
            run(rows[0])
            calls[label] = max(1, round(TURN_SECONDS / max(1e-9, time.perf_counter() - start)))
            runs[label] = run
        for turn in range(sitting * rounds // sittings, (sitting + 1) * rounds // sittings):
            row = rows[turn % len(rows)]
            for label, run in runs.items():
                run(row)  # fills the caches again
                start = time.perf_counter()
                for _ in range(calls[label]):
                    run(row)
                times[label].append((time.perf_counter() - start) / calls[label])
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": _round(1e3 * statistics.median(times)),
        "p10_ms": _round(1e3 * ordered[len(ordered) // 10]),
        "p90_ms": _round(1e3 * ordered[-1 - len(ordered) // 10]),
    }


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Return the ratio of the medians, and the quartiles of the ratios per round.

    Both sides must have been timed in the same rounds.
    """
    per_round = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return {
        "value": _round(statistics.median(theirs) / statistics.median(ours)),
        "low": _round(per_round[len(per_round) // 4]),
        "high": _round(per_round[-1 - len(per_round) // 4]),
    }


def geometric(ratios: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return the geometric mean; the spreads of the logarithms add in squares (independent)."""
    if not ratios:
        return None
    value = statistics.fmean(math.log(ratio["value"]) for ratio in ratios)
    half = math.sqrt(sum(_half_width(ratio) ** 2 for ratio in ratios)) / len(ratios)
    return {
        "value": _round(math.exp(value)),
        "low": _round(math.exp(value - half)),
        "high": _round(math.exp(value + half)),
    }


def significant_change(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Return the factor by which a ratio has changed, or ``None`` if it is within noise.

    Noise is the sum of the half-widths of both runs' quartiles, and at least 5%.
    """
    change = math.log(now["value"] / before["value"])
    noise = max(math.log(1 + MIN_CHANGE), _half_width(before) + _half_width(now))
    return math.exp(change) if abs(change) > noise else None


def _half_width(ratio: Mapping[str, float]) -> float:
    return max(0.0, math.log(ratio["high"] / ratio["low"]) / 2)


def _round(value: float) -> float:
    return float(f"{value:.4g}")
