"""Ratios of routes, their targets, and changes between runs.

A ratio is ``{"value", "low", "high"}`` with the quartiles of the rounds. Above 1, the first-named
route is faster; ``A / limit`` is the time of a route as a multiple of the limit of the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import instruction_tables, timing
from benchmarks.model_names import NAMES, RECURRENT

TFLITE, ONNX = "edgeattn TFLite", "edgeattn ONNX"
STOCK_TFLITE = ("a stock TFLite", "b stock unroll")
STOCK_DYNAMIC = ("a dynamic", "b dynamic")
A, C = "a stock TFLite", "c Keras ONNX"
LIMIT = "/ limit"
# Both sides may be files of edgeattn, so a lower ratio is not a regression.
BOTH_EDGEATTN = ("TFLite vs onnxruntime", "vs TFLite float32", "vs ONNX float32")
BEST_TFLITE, STOCK_A = "TFLite vs best correct stock TFLite", "TFLite vs stock (a)"
KERAS_EXPORT = "ONNX vs Keras export (c)"
LONG, SHORT = "T500-Embedding-LSTM100", "T50-LSTM64"
GB = 10**9
REACHED, MISSED, NEARLY = "reached", "**not reached**", "not reached, within the spread"
UNKNOWN = "not measured"
Row = tuple[str, str, str, str]  # quantity, target, measured value, and one of the four states


def model_ratios(
    routes: Mapping[str, Any], times: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float]]:
    """Return the ratios of one model, between correct routes."""

    def correct(label: str) -> bool:
        return bool(routes.get(label, {}).get("correct")) and label in times

    def fastest(labels: Sequence[str]) -> str | None:
        return min(
            filter(correct, labels), key=lambda label: routes[label]["median_ms"], default=None
        )

    pairs = {
        BEST_TFLITE: (fastest(STOCK_TFLITE), TFLITE),
        STOCK_A: (A, TFLITE),
        "TFLite vs onnxruntime": (fastest((C, ONNX)), TFLITE),
        KERAS_EXPORT: (C, ONNX),
        "TFLite dynamic vs best correct stock dynamic": (
            fastest(STOCK_DYNAMIC),
            f"{TFLITE} dynamic",
        ),
        "TFLite dynamic vs TFLite float32": (TFLITE, f"{TFLITE} dynamic"),
        "ONNX dynamic vs ONNX float32": (ONNX, f"{ONNX} dynamic"),
        "ONNX dynamic vs (c) dynamic": ("c dynamic", f"{ONNX} dynamic"),
    }
    return {
        name: timing.ratio(times[other], times[ours])
        for name, (other, ours) in pairs.items()
        if other is not None and correct(other) and correct(ours)
    }


def all_ratios(models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the ratios of all models, their geometric means, and the multiples of the limit."""
    result = {f"{n}: {label}": r for n, m in models.items() for label, r in m["ratios"].items()}
    for label, names in ((STOCK_A, RECURRENT), (KERAS_EXPORT, NAMES)):
        ratios = [models.get(n, {}).get("ratios", {}).get(label) for n in names]
        mean = timing.geometric([ratio for ratio in ratios if ratio])
        if mean and all(ratios):
            result[f"geometric mean: {label}"] = mean
    for name, model in models.items():
        for short, label in (("TFLite", TFLITE), ("ONNX", ONNX)):
            route = model["routes"].get(label, {})
            if route.get("correct"):
                result[f"{name}: {short} {LIMIT}"] = {
                    key: float(f"{route[f'{ms}_ms'] / model['limit_ms']:.4g}")
                    for key, ms in (("value", "median"), ("low", "p10"), ("high", "p90"))
                }
    return result


def changes(
    before: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[str]]:
    """Describe the ratios that are worse and better beyond noise; a missing ratio is worse."""
    worse, better = [], []
    for name, old in before.items():
        if name.endswith(BOTH_EDGEATTN):
            continue
        if name not in now:
            if name.split(":")[0] in {key.split(":")[0] for key in now}:
                worse.append(f"{name}: {old['value']:.2f} before, now missing")
            continue
        factor = timing.significant_change(old, now[name])
        if factor is None:
            continue
        line = (
            f"{name}: {old['value']:.2f} ({old['low']:.2f}-{old['high']:.2f}) before, "
            f"now {now[name]['value']:.2f} ({now[name]['low']:.2f}-{now[name]['high']:.2f})"
        )
        (worse if (factor < 1) != name.endswith(LIMIT) else better).append(line)
    return worse, better


