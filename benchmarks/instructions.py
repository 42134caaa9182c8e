"""ARM instructions of one inference, on a Pi 4's core and a Pi 5's: ``make instructions``.

Counted under emulation, and no time: cache misses, memory and stalls are not in it. It is exact and
repeats, so the table is kept in the repository, and a run fails where a figure of ours has grown by
more than 2%. ``--renew`` keeps the new figures instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.names import NAMES

KEPT = page.RESULTS / "instructions.json"
GROWTH = 0.02
CPUS = ("cortex-a72", "cortex-a76")
CLAIM = "instructions under emulation, not time"
OURS = "edgeattn"
RENEW = "If it is meant to be so: make instructions RENEW=1"
# The models of a quick run, which a test makes.
QUICK = ("T10-LSTM128", "T50-GRU64")
LOWERINGS = ("unrolled", "chunked", "fused")
STOCK = {
    "float32": ("a stock TFLite", "b stock unroll"),
    "dynamic_int8": ("a dynamic", "b dynamic"),
}
# What `--lowering auto` chooses between, and what it is held to.
WEIGHED = (
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
    """By processor and route the instructions of one inference of a model."""
    from benchmarks import counting

    labels = [label for label in COLUMNS if not ours_only or label.startswith(OURS)]
    with tempfile.TemporaryDirectory(prefix="edgeattn-counted-") as scratch:
        folder = Path(scratch)
        files = counting.made(name, labels, folder)
        found = {cpu: counting.counted(folder, files, cpu) for cpu in CPUS}
        if not ours_only:
            _add_fetched(found, folder, files)
        return found


def _add_fetched(found: dict[str, Any], folder: Path, files: dict[str, Any]) -> None:
    """To the float32 TFLite routes what they fetch from memory, in place."""
    from benchmarks import counting

    weighed = {label: files[label] for label in WEIGHED}
    for cpu, routes in found.items():
        told = counting.counted(folder, weighed, cpu, counting.FETCHED)
        for label, route in told.items():
            if counting.FETCHED in route:
                routes[label][counting.FETCHED] = route[counting.FETCHED]


def grown(kept: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of ours takes over 2% more than the kept table says, or is no longer counted or right;
    only models that are in both."""
    told = []
    for name in kept.keys() & now.keys():
        for cpu, routes in kept[name].items():
            for label, before in routes.items():
                after = now[name].get(cpu, {}).get(label, {})
                if not label.startswith(OURS) or not before.get("right"):
                    continue
                where = f"{name}, {label}, {cpu}"
                if not after.get("right"):
                    why = after.get("failed", f"wrong by {after.get('max_abs_error')}")
                    told.append(f"{where}: {before['instructions']:,} before, now {why}")
                elif after["instructions"] > (1 + GROWTH) * before["instructions"]:
                    change = 100 * (after["instructions"] / before["instructions"] - 1)
                    told.append(
                        f"{where}: {before['instructions']:,} before, "
                        f"{after['instructions']:,} now ({change:+.1f}%; {CLAIM})"
                    )
    return sorted(told)


def best(routes: dict[str, Any], labels: Sequence[str]) -> tuple[str, int] | None:
    """Which of these routes is right and takes fewest instructions."""
    right = [
        (label, int(routes[label]["instructions"]))
        for label in labels
        if routes.get(label, {}).get("right")
    ]
    return min(right, key=lambda item: item[1]) if right else None


def table(document: dict[str, Any]) -> str:
    """Every route on both processors as Markdown, in millions."""
    versions = ", ".join(f"{name} {v}" for name, v in document["versions"].items())
    lines = [f"Millions of ARM {CLAIM}, of one inference ({versions})."]
    for cpu, board in zip(CPUS, ("Pi 4", "Pi 5"), strict=True):
        lines += ["", f"### {cpu} ({board}): {CLAIM}", ""]
        lines += ["| model | " + " | ".join(label.replace("edgeattn ", "") for label in COLUMNS)]
        lines[-1] += " |"
        lines += ["|---|" + "---:|" * len(COLUMNS)]
        for name, counted in document["models"].items():
            cells = [_cell(counted[cpu].get(label, {})) for label in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(route: dict[str, Any]) -> str:
    if "instructions" not in route:
        return "not made"
    told = f"{route['instructions'] / 1e6:.2f}"
    return told if route["right"] else f"wrong: {told}"


def choices(document: dict[str, Any]) -> str:
    """For each model the lowering that takes fewest, beside what ``--lowering auto`` made."""
    lines = [
        f"Millions of ARM {CLAIM}; in brackets the megabytes fetched from memory, by a model of "
        "the board's data caches.",
        "",
        "| model | processor | best right stock | auto | unrolled | chunked | fused | fewest "
        "| auto over the fewest |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    forced = {lowering: f"{OURS} TFLite {lowering}" for lowering in LOWERINGS}
    for name, counted in document["models"].items():
        for cpu in CPUS:
            routes = counted[cpu]
            found = best(routes, list(forced.values()))
            stock = best(routes, STOCK["float32"])
            auto = routes.get(f"{OURS} TFLite", {})
            if found is None or not auto.get("right"):
                continue
            told = [routes.get(stock[0], {}) if stock else {}, auto]
            told += [routes.get(label, {}) for label in forced.values()]
            lines.append(
                f"| {name} | {cpu} | {' | '.join(_with_fetched(route) for route in told)} "
                f"| {found[0].split()[-1]} | {auto['instructions'] / found[1]:.2f} |"
            )
    return "\n".join(lines)


def _with_fetched(route: dict[str, Any]) -> str:
    lines = route.get("lines_fetched")
    return _cell(route) + (f" ({lines * LINE_BYTES / 1e6:.2f})" if lines is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two models, only what edgeattn makes")
    parser.add_argument("--model", choices=NAMES, action="append", help="only these")
    parser.add_argument("--renew", action="store_true", help="keep the new figures")
    parser.add_argument(
        "--output", type=Path, default=page.SCRATCH / "instructions.json", metavar="FILE"
    )
    options = parser.parse_args()
    if options.renew and options.quick:
        parser.error("--renew keeps whole rows: leave --quick out, or name a --model")

    from benchmarks import counting

    try:
        counting.prepared()
    except counting.CannotEmulate as why:
        print(f"Not counted: {why}", file=sys.stderr)
        sys.exit(6)
    names = options.model or (QUICK if options.quick else NAMES)
    document: dict[str, Any] = {"claim": CLAIM, "versions": counting.versions(), "models": {}}
    for name in names:
        print(f"counting {name}", file=sys.stderr, flush=True)
        document["models"][name] = count(name, ours_only=options.quick)
        page.write(options.output, document)
    kept = page.read(KEPT)
    told = grown(kept["models"], document["models"]) if kept else []
    for line in told:
        print(line)
    if options.renew or kept is None:
        before = kept["models"] if kept and options.model else {}
        page.write(KEPT, {**document, "models": {**before, **document["models"]}})
        page.renew()
        print(f"Kept in {KEPT.relative_to(page.ROOT)} and {page.PAGE.relative_to(page.ROOT)}.")
        return
    print(f"{len(told)} of edgeattn's figures have grown by more than {GROWTH:.0%}.")
    if told:
        print(RENEW)
        sys.exit(1)


if __name__ == "__main__":
    main()
