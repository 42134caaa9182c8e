"""Recorded counts of ARM instructions: tables, and counts that have grown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GROWTH = 0.02
# The largest relative difference between the ratios of estimates and of counts.
ESTIMATE = 0.2
CPUS = ("cortex-a72", "cortex-a76")
CLAIM = "instructions under emulation, not time"
OURS = "edgeattn"
LOWERINGS = ("unrolled", "chunked", "fused")
STOCK = {
    "float32": ("a stock TFLite", "b stock unroll"),
    "dynamic_int8": ("a dynamic", "b dynamic"),
}
LINE_BYTES = 64
COLUMNS = (
    *("a stock TFLite", "b stock unroll", "edgeattn TFLite", "edgeattn TFLite unrolled"),
    *("edgeattn TFLite chunked", "edgeattn TFLite fused", "a dynamic", "b dynamic"),
    *("edgeattn TFLite dynamic", "edgeattn TFLite dynamic unrolled", "edgeattn TFLite int8"),
    *("edgeattn TFLite int8 unrolled", "c Keras ONNX", "edgeattn ONNX", "c dynamic"),
    "edgeattn ONNX dynamic",
)


def regressions(
    recorded: dict[str, Any], now: dict[str, Any], labels: Sequence[str] = COLUMNS
) -> list[str]:
    """Describe the routes of edgeattn that grew by more than 2%, failed or became incorrect.

    Only the routes ``labels`` of models in both documents are compared.
    """
    lines = []
    for name in recorded.keys() & now.keys():
        for cpu, routes in recorded[name].items():
            for label, before in routes.items():
                after = now[name].get(cpu, {}).get(label, {})
                if label not in labels or not label.startswith(OURS):
                    continue
                if not before.get("correct"):
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
            cells = [_cell(counts[cpu].get(label)) for label in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def wrong_estimates(models: dict[str, Any]) -> list[str]:
    """Describe the files of edgeattn whose estimate is far from the count.

    Selections depend on ratios of estimates, so both are relative to those of the float32 file.
    """
    lines = []
    for name, counts in models.items():
        for cpu, routes in counts.items():
            base = routes.get(f"{OURS} TFLite", {})
            for label, route in routes.items():
                if "estimated" not in base or not label.startswith(OURS):
                    continue
                if "estimated" not in route or not route.get("correct"):
                    continue
                ratios = [route[k] / base[k] for k in ("estimated", "instructions")]
                if abs(ratios[0] / ratios[1] - 1) > ESTIMATE:
                    lines.append(
                        f"{name}, {label}, {cpu}: estimated {ratios[0]:.2f} of the instructions of "
                        f"float32, counted {ratios[1]:.2f}"
                    )
    return sorted(lines)


def _cell(route: dict[str, Any] | None) -> str:
    if route is None:
        return "-"
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


# The routes of a lowering: float32, dynamic_int8 and int8.
SAME_LOWERING = {
    how: tuple(f"{OURS} TFLite{scheme}{suffix}" for scheme in ("", " dynamic", " int8"))
    for how, suffix in (("auto", ""), ("unrolled", " unrolled"))
}
# The ratio to float32 that int8 or dynamic_int8 should reach on a Cortex-A76.
GOAL = 0.6


def integer_table(document: dict[str, Any], bounds: dict[str, Any], names: Sequence[str]) -> str:
    """Compare int8 and dynamic_int8 with float32 in the same lowering, as Markdown.

    ``auto`` has a row only if it has loops in all three files, which files with steps written out
    show if they were counted. ``bounds`` are those of :mod:`benchmarks.kernel_bounds`.
    """
    lines = [
        "| model | steps | float32 | dynamic_int8 | int8 | fewest / float32 | with the cheapest "
        "kernels | fewest / float32, cortex-a72 |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    models = {name: document["models"][name] for name in names if name in document["models"]}
    for name, counts in models.items():
        for how, labels in SAME_LOWERING.items():
            base, *others = (counts[CPUS[1]].get(label, {}) for label in labels)
            unrolled = [counts[CPUS[1]].get(label, {}) for label in SAME_LOWERING["unrolled"]]
            counted = all("instructions" in item for item in (base, *others))
            same = any(map(_same, (base, *others), unrolled))
            if how == "auto" and (same or not counted):
                continue
            bound = bounds.get(name, {}).get(CPUS[1]) if how == "unrolled" else None
            cells = [_cell(item or None) for item in (base, *others)]
            ratios = [_ratio_to_float32(counts[cpu], labels) for cpu in (CPUS[1], CPUS[0])]
            texts = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            if ratios[0] is not None and ratios[0] <= GOAL:
                texts[0] = f"**{texts[0]}**"
            limit = "-" if bound is None else f"{bound:.2f}"
            steps = "written out" if how == "unrolled" else "in loops"
            row = (name, steps, *cells, texts[0], limit, texts[1])
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _ratio_to_float32(routes: dict[str, Any], labels: Sequence[str]) -> float | None:
    """The fewest instructions of a correct quantized file, relative to float32."""
    base, smallest = routes.get(labels[0], {}), fewest(routes, labels[1:])
    if smallest is None or "instructions" not in base:
        return None
    return float(smallest[1] / base["instructions"])


def _same(route: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two files are probably the same."""
    if "instructions" not in route or "instructions" not in other:
        return False
    return bool(abs(route["instructions"] / other["instructions"] - 1) < GROWTH)
