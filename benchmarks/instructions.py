"""Count the ARM instructions of one inference on the cores of a Pi 4 and a Pi 5.

The counts are made under emulation and are not times: cache misses, memory and stalls are not
included. They are exact and repeatable, so they are recorded in the repository, and ``make
instructions`` fails if a count of edgeattn has grown by more than 2%. ``--renew`` records the new
counts; with ``--model`` or ``--route``, other models and routes keep theirs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.instruction_tables import (
    CLAIM,
    COLUMNS,
    CPUS,
    ESTIMATE,
    GROWTH,
    LOWERINGS,
    OURS,
    regressions,
    wrong_estimates,
)
from benchmarks.model_names import NAMES

RECORDED = page.RESULTS / "instructions.json"
RENEW = "If the change is intended, record these counts: make instructions RENEW=1"
# The models of a quick run, which a test performs.
QUICK = ("T10-LSTM128", "T50-GRU64")
# The lowerings that `--lowering auto` selects from, and the routes that they are compared with.
FETCH_ROUTES = (
    *("a stock TFLite", "b stock unroll", "edgeattn TFLite"),
    *(f"edgeattn TFLite {lowering}" for lowering in LOWERINGS),
)


def count(name: str, labels: Sequence[str], *, fetched: bool = True) -> dict[str, Any]:
    """Count the instructions of one inference of a model, by processor and route.

    The first file of a process also pays for what the runtime prepares once, so the first route of
    a full run precedes every selection of routes. ``fetched`` adds lines fetched from memory.
    """
    from benchmarks import counting

    first = COLUMNS[0]
    with tempfile.TemporaryDirectory(prefix="edgeattn-instructions-") as scratch:
        folder = Path(scratch)
        files = counting.make_files(
            name, [first, *(item for item in labels if item != first)], folder
        )
        counts = {cpu: counting.count(folder, files, cpu) for cpu in CPUS}
        if fetched:
            _add_fetched_lines(counts, folder, files)
    return {
        cpu: {label: routes[label] for label in COLUMNS if label in labels}
        for cpu, routes in counts.items()
    }


def _add_fetched_lines(counts: dict[str, Any], folder: Path, files: dict[str, Any]) -> None:
    """Add the cache lines fetched from memory to the float32 TFLite routes, in place."""
    from benchmarks import counting

    selected = {label: files[label] for label in FETCH_ROUTES if label in files}
    for cpu, routes in counts.items():
        fetched = counting.count(folder, selected, cpu, counting.FETCHED)
        for label, route in fetched.items():
            if counting.FETCHED in route:
                routes[label][counting.FETCHED] = route[counting.FETCHED]


def merge(recorded: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of all models, in which ``counted`` replaces those of its routes."""
    merged = dict(recorded)
    for name, counts in counted.items():
        before = recorded.get(name, {})
        merged[name] = {cpu: {**before.get(cpu, {}), **routes} for cpu, routes in counts.items()}
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two models, routes of edgeattn only")
    parser.add_argument("--model", choices=NAMES, action="append", help="only these models")
    parser.add_argument("--route", choices=COLUMNS, action="append", help="only these routes")
    parser.add_argument("--renew", action="store_true", help="record the new counts")
    parser.add_argument(
        "--output", type=Path, default=page.SCRATCH / "instructions.json", metavar="FILE"
    )
    options = parser.parse_args()
    if options.renew and options.quick:
        parser.error("--renew requires all routes: omit --quick, or pass --model or --route")

    from benchmarks import counting

    try:
        counting.prepare()
    except counting.CannotEmulateError as error:
        print(f"Instructions were not counted: {error}", file=sys.stderr)
        sys.exit(6)
    names = options.model or (QUICK if options.quick else NAMES)
    ours = [label for label in COLUMNS if label.startswith(OURS)]
    labels = options.route or (ours if options.quick else COLUMNS)
    document: dict[str, Any] = {"claim": CLAIM, "versions": counting.versions(), "models": {}}
    for name in names:
        print(f"counting {name}", file=sys.stderr, flush=True)
        document["models"][name] = count(name, labels, fetched=not options.quick)
        page.write(options.output, document)
    recorded = page.read(RECORDED)
    lines = regressions(recorded["models"], document["models"], labels) if recorded else []
    estimates = wrong_estimates(document["models"])
    for line in (*lines, *estimates):
        print(line)
    if options.renew or recorded is None:
        partial = recorded and (options.model or options.route)
        before = recorded["models"] if partial else {}
        page.write(RECORDED, {**document, "models": merge(before, document["models"])})
        page.update()
        print(f"Updated {RECORDED.relative_to(page.ROOT)} and {page.PAGE.relative_to(page.ROOT)}.")
        return
    print(f"{len(lines)} counts of edgeattn have grown by more than {GROWTH:.0%} or failed.")
    print(f"{len(estimates)} estimates differ from the counts by more than {ESTIMATE:.0%}.")
    if lines:
        print(RENEW)
    if estimates:
        print("Count the operators again: python -m benchmarks.operator_costs")
    if lines or estimates:
        sys.exit(1)


if __name__ == "__main__":
    main()
