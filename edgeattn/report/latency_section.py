"""Values of the section on size and latency, from the results of ``edgeattn bench``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn.benchmark.document import COLUMNS, place
from edgeattn.printable import counted
from edgeattn.report.svg_figures import Figure, LatencyPoint, latency_plot
from edgeattn.validation.report import ArtifactReport, Report


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
    machine = place(bench)
    threads = ", ".join(
        counted(count, "thread")
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
