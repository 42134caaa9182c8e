"""The ratios that are told, what they are to reach, and what of it they do reach. All of it pure.

A ratio is ``{"value", "low", "high"}``; more than 1 is faster, unless its name ends in ``limit``,
which counts how many times the machine's limit a route takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import instructions, timing
from benchmarks.names import NAMES, RECURRENT

TFLITE, ONNX = "edgeattn TFLite", "edgeattn ONNX"
STOCK_TFLITE = ("a stock TFLite", "b stock unroll")
STOCK_DYNAMIC = ("a dynamic", "b dynamic")
A, C = "a stock TFLite", "c Keras ONNX"
LIMIT = "the limit"
# Of these both sides may be ours: where the second gets faster, nothing has become worse.
OURS_ONLY = ("TFLite, onnxruntime", "TFLite float32", "ONNX float32")
LONG, SHORT = "T500-Embedding-LSTM100", "T50-LSTM64"
GB = 10**9
REACHED, MISSED, NEARLY = "reached", "**not reached**", "not reached, by less than the spread"
UNKNOWN = "not measured"
Row = tuple[str, str, str, str]  # what is asked, the limit, what was measured, one of the four


def ratios_of(
    routes: Mapping[str, Any], times: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, float]]:
    """The ratios of one model, by what is compared: of routes that are right."""

    def right(label: str) -> bool:
        return bool(routes.get(label, {}).get("right")) and label in times

    def fastest(labels: Sequence[str]) -> str | None:
        made = [label for label in labels if right(label)]
        return min(made, key=lambda label: routes[label]["median_ms"], default=None)

    pairs = {
        "TFLite, the best right stock TFLite": (fastest(STOCK_TFLITE), TFLITE),
        "TFLite, stock (a)": (A, TFLITE),
        "TFLite, onnxruntime": (fastest((C, ONNX)), TFLITE),
        "ONNX, Keras' export (c)": (C, ONNX),
        "TFLite dynamic, the best right stock dynamic": (
            fastest(STOCK_DYNAMIC),
            f"{TFLITE} dynamic",
        ),
        "TFLite dynamic, TFLite float32": (TFLITE, f"{TFLITE} dynamic"),
        "ONNX dynamic, ONNX float32": (ONNX, f"{ONNX} dynamic"),
        "ONNX dynamic, (c) dynamic": ("c dynamic", f"{ONNX} dynamic"),
    }
    return {
        name: timing.ratio(times[theirs], times[ours])
        for name, (theirs, ours) in pairs.items()
        if theirs is not None and right(theirs) and right(ours)
    }


def ratios(models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """All that the runs are compared by."""
    told = {f"{n}: {what}": r for n, m in models.items() for what, r in m["ratios"].items()}
    for label, names in (("TFLite, stock (a)", RECURRENT), ("ONNX, Keras' export (c)", NAMES)):
        found = [models.get(n, {}).get("ratios", {}).get(label) for n in names]
        mean = timing.geometric([ratio for ratio in found if ratio])
        if mean and all(found):
            told[f"geometric mean: {label}"] = mean
    for name, model in models.items():
        for short, label in (("TFLite", TFLITE), ("ONNX", ONNX)):
            route = model["routes"].get(label, {})
            if route.get("right"):
                told[f"{name}: {short}, {LIMIT}"] = {
                    key: float(f"{route[f'{ms}_ms'] / model['limit_ms']:.4g}")
                    for key, ms in (("value", "median"), ("low", "p10"), ("high", "p90"))
                }
    return told


def changes(
    before: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[str]]:
    """What has become worse, and better, beyond noise; a ratio that is gone is worse."""
    worse, better = [], []
    for name, old in before.items():
        if name.endswith(OURS_ONLY):
            continue
        if name not in now:
            if name.split(":")[0] in {key.split(":")[0] for key in now}:
                worse.append(f"{name}: {old['value']:.2f} before, now none")
            continue
        factor = timing.moved(old, now[name])
        if factor is None:
            continue
        line = (
            f"{name}: {old['value']:.2f} ({old['low']:.2f}-{old['high']:.2f}) before, "
            f"now {now[name]['value']:.2f} ({now[name]['low']:.2f}-{now[name]['high']:.2f})"
        )
        (worse if (factor < 1) != name.endswith(LIMIT) else better).append(line)
    return worse, better


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what the machines of two runs differ."""
    told = [
        f"{key}: {before[key]} before, {now[key]} now"
        for key in ("processor", "processors", "python")
        if before[key] != now[key]
    ]
    return told + [
        f"{name}: {old} before, {now['versions'].get(name)} now"
        for name, old in before["versions"].items()
        if now["versions"].get(name) != old
    ]


