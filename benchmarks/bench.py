"""edgeattn beside the stock routes and the machine's limit: ``make bench``.

Every model has a process of its own, on one thread, in which each route gets its turn in every
round. What a model gave is kept until the run is complete: one that was interrupted goes on where
it was. At the end the ratios are compared with those of the table in the repository; the exit code
is 1 where one has become worse beyond noise. ``--renew`` keeps the last run's table instead.
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

# Before numpy and TensorFlow are imported, which read them then.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
os.environ.update(CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")

from benchmarks import page, tables, targets
from benchmarks.names import NAMES

SEQUENCES = 6
ROUNDS, SITTINGS = 75, 3
QUICK_ROUNDS = 9
QUICK = ("T10-LSTM128",)
KEPT = page.RESULTS / "latest.json"
LAST = page.SCRATCH / "latest.json"
CONVERSIONS, COMMANDS = 3, 15
# What a child says on stderr before each route, for the case that it dies of it.
MAKING = "making: "


def measure(name: str, rounds: int, sittings: int, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """All routes of one model, interleaved, in this process."""
    import numpy as np
    import tensorflow as tf

    from benchmarks import machine, models, timing
    from benchmarks.routes import ROUTES, first_line, judged, opened

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = models.build(name)
    x = models.inputs(model, SEQUENCES)
    rows = [row[None] for row in x]
    expected = np.concatenate([model.predict(row, verbose=0) for row in rows])
    opening: dict[str, Any] = {}
    found: dict[str, dict[str, Any]] = {}
    for label, route in ROUTES.items():
        if label in without:
            found[label] = {"failed": "the process died of it"}
            continue
        print(f"{MAKING}{label}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            made = route.make(name)
            run = opened(route, made)
            got = np.concatenate([run(row) for row in rows])
        except Exception as error:
            found[label] = {"failed": first_line(error)}
            continue
        found[label] = {
            "made_s": round(time.perf_counter() - start, 3),
            "bytes": len(made) if isinstance(made, bytes) else None,
            **judged(route, expected, got),
        }
        opening[label] = lambda route=route, made=made: opened(route, made)
    print(MAKING, file=sys.stderr, flush=True)
    times = timing.interleaved(opening, rows, rounds, sittings)
    for label, each in times.items():
        found[label] |= timing.summary(each)
    total, streamed = models.multiplications(model)
    steps = {layer.output.shape[1] for layer in model.layers if hasattr(layer, "return_sequences")}
    limit = machine.limit(total, streamed, streamed // max(steps) if streamed else 0)
    return {
        "routes": found,
        "ratios": targets.ratios_of(found, times),
        "multiplications": total,
        "streamed_bytes": streamed,
        "limit_ms": 1e3 * limit,
        "weight_bytes": sum(4 * int(np.prod(w.shape)) for w in model.weights),
    }


def run_all(
    names: tuple[str, ...], rounds: int, sittings: int, folder: Path, *, whole: bool
) -> dict[str, Any]:
    """The document of a run; parts that an interrupted run with the same sources left are taken."""
    from benchmarks import command_line, conversion, machine

    parts = folder / f"parts-{(sources := _sources(rounds, sittings))}"
    for stale in set(folder.glob("parts-*")) - {parts}:
        shutil.rmtree(stale)
    parts.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, Any] = {
        name: lambda name=name: _in_child(name, rounds, sittings) for name in names
    }
    if whole:
        jobs["steps"] = lambda: _answer(["-m", "benchmarks.steps"], "steps")
        jobs["command line"] = lambda: command_line.measured(COMMANDS)
        jobs["conversion"] = lambda: conversion.measured(CONVERSIONS)
    results = {}
    for name, job in jobs.items():
        path = parts / f"{name}.json"
        kept = page.read(path)
        print(f"{name}{' (kept)' if kept else ''}", file=sys.stderr, flush=True)
        if kept is None:
            page.write(path, kept := job())
        results[name] = kept
    document = {
        "machine": machine.described(),
        "measured": time.strftime("%Y-%m-%d"),
        "rounds": rounds,
        "sittings": sittings,
        "models": {name: results[name] for name in names},
        "ratios": targets.ratios({name: results[name] for name in names}),
        "steps": results.get("steps"),
        "command line": results.get("command line"),
        "conversion": results.get("conversion"),
    }
    page.write(folder / "latest.json", document)
    shutil.rmtree(parts)
    if _sources(rounds, sittings) != sources:
        print("The sources were changed while it ran: run it again.", file=sys.stderr)
    return document


def _in_child(name: str, rounds: int, sittings: int) -> dict[str, Any]:
    """A model's part; without the routes that kill the process, which some stock ones do."""
    arguments = ["-m", "benchmarks.bench", "--only", name]
    arguments += ["--rounds", str(rounds), "--sittings", str(sittings)]
    without: list[str] = []
    while True:
        try:
            return _answer([*arguments, *(f"--without={label}" for label in without)], name)
        except _Died as died:
            lines = [line for line in str(died).splitlines() if line.startswith(MAKING)]
            label = lines[-1].removeprefix(MAKING) if lines else ""
            if not label or label in without:
                raise SystemExit(f"{name} was not measured: {str(died)[-3000:]}") from None
            without.append(label)


