"""Values of the section on size and latency, from the results of ``edgeattn bench``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.report.svg_figures import Figure, LatencyPoint, latency_plot
from edgeattn.validation.report import ArtifactReport, Report

HINT = "Write one with: edgeattn bench BUNDLE --json > bench.json"
COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "load_ms")


@dataclass(frozen=True)
class LatencySection:
    """``rows`` are artifacts with their latencies in the order of :data:`COLUMNS`.

    ``results`` are the measured results by the label of the artifact, ``slowest`` is the largest
    median in milliseconds, and ``machine`` where they were measured, in words.
    """

    figure: Figure
    rows: list[tuple[ArtifactReport, list[float | None]]]
    results: Mapping[str, Mapping[str, Any]]
    machine: str

    @property
    def slowest(self) -> float:
        return max(float(result["p50_ms"]) for result in self.results.values())


def read_bench(path: Path) -> Mapping[str, Any]:
    """Read a file that ``edgeattn bench --json`` printed.

    Raises :class:`UsageError` if the file cannot be read or holds something else.
    """
    try:
        document: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        for item in document["artifacts"]:
            _ = (item["format"], item["scheme"], item["threads"], item["runs"])
            if not all(isinstance(item.get(name), float | int | None) for name in COLUMNS):
                raise ValueError("a latency is not a number")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not the JSON output of edgeattn bench.", hint=HINT) from error
    return document


def latency_section(report: Report, bench: Mapping[str, Any] | None) -> LatencySection | None:
    """A figure and a table row for each measured artifact; None if there is no measurement."""
    measured = {} if bench is None else _fewest_threads(bench)
    rows, points = [], []
    results: dict[str, Mapping[str, Any]] = {}
    for item in report.artifacts:
        artifact = item.artifact
        result = measured.get((artifact.format, artifact.scheme), {})
        if result.get("p50_ms") is not None:
            points.append(
                LatencyPoint(artifact.label, artifact.bytes, result["p50_ms"], item.verdict)
            )
            results[artifact.label] = result
            rows.append((item, [result.get(name) for name in COLUMNS]))
    if bench is None or not points:
        return None
    target = bench.get("place", "here")
    machine = "the machine that ran edgeattn bench" if target == "here" else str(target)
    threads = ", ".join(
        f"{count} thread" + "s" * (count != 1)
        for count in sorted({item["threads"] for item in measured.values()})
    )
    caption = (
        f"Size and median latency of one sequence on {machine}, {threads}. "
        "Hollow markers: verdict other than pass."
    )
    return LatencySection(Figure(latency_plot(points, caption), caption), rows, results, machine)


def _fewest_threads(bench: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The result with the fewest threads of every format and scheme."""
    results: dict[tuple[str, str], Mapping[str, Any]] = {}
    for item in bench["artifacts"]:
        key = (str(item["format"]), str(item["scheme"]))
        if key not in results or item["threads"] < results[key]["threads"]:
            results[key] = item
    return results