def judged(latest: Any, counted: Any) -> list[Row]:
    """Each target: what it asks, the limit, what was measured, and whether that reaches it."""
    return [*_times(latest), *_instructions(counted), *_costs(latest)]


def _times(latest: Any) -> list[Row]:
    told = latest["ratios"] if latest else {}
    best = "TFLite, the best right stock TFLite"
    rows = [
        *(_least(told, f"{n}: {best}", 1.0, f"{n}: TFLite over the best right stock TFLite, time")
          for n in NAMES),
        _least(told, "geometric mean: TFLite, stock (a)", 3.0,
               "TFLite over stock (a), geometric mean of the recurrent models"),
        _least(told, f"{LONG}: TFLite, onnxruntime", 1.0,
               f"{LONG}: TFLite over onnxruntime's LSTM"),
        *(_least(told, f"{n}: ONNX, Keras' export (c)", 1.0, f"{n}: ONNX over Keras' export (c)")
          for n in NAMES),
        _least(told, "geometric mean: ONNX, Keras' export (c)", 1.2,
               "ONNX over Keras' export (c), geometric mean"),
    ]  # fmt: skip
    for name in (LONG, SHORT):
        for short in ("TFLite", "ONNX"):
            ratio = told.get(f"{name}: {short}, {LIMIT}")
            rows.append(_most(ratio and ratio["value"], 2.0, f"{name}: {short}, times the limit"))
    size = None
    if latest and latest["models"].get(LONG, {}).get("routes", {}).get(TFLITE, {}).get("bytes"):
        model = latest["models"][LONG]
        size = model["routes"][TFLITE]["bytes"] / model["weight_bytes"]
    rows.append(_most(size, 1.2, f"{LONG}: the flatbuffer over the weights"))
    return rows


def _instructions(counted: Any) -> list[Row]:
    rows = []
    for name in NAMES:
        for cpu in instructions.CPUS:
            routes = counted["models"].get(name, {}).get(cpu, {}) if counted else {}
            stock = instructions.best(routes, instructions.STOCK["float32"])
            ours = instructions.best(routes, (TFLITE,))
            ratio = {"value": stock[1] / ours[1]} if stock and ours else None
            asked = f"{name}: TFLite over the best right stock TFLite, {instructions.CLAIM}, {cpu}"
            rows.append(_least({asked: ratio}, asked, 1.0, asked))
    return rows


def _costs(latest: Any) -> list[Row]:
    conversion = (latest or {}).get("conversion") or {}
    command = (latest or {}).get("command line") or {}
    beside = conversion.get("beside_stock") or {}
    peak = beside.get("edgeattn convert", {}).get("peak_bytes")
    return [
        _most(beside.get("ratio"), 2.5, f"convert of {SHORT}, times a stock conversion"),
        _most(peak and peak / GB, 2.0, f"convert of {SHORT}, peak memory in GB"),
        _most(conversion.get("exponent"), 1.0, "convert: exponent of its time in T, to 2,000"),
        _most(command.get("help", {}).get("ratio"), 1.5, "edgeattn --help, times import click"),
        _most(
            command.get("run", {}).get("more_s"),
            0.2,
            "edgeattn run, seconds outside numpy, runtime and model",
        ),
    ]


def _least(told: Mapping[str, Any], name: str, limit: float, asked: str) -> Row:
    ratio = told.get(name)
    if not ratio:
        return asked, f"at least {limit:g}", UNKNOWN, UNKNOWN
    spread = f" ({ratio['low']:.2f}-{ratio['high']:.2f})" if "low" in ratio else ""
    word = REACHED if ratio["value"] >= limit else MISSED
    if word == MISSED and ratio.get("high", 0) >= limit:
        word = NEARLY
    return asked, f"at least {limit:g}", f"{ratio['value']:.2f}{spread}", word


def _most(value: float | None, limit: float, asked: str) -> Row:
    if value is None:
        return asked, f"at most {limit:g}", UNKNOWN, UNKNOWN
    return asked, f"at most {limit:g}", f"{value:.2f}", REACHED if value <= limit else MISSED


def table(rows: Sequence[Row]) -> str:
    """The targets as Markdown."""
    count = sum(word == REACHED for *_, word in rows)
    lines = [f"{count} of {len(rows)} are reached.", "", "| target | asked | measured | |"]
    lines.append("|---|---|---|---|")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
