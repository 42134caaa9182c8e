"""Count the ARM instructions of one inference on the cores of a Pi 4 and a Pi 5.

The counts are made under emulation and are not times: cache misses, memory and stalls are not
included. They are exact and repeatable, so they are recorded in the repository, and ``make
instructions`` fails if a count of edgeattn has grown by more than 2%. ``--renew`` records the new
counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.model_names import NAMES

RECORDED = page.RESULTS / "instructions.json"
GROWTH = 0.02
CPUS = ("cortex-a72", "cortex-a76")
CLAIM = "instructions under emulation, not time"
OURS = "edgeattn"
RENEW = "If the change is intended, record these counts: make instructions RENEW=1"
# The models of a quick run, which a test performs.
QUICK = ("T10-LSTM128", "T50-GRU64")
LOWERINGS = ("unrolled", "chunked", "fused")
STOCK = {
    "float32": ("a stock TFLite", "b stock unroll"),
    "dynamic_int8": ("a dynamic", "b dynamic"),
}
# The lowerings that `--lowering auto` selects from, and the routes that they are compared with.
FETCH_ROUTES = (
    *("a stock TFLite", "b stock unroll", "edgeattn TFLite"),
    *(f"edgeattn TFLite {lowering}" for lowering in LOWERINGS),
)
LINE_BYTES = 64
COLUMNS = (
    *("a stock TFLite", "b stock unroll", "edgeattn TFLite", "edgeattn TFLite unrolled"),
    *("edgeattn TFLite chunked", "edgeattn TFLite fused", "a dynamic", "b dynamic"),
    *("edgeattn TFLite dynamic", "c Keras ONNX", "edgeattn ONNX", "c dynamic"),
    "edgeattn ONNX dynamic",
)


def count(name: str, *, ours_only: bool = False) -> dict[str, Any]:
    """Count the instructions of one inference of a model, by processor and route."""
    from benchmarks import counting

    labels = [label for label in COLUMNS if not ours_only or label.startswith(OURS)]
    with tempfile.TemporaryDirectory(prefix="edgeattn-instructions-") as scratch:
        folder = Path(scratch)
        files = counting.make_files(name, labels, folder)
        counts = {cpu: counting.count(folder, files, cpu) for cpu in CPUS}
        if not ours_only:
            _add_fetched_lines(counts, folder, files)
        return counts


def _add_fetched_lines(counts: dict[str, Any], folder: Path, files: dict[str, Any]) -> None:
    """Add the cache lines fetched from memory to the float32 TFLite routes, in place."""
    from benchmarks import counting

    selected = {label: files[label] for label in FETCH_ROUTES}
    for cpu, routes in counts.items():
        fetched = counting.count(folder, selected, cpu, counting.FETCHED)
        for label, route in fetched.items():
            if counting.FETCHED in route:
                routes[label][counting.FETCHED] = route[counting.FETCHED]


def regressions(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe the routes of edgeattn that grew by more than 2%, failed or became incorrect.

    Only models in both documents are compared.
    """
    lines = []
    for name in recorded.keys() & now.keys():
        for cpu, routes in recorded[name].items():
            for label, before in routes.items():
                after = now[name].get(cpu, {}).get(label, {})
                if not label.startswith(OURS) or not before.get("correct"):
                    continue
                title = f"{name}, {label}, {cpu}"
                if not after.get("correct"):
                    reason = after.get("failed", f"max abs error {after.get('max_abs_error')}")
                    lines.append(f"{title}: {before['instructions']:,} before, now {reason}")
                elif after["instructions"] > (1 + GROWTH) * before["instructions"]:
                    change = 100 * (after["instructions"] / before["instructions"] - 1)
                    lines.append(
                        f"{title}: {before['instructions']:,} before, "
                        f"{after['instructions']:,} now ({change:+.1f}%; {CLAIM})"
                    )
    return sorted(lines)


def fewest(routes: dict[str, Any], labels: Sequence[str]) -> tuple[str, int] | None:
    """Return the correct route with the fewest instructions, and their number."""
    correct = [
        (label, int(routes[label]["instructions"]))
        for label in labels
        if routes.get(label, {}).get("correct")
    ]
    return min(correct, key=lambda item: item[1], default=None)


