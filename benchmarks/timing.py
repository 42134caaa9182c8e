"""Every route of a model has its turn in each round: what disturbs one disturbs them all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Seconds that one turn of a route takes, about: far above what the clock resolves.
TURN = 0.005
# Of a ratio that is called changed: what the placing of code and data may do between two runs.
FLOOR = 0.05


def interleaved(
    opening: Mapping[str, Callable[[], Callable[[Any], Any]]],
    rows: Sequence[Any],
    rounds: int,
    sittings: int,
) -> dict[str, list[float]]:
    """Seconds of a call, by label and round.

    In each of the ``sittings`` everything is opened anew: where its memory comes to lie makes a
    difference that stays as long as it is open, and that the spread of one sitting would not show.
    """
    times: dict[str, list[float]] = {label: [] for label in opening}
    for sitting in range(sittings):
        calls, running = {}, {}
        for label, open_one in opening.items():
            run = open_one()
            run(rows[0])
            start = time.perf_counter()
            run(rows[0])
            calls[label] = max(1, round(TURN / max(1e-9, time.perf_counter() - start)))
            running[label] = run
        for turn in range(sitting * rounds // sittings, (sitting + 1) * rounds // sittings):
            row = rows[turn % len(rows)]
            for label, run in running.items():
                run(row)  # what the others left in the caches is not its fault
                start = time.perf_counter()
                for _ in range(calls[label]):
                    run(row)
                times[label].append((time.perf_counter() - start) / calls[label])
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": _short(1e3 * statistics.median(times)),
        "p10_ms": _short(1e3 * ordered[len(ordered) // 10]),
        "p90_ms": _short(1e3 * ordered[-1 - len(ordered) // 10]),
    }


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """How many times faster ours is: the ratio of medians, and the quartiles of the rounds' own.

    Both were timed in the same rounds, in which the machine was in the same mood.
    """
    each = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return {
        "value": _short(statistics.median(theirs) / statistics.median(ours)),
        "low": _short(each[len(each) // 4]),
        "high": _short(each[-1 - len(each) // 4]),
    }


def geometric(ratios: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """The geometric mean of ratios. Their spreads are independent: logarithms add in squares."""
    if not ratios:
        return None
    value = statistics.fmean(math.log(each["value"]) for each in ratios)
    half = math.sqrt(sum(_half(each) ** 2 for each in ratios)) / len(ratios)
    return {
        "value": _short(math.exp(value)),
        "low": _short(math.exp(value - half)),
        "high": _short(math.exp(value + half)),
    }


def moved(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """By which factor a ratio has changed, where that is beyond noise; else None.

    Noise is what both runs' spreads add up to, and 5% at least.
    """
    change = math.log(now["value"] / before["value"])
    noise = max(math.log(1 + FLOOR), _half(before) + _half(now))
    return math.exp(change) if abs(change) > noise else None


def _half(each: Mapping[str, float]) -> float:
    return max(0.0, math.log(each["high"] / each["low"]) / 2)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
