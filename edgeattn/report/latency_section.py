"""Size against latency on the page, where somebody measured it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.errors import UsageError
from edgeattn.report import svg_figures as plots
from edgeattn.report.markup import badge, e, figure, number, size, table

if TYPE_CHECKING:
    from edgeattn.validation.validate import Report

HINT = "Write one with: edgeattn bench BUNDLE --json > bench.json"
COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "load_ms")


def read_bench(path: Path) -> Mapping[str, Any]:
    """What ``edgeattn bench --json`` printed; :class:`UsageError` where the file is another."""
    try:
        document = json.loads(path.read_text("utf-8"))
        for item in document["artifacts"]:
            _ = (item["format"], item["scheme"], item["threads"], item["runs"])
            if not all(isinstance(item.get(name), float | int | None) for name in COLUMNS):
                raise ValueError("a latency that is no number")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not what edgeattn bench prints.", hint=HINT) from error
    told: Mapping[str, Any] = document
    return told


def section(report: Report, bench: Mapping[str, Any] | None) -> Iterator[str]:
    """A figure and a table, or that nothing was measured."""
    yield '<section id="latency" aria-labelledby="latency-title">'
    yield '<h2 id="latency-title">Size and latency</h2>'
    measured = {} if bench is None else _fewest_threads(bench)
    rows, points = [], []
    for item in report.artifacts:
        artifact = item.artifact
        told = measured.get((artifact.format, artifact.scheme))
        if told is None or told.get("p50_ms") is None:
            continue
        points.append(plots.Speed(artifact.label, artifact.bytes, told["p50_ms"], item.verdict))
        latencies = [_milliseconds(told.get(name)) for name in COLUMNS]
        rows.append([e(artifact.label), badge(item.verdict), size(artifact.bytes), *latencies])
    if not points:
        yield (
            "<p>Latency: not measured. <code>edgeattn bench</code> measures it, and "
            "<code>edgeattn validate --bench bench.json</code> puts it here.</p></section>"
        )
        return
    assert bench is not None
    threads = {item["threads"] for item in measured.values()}
    place = bench.get("place", "here")
    where = "the machine that measured" if place == "here" else str(place)
    count = ", ".join(f"{n} thread" + "s" * (n != 1) for n in sorted(threads))
    caption = f"Median latency of one sequence against size, on {where}, {count}. Hollow: no pass."
    yield figure(plots.speeds(points, caption), caption)
    header = ["artifact", "verdict", "size", "p50, ms", "p90, ms", "p99, ms", "load, ms"]
    yield table("Latency as measured", header, rows, kind="cards")
    yield "</section>"


def _fewest_threads(bench: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in bench["artifacts"]:
        key = (str(item["format"]), str(item["scheme"]))
        if key not in found or item["threads"] < found[key]["threads"]:
            found[key] = item
    return found


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else number(value)