def table(document: dict[str, Any]) -> str:
    """Return the counts of all routes on both processors as Markdown."""
    versions = ", ".join(f"{name} {v}" for name, v in document["versions"].items())
    lines = [f"Millions of ARM instructions per inference, under emulation ({versions})."]
    for cpu, board in zip(CPUS, ("Pi 4", "Pi 5"), strict=True):
        lines += ["", f"### {cpu} ({board}): {CLAIM}", ""]
        lines += ["| model | " + " | ".join(label.replace("edgeattn ", "") for label in COLUMNS)]
        lines[-1] += " |"
        lines += ["|---|" + "---:|" * len(COLUMNS)]
        for name, counts in document["models"].items():
            cells = [_cell(counts[cpu].get(label, {})) for label in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(route: dict[str, Any]) -> str:
    if "instructions" not in route:
        return "failed"
    millions = f"{route['instructions'] / 1e6:.2f}"
    return millions if route["correct"] else f"{millions} (incorrect)"


def lowering_table(document: dict[str, Any]) -> str:
    """Compare ``--lowering auto`` with the other lowerings, as Markdown."""
    lines = [
        "Millions of ARM instructions per inference, under emulation; in parentheses, megabytes "
        "fetched from memory according to a model of the data caches.",
        "",
        "| model | processor | best correct stock | auto | unrolled | chunked | fused | fewest "
        "| auto / fewest |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    forced = {lowering: f"{OURS} TFLite {lowering}" for lowering in LOWERINGS}
    for name, counts in document["models"].items():
        for cpu in CPUS:
            routes = counts[cpu]
            smallest = fewest(routes, list(forced.values()))
            stock = fewest(routes, STOCK["float32"])
            auto = routes.get(f"{OURS} TFLite", {})
            if smallest is None or not auto.get("correct"):
                continue
            columns = [routes.get(stock[0], {}) if stock else {}, auto]
            columns += [routes.get(label, {}) for label in forced.values()]
            lines.append(
                f"| {name} | {cpu} | {' | '.join(map(_cell_with_megabytes, columns))} "
                f"| {smallest[0].split()[-1]} | {auto['instructions'] / smallest[1]:.2f} |"
            )
    return "\n".join(lines)


def _cell_with_megabytes(route: dict[str, Any]) -> str:
    lines = route.get("lines_fetched")
    return _cell(route) + (f" ({lines * LINE_BYTES / 1e6:.2f})" if lines is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two models, routes of edgeattn only")
    parser.add_argument("--model", choices=NAMES, action="append", help="only these models")
    parser.add_argument("--renew", action="store_true", help="record the new counts")
    parser.add_argument(
        "--output", type=Path, default=page.SCRATCH / "instructions.json", metavar="FILE"
    )
    options = parser.parse_args()
    if options.renew and options.quick:
        parser.error("--renew requires all routes: omit --quick, or pass --model")

    from benchmarks import counting

    try:
        counting.prepare()
    except counting.CannotEmulate as error:
        print(f"Instructions were not counted: {error}", file=sys.stderr)
        sys.exit(6)
    names = options.model or (QUICK if options.quick else NAMES)
    document: dict[str, Any] = {"claim": CLAIM, "versions": counting.versions(), "models": {}}
    for name in names:
        print(f"counting {name}", file=sys.stderr, flush=True)
        document["models"][name] = count(name, ours_only=options.quick)
        page.write(options.output, document)
    recorded = page.read(RECORDED)
    lines = regressions(recorded["models"], document["models"]) if recorded else []
    for line in lines:
        print(line)
    if options.renew or recorded is None:
        before = recorded["models"] if recorded and options.model else {}
        page.write(RECORDED, {**document, "models": {**before, **document["models"]}})
        page.update()
        print(f"Updated {RECORDED.relative_to(page.ROOT)} and {page.PAGE.relative_to(page.ROOT)}.")
        return
    print(f"{len(lines)} counts of edgeattn have grown by more than {GROWTH:.0%} or failed.")
    if lines:
        print(RENEW)
        sys.exit(1)


if __name__ == "__main__":
    main()
