"""The result of ``edgeattn.validate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edgeattn.api.pictures import compare_maps
from edgeattn.api.result import Result, number
from edgeattn.api.sources import Workspace
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.diagnosis.diagnose import ArtifactDiagnosis
    from edgeattn.validation.bundle_comparison import BundleComparison
    from edgeattn.validation.recommendation import Recommendation
    from edgeattn.validation.report import ArtifactReport, Report

REGRESSION = 7


@dataclass(frozen=True, repr=False)
class ValidationResult(Result):
    """The report on the artifacts of a bundle.

    Attributes:
        bundle: The bundle; a temporary one for a .tflite or .onnx file.
        report: Checks and verdicts of each artifact.
        target: Where the artifacts ran: ``here``, a Python or a host.
        diagnoses: The first operator of each artifact that computes wrong values, if requested.
        notes: How a .tflite or .onnx file was compared, and what Keras' own quantization of the
            model, which the verdicts do not cover, had changed.
        bench: The document of ``edgeattn bench`` with latencies, if one was given.
        comparison: What changed from the bundle of ``compare``, if one was given.
    """

    bundle: Bundle
    report: Report
    target: str
    diagnoses: tuple[ArtifactDiagnosis, ...] | None = None
    notes: tuple[str, ...] = ()
    bench: Mapping[str, Any] | None = None
    comparison: BundleComparison | None = None
    _workspace: Workspace | None = field(default=None, compare=False)

    @property
    def artifacts(self) -> tuple[ArtifactReport, ...]:
        return self.report.artifacts

    @property
    def verdict(self) -> str:
        return self.report.verdict

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.report.warnings

    @property
    def exit_code(self) -> int:
        """0 for a pass, 1 if an artifact fails, 7 if one is worse than that of ``compare``, 6 if
        inconclusive, 5 if nothing ran."""
        code = self.report.exit_code
        regressed = self.comparison is not None and bool(self.comparison.regressions)
        return REGRESSION if regressed and code != 1 else code

    @property
    def recommendation(self) -> Recommendation:
        """The smallest artifact that passes or, with ``bench``, the fastest."""
        from edgeattn.benchmark.document import medians, place
        from edgeattn.validation.recommendation import (
            LATENCY,
            lowest_latencies,
            recommend_reported,
        )

        manifest, bench = self.bundle.manifest, self.bench
        if bench is None:
            return recommend_reported(self.artifacts, manifest, self.target)
        latencies = lowest_latencies(
            (item.artifact, threads, milliseconds)
            for item in self.artifacts
            for threads, milliseconds in medians(bench, item.artifact).items()
        )
        chosen = recommend_reported(self.artifacts, manifest, self.target, latencies)
        return replace(chosen, timed_on=place(bench)) if chosen.criterion == LATENCY else chosen

    def to_json(self) -> dict[str, Any]:
        """The document of the report alone, see :meth:`to_dict`."""
        return self.report.to_json()

    def plot(self, artifact: str | None = None, map: str | None = None, *, sample: int = 0) -> Any:
        """A figure of an attention map of the reference in Keras and in an artifact.

        ``artifact`` is a label such as ``"tflite int8"``, by default the first with a map.
        """
        return compare_maps(self.bundle, self.artifacts, artifact, map, sample)

    def _document(self) -> dict[str, Any]:
        document = {**self.report.to_json(), "recommended": self.recommendation.to_json()}
        if self.comparison is not None:
            document["comparison"] = self.comparison.to_json()
        if self.diagnoses is not None:
            document["explanation"] = [item.to_json() for item in self.diagnoses]
        return document

    def _summary(self) -> str:
        count = len(self.artifacts)
        name = self.bundle.path.name
        return f"{name}: {self.verdict}, {counted(count, 'artifact')}, {self.recommendation.short}"

    def _table(self) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        header = ["verdict", "format", "scheme", "max abs error", "runtime", "reason"]
        return header, [
            [
                item.verdict,
                item.artifact.format,
                item.artifact.scheme,
                number(item.max_abs_error),
                item.runtime or "-",
                item.verdict_reason or "",
            ]
            for item in self.artifacts
        ]