def machine_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences between the machines of two runs."""
    lines = [
        f"{key}: {before[key]} before, {now[key]} now"
        for key in ("processor", "processors", "python")
        if before[key] != now[key]
    ]
    return lines + [
        f"{name}: {old} before, {now['versions'].get(name)} now"
        for name, old in before["versions"].items()
        if now["versions"].get(name) != old
    ]


def evaluate(latest: Any, counts: Any) -> list[Row]:
    """Return all targets with the measured values and whether they are reached."""
    return [*_time_targets(latest), *_instruction_targets(counts), *_cost_targets(latest)]


def _time_targets(latest: Any) -> list[Row]:
    ratios = latest["ratios"] if latest else {}

    def at_least(name: str, limit: float) -> Row:
        return _at_least(name, ratios.get(name), limit)

    rows = [
        *(at_least(f"{name}: {BEST_TFLITE}", 1.0) for name in NAMES),
        at_least(f"geometric mean: {STOCK_A}", 3.0),
        at_least(f"{LONG}: TFLite vs onnxruntime", 1.0),
        *(at_least(f"{name}: {KERAS_EXPORT}", 1.0) for name in NAMES),
        at_least(f"geometric mean: {KERAS_EXPORT}", 1.2),
    ]
    for name in (
        f"{model}: {short} {LIMIT}" for model in (LONG, SHORT) for short in ("TFLite", "ONNX")
    ):
        ratio = ratios.get(name)
        rows.append(_at_most(name, ratio and ratio["value"], 2.0))
    size = None
    if latest and latest["models"].get(LONG, {}).get("routes", {}).get(TFLITE, {}).get("bytes"):
        model = latest["models"][LONG]
        size = model["routes"][TFLITE]["bytes"] / model["weight_bytes"]
    rows.append(_at_most(f"{LONG}: TFLite file size / weights", size, 1.2))
    return rows


def _instruction_targets(counts: Any) -> list[Row]:
    rows = []
    for name in NAMES:
        for cpu in instruction_tables.CPUS:
            routes = counts["models"].get(name, {}).get(cpu, {}) if counts else {}
            stock = instruction_tables.fewest(routes, instruction_tables.STOCK["float32"])
            ours = instruction_tables.fewest(routes, (TFLITE,))
            ratio = {"value": stock[1] / ours[1]} if stock and ours else None
            title = f"{name}: {BEST_TFLITE}, {instruction_tables.CLAIM}, {cpu}"
            rows.append(_at_least(title, ratio, 1.0))
    return rows


def _cost_targets(latest: Any) -> list[Row]:
    conversion = (latest or {}).get("conversion") or {}
    command = (latest or {}).get("command line") or {}
    stock = conversion.get("beside_stock") or {}
    peak = stock.get("edgeattn convert", {}).get("peak_bytes")
    overhead = command.get("run", {}).get("more_s")
    return [
        _at_most(f"convert of {SHORT}: time / stock conversion", stock.get("ratio"), 2.5),
        _at_most(f"convert of {SHORT}: peak memory (GB)", peak and peak / GB, 2.0),
        _at_most("convert: exponent of time in T, up to 2,000", conversion.get("exponent"), 1.0),
        _at_most("edgeattn --help / import click", command.get("help", {}).get("ratio"), 1.5),
        _at_most("validate --report / validate", command.get("report", {}).get("ratio"), 3.0),
        _at_most("edgeattn run: time beyond numpy, runtime and model (s)", overhead, 0.2),
    ]


def _at_least(title: str, ratio: Mapping[str, float] | None, limit: float) -> Row:
    target = f"at least {limit:g}"
    if not ratio:
        return title, target, UNKNOWN, UNKNOWN
    spread = f" ({ratio['low']:.2f}-{ratio['high']:.2f})" if "low" in ratio else ""
    state = REACHED if ratio["value"] >= limit else MISSED
    if state == MISSED and ratio.get("high", 0) >= limit:
        state = NEARLY
    return title, target, f"{ratio['value']:.2f}{spread}", state


def _at_most(title: str, value: float | None, limit: float) -> Row:
    target = f"at most {limit:g}"
    if value is None:
        return title, target, UNKNOWN, UNKNOWN
    return title, target, f"{value:.2f}", REACHED if value <= limit else MISSED


def table(rows: Sequence[Row]) -> str:
    """Return the targets as Markdown."""
    reached = sum(state == REACHED for *_, state in rows)
    lines = [f"{reached} of {len(rows)} targets are reached.", ""]
    lines += ["| quantity | target | measured | state |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