class _Died(Exception):
    """A signal ended the process: what it had said on stderr."""


def _answer(arguments: list[str], what: str) -> dict[str, Any]:
    """The JSON in the last line that a Python process prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=page.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise _Died(done.stderr)
    if done.returncode:
        raise SystemExit(f"{what} was not measured: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _sources(rounds: int, sittings: int) -> str:
    """What parts of an earlier run must have been made of."""
    digest = hashlib.sha256(repr((rounds, sittings)).encode())
    for folder in ("edgeattn", "converters", "benchmarks"):
        for path in sorted((page.ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update((page.ROOT / "constraints.txt").read_bytes())
    return digest.hexdigest()[:12]


def keep() -> None:
    """Make the last run's table the one that is kept, and the page anew."""
    page.write(KEPT, page.read(LAST))
    latest = page.read(KEPT)
    tables.plot(latest, page.ROOT / "docs" / "benchmarks.svg")
    if latest["conversion"]:
        tables.plot_conversion(latest["conversion"], page.ROOT / "docs" / "conversion.svg")
    page.renew()
    print(f"Kept in {KEPT.relative_to(page.ROOT)} and {page.PAGE.relative_to(page.ROOT)}.")


def compare(before: dict[str, Any], now: dict[str, Any]) -> int:
    """Print what has moved: 1 where a ratio is worse beyond noise, on the same processor."""
    for line in targets.differences(before["machine"], now["machine"]):
        print(line)
    worse, better = targets.changes(before["ratios"], now["ratios"])
    for title, lines in (("Worse beyond noise", worse), ("Better beyond noise", better)):
        print(f"{title}: {len(lines)} of {len(now['ratios'])} ratios.")
        for line in lines:
            print(f"  {line}")
    if before["machine"]["processor"] != now["machine"]["processor"]:
        print("The kept table is another processor's: nothing is judged by it.")
        return 0
    return int(bool(worse))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one model, few rounds; no judgement")
    parser.add_argument("--model", choices=NAMES, action="append", help="only these")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--sittings", type=int, default=SITTINGS)
    parser.add_argument("--renew", action="store_true", help="keep the last run's table")
    parser.add_argument("--output", type=Path, default=page.SCRATCH, metavar="DIR")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.only:
        found = measure(options.only, rounds, options.sittings, tuple(options.without))
        print(json.dumps(found))
        return
    if options.renew:
        if not LAST.exists():
            parser.error("there is no finished run to keep: make bench")
        keep()
        return
    names = tuple(options.model or (QUICK if options.quick else NAMES))
    part = options.quick or bool(options.model)
    folder = options.output / "part" if part else options.output
    try:
        document = run_all(names, rounds, options.sittings, folder, whole=not part)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on where it was.", file=sys.stderr)
        sys.exit(130)
    text = tables.page_of(document, page.read(page.RESULTS / "instructions.json"))
    (folder / "bench.md").write_text(text)
    print(text)
    kept = page.read(KEPT)
    if kept is None and not part:
        keep()
    elif kept is not None and not options.quick:
        code = compare(kept, document)
        if code:
            print("If it is meant to be so: make bench RENEW=1 keeps this run's table.")
        sys.exit(code)


if __name__ == "__main__":
    main()
