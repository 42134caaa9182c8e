"""Compare edgeattn with the stock routes and with the limit of the machine: ``make bench``.

Each model is measured in a process of its own, on one thread. Its results are stored until the run
is complete, so an interrupted run resumes. At the end, the ratios are compared with the recorded
ones; the exit code is 1 if one is worse beyond noise. ``--renew`` records the last run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# NumPy and TensorFlow read these variables when they are imported.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")

from benchmarks import figures, page, tables, targets
from benchmarks.model_names import NAMES

SEQUENCES = 6
ROUNDS, SITTINGS = 75, 3
QUICK_ROUNDS = 9
QUICK_MODELS = ("T10-LSTM128",)
RECORDED = page.RESULTS / "latest.json"
LAST_RUN = page.SCRATCH / "latest.json"
CONVERSION_ROUNDS, COMMAND_ROUNDS = 3, 15
# Printed to stderr before each route, to know which one crashed the process.
ROUTE_MARKER = "route: "


def measure(name: str, rounds: int, sittings: int, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Measure all routes of a model in this process, except those in ``without``."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import machine, models, timing
    from benchmarks.routes import ROUTES, compare_outputs, first_line, open_file

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = models.build(name)
    sequences = [row[None] for row in models.inputs(model, SEQUENCES)]
    expected = np.concatenate([model.predict(row, verbose=0) for row in sequences])
    openers: dict[str, Any] = {}
    results: dict[str, dict[str, Any]] = {}
    for label, route in ROUTES.items():
        if label in without:
            results[label] = {"failed": "it crashed the process"}
            continue
        print(f"{ROUTE_MARKER}{label}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            file = route.convert(name)
            run = open_file(route, file)
            outputs = np.concatenate([run(row) for row in sequences])
        except Exception as error:
            results[label] = {"failed": first_line(error)}
            continue
        results[label] = {
            "conversion_s": round(time.perf_counter() - start, 3),
            "bytes": len(file) if isinstance(file, bytes) else None,
            **compare_outputs(route, expected, outputs),
        }
        openers[label] = lambda route=route, file=file: open_file(route, file)
    print(ROUTE_MARKER, file=sys.stderr, flush=True)
    times = timing.interleaved(openers, sequences, rounds, sittings)
    for label, seconds in times.items():
        results[label] |= timing.summary(seconds)
    total, streamed = models.multiplications(model)
    steps = {layer.output.shape[1] for layer in model.layers if hasattr(layer, "return_sequences")}
    limit = machine.limit(total, streamed, streamed // max(steps) if streamed else 0)
    return {
        "routes": results,
        "ratios": targets.model_ratios(results, times),
        "multiplications": total,
        "streamed_bytes": streamed,
        "limit_ms": 1e3 * limit,
        "weight_bytes": sum(4 * int(np.prod(w.shape)) for w in model.weights),
    }


def run_all(
    names: tuple[str, ...], rounds: int, sittings: int, folder: Path, *, complete: bool
) -> dict[str, Any]:
    """Return the document of a run, using the parts of an interrupted run with equal sources.

    A ``complete`` run also measures the command line, conversions and the steps of T500.
    """
    from benchmarks import command_line, conversion, machine

    sources = _source_hash(rounds, sittings)
    parts = folder / f"parts-{sources}"
    for outdated in set(folder.glob("parts-*")) - {parts}:
        shutil.rmtree(outdated)
    parts.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, Any] = {
        name: lambda name=name: _measure_in_process(name, rounds, sittings) for name in names
    }
    if complete:
        jobs["steps"] = lambda: _run_python(["-m", "benchmarks.steps"], "steps")
        jobs["command line"] = lambda: command_line.measure(COMMAND_ROUNDS)
        jobs["conversion"] = lambda: conversion.measure(CONVERSION_ROUNDS)
    results = {}
    for name, job in jobs.items():
        path = parts / f"{name}.json"
        stored = page.read(path)
        print(f"{name}{' (from the interrupted run)' if stored else ''}", file=sys.stderr)
        if stored is None:
            page.write(path, stored := job())
        results[name] = stored
    document = {
        "machine": machine.describe(),
        "measured": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "sittings": sittings,
        "models": {name: results[name] for name in names},
        "ratios": targets.all_ratios({name: results[name] for name in names}),
        "steps": results.get("steps"),
        "command line": results.get("command line"),
        "conversion": results.get("conversion"),
    }
    page.write(folder / "latest.json", document)
    shutil.rmtree(parts)
    if _source_hash(rounds, sittings) != sources:
        print("The sources changed during the run. Run it again.", file=sys.stderr)
    return document


def _measure_in_process(name: str, rounds: int, sittings: int) -> dict[str, Any]:
    """Measure a model in a new process, without routes that crash it, as some stock ones do."""
    arguments = ["-m", "benchmarks.bench", "--only", name]
    arguments += ["--rounds", str(rounds), "--sittings", str(sittings)]
    without: list[str] = []
    while True:
        try:
            return _run_python([*arguments, *(f"--without={label}" for label in without)], name)
        except _ProcessCrashedError as crash:
            lines = [line for line in str(crash).splitlines() if line.startswith(ROUTE_MARKER)]
            label = lines[-1].removeprefix(ROUTE_MARKER) if lines else ""
            if not label or label in without:
                raise SystemExit(f"{name} was not measured: {str(crash)[-3000:]}") from None
            without.append(label)


class _ProcessCrashedError(Exception):
    """A process was ended by a signal; the message is its stderr."""


def _run_python(arguments: list[str], what: str) -> dict[str, Any]:
    """Run Python and return the JSON in the last line that it prints."""
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=page.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode < 0:
        raise _ProcessCrashedError(result.stderr)
    if result.returncode:
        raise SystemExit(f"{what} was not measured: {result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _source_hash(rounds: int, sittings: int) -> str:
    """Return a hash of all that the results depend on."""
    digest = hashlib.sha256(repr((rounds, sittings)).encode())
    for folder in ("edgeattn", "converters", "benchmarks"):
        for path in sorted((page.ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update((page.ROOT / "constraints.txt").read_bytes())
    return digest.hexdigest()[:12]


def record() -> None:
    """Record the last run and update the page with it."""
    page.write(RECORDED, page.read(LAST_RUN))
    latest = page.read(RECORDED)
    figures.draw(latest)
    page.update()
    print(f"Updated {RECORDED.relative_to(page.ROOT)} and {page.PAGE.relative_to(page.ROOT)}.")


def compare(before: dict[str, Any], now: dict[str, Any]) -> int:
    """Print changes; return 1 if a ratio is worse beyond noise on the same processor, else 0."""
    for line in targets.machine_differences(before["machine"], now["machine"]):
        print(line)
    worse, better = targets.changes(before["ratios"], now["ratios"])
    for title, lines in (("Worse beyond noise", worse), ("Better beyond noise", better)):
        print(f"{title}: {len(lines)} of {len(now['ratios'])} ratios.")
        for line in lines:
            print(f"  {line}")
    if before["machine"]["processor"] != now["machine"]["processor"]:
        print("The recorded ratios are from another processor, so changes are no failure.")
        return 0
    return int(bool(worse))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one model, few rounds, no comparison")
    parser.add_argument("--model", choices=NAMES, action="append", help="only these models")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--sittings", type=int, default=SITTINGS)
    parser.add_argument("--renew", action="store_true", help="record the results of the last run")
    parser.add_argument("--output", type=Path, default=page.SCRATCH, metavar="DIR")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.only:
        print(json.dumps(measure(options.only, rounds, options.sittings, tuple(options.without))))
        return
    if options.renew:
        if not LAST_RUN.exists():
            parser.error("there is no finished run; run: make bench")
        record()
        return
    names = tuple(options.model or (QUICK_MODELS if options.quick else NAMES))
    partial = options.quick or bool(options.model)
    folder = options.output / "part" if partial else options.output
    try:
        document = run_all(names, rounds, options.sittings, folder, complete=not partial)
    except KeyboardInterrupt:
        print("Interrupted. Run the same command to resume.", file=sys.stderr)
        sys.exit(130)
    text = tables.summary_page(document, page.read(page.RESULTS / "instructions.json"))
    (folder / "bench.md").write_text(text)
    print(text)
    recorded = page.read(RECORDED)
    if recorded is None and not partial:
        record()
    elif recorded is not None and not options.quick:
        code = compare(recorded, document)
        if code:
            print("If the change is intended, record this run: make bench RENEW=1")
        sys.exit(code)


if __name__ == "__main__":
    main()
