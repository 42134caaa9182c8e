"""edgeattn beside the stock routes and the machine's limit: ``make bench``, or this file.

Everything in one run and one process, on one thread. In every round each route gets its turn, so
that what disturbs the machine disturbs them alike; the table shows medians over the rounds, and
ratios of medians. A route whose answers differ from Keras' by more than 1e-4 is named wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

# Before numpy and TensorFlow are imported, which read them then.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")

import machine
import numpy as np
from routes import ROUTES

import models

SEQUENCES = 6
TOLERANCE = 1e-4
# Seconds that one turn of a route takes, about: far above what the clock resolves.
TURN = 0.005
SCALING = (50, 100, 200, 500, 1000, 2000)


def measure(name: str, rounds: int) -> dict[str, Any]:
    """All routes of one model, interleaved."""
    model = models.build(name)
    x = models.inputs(model, SEQUENCES)
    expected = np.concatenate([model.predict(row[None], verbose=0) for row in x])
    routes, found = {}, {}
    for label, make in ROUTES.items():
        start = time.perf_counter()
        try:
            run = make(name)
            got = np.concatenate([run(row[None]) for row in x])
        except Exception as error:  # whatever a tool gives up with is a result
            found[label] = {"failed": (str(error).strip() or type(error).__name__).splitlines()[0]}
            continue
        wrong = float(np.abs(got - expected).max())
        found[label] = {
            "made_s": time.perf_counter() - start,
            "max_abs_error": wrong,
            "right": wrong < TOLERANCE,
            "bytes": getattr(run, "size", None),
        }
        routes[label] = run
    for label, times in _interleaved(routes, x, rounds).items():
        found[label] |= _summary(times)
    total, streamed = models.multiplications(model)
    steps = {layer.output.shape[1] for layer in model.layers if hasattr(layer, "return_sequences")}
    weights = streamed // max(steps) if streamed else 0
    limit = machine.limit(total, streamed, weights)
    return {
        "routes": found,
        "multiplications": total,
        "streamed_bytes": streamed,
        "limit_ms": 1e3 * limit,
        "weight_bytes": sum(4 * int(np.prod(w.shape)) for w in model.weights),
    }


def _interleaved(routes: dict[str, Any], x: np.ndarray, rounds: int) -> dict[str, list[float]]:
    calls = {}
    for label, run in routes.items():
        start = time.perf_counter()
        run(x[:1])
        calls[label] = max(1, round(TURN / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {label: [] for label in routes}
    for turn in range(rounds):
        row = x[turn % len(x)][None]
        for label, run in routes.items():
            run(row)  # what the others left in the caches is not its fault
            start = time.perf_counter()
            for _ in range(calls[label]):
                run(row)
            times[label].append((time.perf_counter() - start) / calls[label])
    return times


def _summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median_ms": 1e3 * statistics.median(times),
        "p10_ms": 1e3 * ordered[len(ordered) // 10],
        "p90_ms": 1e3 * ordered[-1 - len(ordered) // 10],
    }


def scaling() -> dict[str, float]:
    """Seconds to convert LSTM(64) sequences of so many steps to TFLite, by steps."""
    import tempfile

    import keras

    from edgeattn_converters import tflite
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing import interface_of

    seconds = {}
    for steps in SCALING:
        x = keras.Input((steps, 16))
        model = keras.Model(x, keras.layers.LSTM(64, return_sequences=True)(x))
        interface = interface_of(model)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            tflite.convert(model, interface, recipe_for("float32"), Path(folder) / "model.tflite")
            seconds[str(steps)] = time.perf_counter() - start
    return seconds


def ratios(results: dict[str, Any]) -> dict[str, float | None]:
    """What the targets are stated in, as ratios of medians: more than 1 is faster."""
    told: dict[str, float | None] = {}
    against: dict[str, list[float]] = {"tflite/a": [], "onnx/c": []}
    for name, result in results.items():
        best = [_median(result, label) for label in ("a stock TFLite", "b stock unroll")]
        right = [value for value in best if value is not None]
        ours, onnx = _median(result, "edgeattn TFLite"), _median(result, "edgeattn ONNX")
        stock, exported = _median(result, "a stock TFLite"), _median(result, "c Keras ONNX")
        if ours and right:
            told[f"{name}: TFLite over the best right stock TFLite"] = min(right) / ours
        if onnx and exported:
            told[f"{name}: ONNX over Keras' export"] = exported / onnx
            against["onnx/c"].append(exported / onnx)
        if ours and stock and name in models.RECURRENT:
            against["tflite/a"].append(stock / ours)
        for label, value in (("TFLite", ours), ("ONNX", onnx)):
            if value:
                told[f"{name}: {label}, times the limit"] = value / result["limit_ms"]
    told["TFLite over stock (a), geometric mean of the recurrent"] = _mean(against["tflite/a"])
    told["ONNX over Keras' export (c), geometric mean"] = _mean(against["onnx/c"])
    return told


def _median(result: dict[str, Any], label: str) -> float | None:
    route = result["routes"].get(label, {})
    return route.get("median_ms") if route.get("right") else None


def _mean(values: list[float]) -> float | None:
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def table(document: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['processor']}, one thread of {about['processors']}, "
        f"Python {about['python']}, {versions}.",
        f"Medians of {document['rounds']} rounds in milliseconds, with the tenth and the ninetieth "
        "percentile in brackets.",
        "",
        "| model | " + " | ".join(ROUTES) + " | limit |",
        "|---|" + "---|" * (len(ROUTES) + 1),
    ]
    for name, result in document["models"].items():
        cells = [_cell(result["routes"][label]) for label in ROUTES]
        lines.append(f"| {name} | {' | '.join(cells)} | {result['limit_ms']:.3f} |")
    lines += ["", "| ratio of medians | |", "|---|---|"]
    lines += [f"| {label} | {value:.2f} |" for label, value in document["ratios"].items() if value]
    if document["scaling_s"]:
        lines += ["", "| steps | seconds to convert LSTM(64) to TFLite |", "|---|---|"]
        lines += [f"| {steps} | {value:.2f} |" for steps, value in document["scaling_s"].items()]
    return "\n".join(lines) + "\n"


def _cell(route: dict[str, Any]) -> str:
    if "failed" in route:
        return "not made"
    time = f"{route['median_ms']:.3f} ({route['p10_ms']:.3f}-{route['p90_ms']:.3f})"
    return time if route["right"] else f"wrong by {route['max_abs_error']:.2g}: {time}"


def plot(document: dict[str, Any], path: Path) -> None:
    """Milliseconds of every route, and the limit, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(document["models"])
    figure, axes = pyplot.subplots(figsize=(11, 0.9 * len(names) + 2))
    height = 0.8 / len(ROUTES)
    for index, label in enumerate(ROUTES):
        values = [document["models"][n]["routes"][label].get("median_ms", 0) for n in names]
        at = np.arange(len(names)) + index * height
        axes.barh(at, values, height, label=label)
    for row, name in enumerate(names):
        limit = document["models"][name]["limit_ms"]
        axes.plot([limit, limit], [row - height, row + 0.8], "k:", label=None if row else "limit")
    axes.set_yticks(np.arange(len(names)) + 0.4, names)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds, one sequence, one thread")
    axes.invert_yaxis()
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three models, few rounds, no plot")
    parser.add_argument("--model", choices=models.MODELS, action="append", help="only these")
    parser.add_argument("--rounds", type=int, help="default: 80, with --quick 20")
    parser.add_argument("--output", type=Path, default=Path(".out/bench"), metavar="DIR")
    options = parser.parse_args()
    rounds = options.rounds or (20 if options.quick else 80)
    chosen = options.model or (models.QUICK if options.quick else tuple(models.MODELS))

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    results = {name: measure(name, rounds) for name in chosen}
    document = {
        "machine": machine.described(),
        "rounds": rounds,
        "models": results,
        "ratios": ratios(results),
        "scaling_s": {} if options.quick or options.model else scaling(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.output / "bench.md").write_text(table(document))
    if not options.quick:
        plot(document, options.output / "bench.png")
    print(table(document))


if __name__ == "__main__":
    main()
