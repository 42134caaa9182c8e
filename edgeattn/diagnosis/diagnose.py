"""Diagnosis of artifacts: the first operator with correct inputs and a wrong output.

The reference is the float32 artifact of the same format, which validation compares with Keras. If
it is wrong itself, the reference is the most precise artifact of the format that is correct.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.diagnosis.graph import DATA_MOVEMENT
from edgeattn.diagnosis.messages import (
    Comparison,
    Diagnosis,
    batch_fault,
    diagnosis_of,
    has_other_lowerings,
    located_operator,
    remedy_of_lowering,
)
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.diagnosis.samples import compared_samples
from edgeattn.errors import EdgeattnError
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.process.limits import run_limits
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.validation.report import ArtifactReport

LISTED_OPERATORS = 8
# The highest SNR that is required, since float32 itself rounds.
MAX_LIMIT_DB = 60.0
BY_PRECISION = ("float32", "float16", "int16x8", "dynamic_int8", "int8", "int4")
# Schemes whose inner values are equal to those of float32, apart from rounding of the weights.
_EQUAL_VALUES = ("float32", "float16")
BATCH_METRICS = ("batch_error", "batch_equal_values")
MAX_LOCATED = 4  # samples
_OPEN_FILE = {
    "tflite": "edgeattn.diagnosis.tflite:InstrumentedTFLite",
    "onnx": "edgeattn_converters.diagnosis.onnx:InstrumentedONNX",
}
_COMPARE_FILES = {
    "tflite": "edgeattn.diagnosis.tflite:compare_tflite",
    "onnx": "edgeattn_converters.diagnosis.onnx:compare_onnx",
}


@dataclass(frozen=True)
class ArtifactDiagnosis:
    """The diagnosis of one artifact; ``reference`` is the label of what it was compared with."""

    artifact: Artifact
    verdict: str
    diagnosis: Diagnosis
    reference: str | None = None
    comparison: GraphComparison = field(default_factory=lambda: GraphComparison(()))

    @property
    def worst(self) -> tuple[OperatorComparison, ...]:
        """The operators with the largest isolated errors, after the one the diagnosis names."""
        first = self.diagnosis.operator
        candidates = [
            operator
            for operator in self.comparison.operators
            if operator is first
            or (math.isfinite(operator.isolated_db) and operator.kind not in DATA_MOVEMENT)
        ]
        candidates.sort(key=lambda operator: (operator is not first, operator.isolated_db))
        return tuple(candidates[:LISTED_OPERATORS])

    def to_json(self) -> dict[str, Any]:
        first = self.diagnosis.operator
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "verdict": self.verdict,
            "reference": self.reference,
            "found": self.diagnosis.message,
            "cure": self.diagnosis.remedy,
            "operator": None if first is None else first.to_json(),
            "compared": len(self.comparison.operators),
            "unmatched": self.comparison.unmatched,
            "outputs_snr_db": self.comparison.to_json()["outputs_db"],
            "worst": [operator.to_json() for operator in self.worst],
        }


def diagnose(
    bundle: Bundle,
    reports: Sequence[ArtifactReport],
    *,
    validate: Callable[[Artifact], ArtifactReport],
) -> tuple[ArtifactDiagnosis, ...]:
    """Diagnose the artifacts of ``reports``, which :func:`edgeattn.validate` returned.

    ``validate`` is called for reference artifacts that have no report. Omitted are float32
    artifacts that pass and artifacts without an installed runtime. A file that cannot be compared
    gets a diagnosis with the reason.
    """
    with Worker() as worker:
        diagnoser = _Diagnoser(bundle, reports, validate, worker)
        return tuple(
            diagnoser.diagnose(report)
            for report in reports
            if (report.runtime is not None or report.broken)
            and (report.artifact.scheme != "float32" or report.verdict != PASS)
        )


class _Diagnoser:
    """Diagnoses artifacts of one bundle and remembers the reports on their references."""

    def __init__(
        self,
        bundle: Bundle,
        reports: Sequence[ArtifactReport],
        validate: Callable[[Artifact], ArtifactReport],
        worker: Worker,
    ) -> None:
        self._bundle = bundle
        self._arrays = bundle.reference()
        self._reports = {report.artifact.label: report for report in reports}
        self._validate = validate
        self._worker = worker

    def diagnose(self, report: ArtifactReport) -> ArtifactDiagnosis:
        artifact = report.artifact
        progress.report(f"diagnosing {artifact.label}")
        if report.broken:
            failure = Diagnosis(f"The artifact does not run: {report.reason}")
            return ArtifactDiagnosis(artifact, report.verdict, failure)
        if report.failed and all(check.metric in BATCH_METRICS for check in report.failed):
            return ArtifactDiagnosis(artifact, report.verdict, batch_fault(report))
        if artifact.format == "onnx" and importlib.util.find_spec("onnx") is None:
            missing = Diagnosis(
                "The diagnosis of ONNX files requires the package onnx, which is not installed.",
                "Install it, or run this command where the model was converted: pip install "
                "'edgeattn[convert]'",
            )
            return ArtifactDiagnosis(artifact, report.verdict, missing)
        lowering = self._lowering_fault(artifact)
        reference = self._reference(artifact)
        if reference is None:
            no_reference = Diagnosis(
                f"The bundle has no other correct {artifact.format} artifact to compare with.",
                "Convert with more schemes: --scheme float32 --scheme float16",
            )
            other = self._reference_of_other_format(artifact)
            located = None if other is None else self._locate(report, other)
            return ArtifactDiagnosis(
                artifact,
                report.verdict,
                _combine(lowering, located or (None if lowering else no_reference)),
                None if located is None or other is None else other.label,
            )
        try:
            comparison = self._compare(report, reference)
        except WorkerDiedError as error:
            failure = Diagnosis(f"The artifact cannot be diagnosed: the worker {error.message}.")
            return ArtifactDiagnosis(artifact, report.verdict, _combine(lowering, failure))
        except EdgeattnError as error:
            failure = Diagnosis(error.message, error.hint)
            return ArtifactDiagnosis(artifact, report.verdict, _combine(lowering, failure))
        diagnosis = diagnosis_of(comparison)
        graphs, operator = comparison.graphs, diagnosis.operator
        unnamed = operator is None or bool(operator.unmatched_before)
        if unnamed and comparison.verdict != PASS and not (graphs.swapped or graphs.misnamed):
            # The fault may be in an operator without a counterpart.
            diagnosis = self._locate(report, reference) or diagnosis
        if comparison.verdict != report.verdict and report.verdict == FAIL:
            metrics = ", ".join(sorted({check.metric for check in report.failed}))
            message = f"The outputs are within their limits; the artifact fails by: {metrics}."
            diagnosis = Diagnosis(f"{message} {diagnosis.message}", None, diagnosis.operator)
        return ArtifactDiagnosis(
            artifact,
            report.verdict,
            _combine(lowering, diagnosis),
            reference.label,
            comparison.graphs,
        )

    def _compare(self, report: ArtifactReport, reference: Artifact) -> Comparison:
        from edgeattn.metrics.limits import LIMITS

        artifact = report.artifact
        limit_db = min(
            LIMITS[artifact.scheme].snr_db, LIMITS[reference.scheme].snr_db, MAX_LIMIT_DB
        )
        samples = compared_samples(self._bundle, report, self._arrays)
        result, _ = self._worker.call(
            _COMPARE_FILES[artifact.format],
            {
                "reference": _file(self._bundle, reference),
                "artifact": _file(self._bundle, artifact),
                "limit_db": limit_db,
                "maps": list(artifact.attention),
            },
            {spec.name: self._arrays[f"input/{spec.name}"][samples] for spec in artifact.inputs},
            timeout=run_limits().seconds,
            memory=run_limits().memory,
        )
        missed = (*report.failed, *(check for _, check in report.open_limits))
        outputs_fail = any(check.stage != "structure" for check in missed)
        return Comparison(
            GraphComparison.from_json(result),
            artifact,
            reference,
            report.verdict if outputs_fail or report.stages["task"] == FAIL else PASS,
            limit_db,
            str(self._bundle.manifest.model["file"]),
            {name for name, state in report.stages.items() if state == FAIL}
            | {check.stage for _, check in report.open_limits},
            has_other_lowerings(self._bundle.manifest.model),
        )

    def _locate(self, report: ArtifactReport, reference: Artifact) -> Diagnosis | None:
        """Return a diagnosis by the values of all tensors, None if no operator stands out."""
        artifact = report.artifact
        if artifact.scheme not in _EQUAL_VALUES or reference.scheme not in _EQUAL_VALUES:
            return None
        samples = compared_samples(self._bundle, report, self._arrays)[:MAX_LOCATED]
        try:
            result, _ = self._worker.call(
                "edgeattn.diagnosis.by_value:locate_in_files",
                {
                    name: {"open": _OPEN_FILE[item.format], **_file(self._bundle, item)}
                    for name, item in (("reference", reference), ("artifact", artifact))
                },
                {
                    spec.name: self._arrays[f"input/{spec.name}"][samples]
                    for spec in artifact.inputs
                },
                timeout=run_limits().seconds,
                memory=run_limits().memory,
            )
        except (WorkerDiedError, EdgeattnError):
            return None  # the comparison of operators reports why a file cannot be compared
        model = str(self._bundle.manifest.model["file"])
        return located_operator(result, artifact, reference, model) if result else None

    def _reference_of_other_format(self, artifact: Artifact) -> Artifact | None:
        """Return a correct float32 or float16 artifact of another format."""
        if any(importlib.util.find_spec(name) is None for name in ("onnx", "edgeattn_converters")):
            return None
        for other in self._bundle.manifest.artifacts:
            if other.format != artifact.format and other.scheme in _EQUAL_VALUES:
                report = self._report_on(other)
                if report.verdict == PASS or (report.runtime and _outputs_pass(report)):
                    return other
        return None

    def _report_on(self, artifact: Artifact) -> ArtifactReport:
        if artifact.label not in self._reports:
            self._reports[artifact.label] = self._validate(artifact)
        return self._reports[artifact.label]

    def _reference(self, artifact: Artifact) -> Artifact | None:
        """Return the most precise other artifact of the format that is correct."""
        others = [
            other
            for other in self._bundle.manifest.artifacts
            if other.format == artifact.format and other.label != artifact.label
        ]
        for other in sorted(others, key=lambda other: BY_PRECISION.index(other.scheme)):
            report = self._report_on(other)
            if report.verdict == PASS or (report.runtime and _outputs_pass(report)):
                return other
        return None

    def _lowering_fault(self, artifact: Artifact) -> Diagnosis | None:
        """Return a diagnosis if the float32 artifact is wrong, whatever the precision."""
        for other in self._bundle.manifest.artifacts:
            if other.format != artifact.format or other.scheme != "float32":
                continue
            report = self._report_on(other)
            outputs = sorted({check.output for check in report.failed if check.output})
            if report.runtime is None or not outputs:
                return None
            return Diagnosis(
                f"{other.label} itself differs from Keras ({', '.join(outputs)}): the fault is in "
                "the lowering of the model or in the file, not in the precision.",
                remedy_of_lowering(other, self._bundle.manifest.model),
            )
        return None


def _combine(lowering: Diagnosis | None, diagnosis: Diagnosis | None) -> Diagnosis:
    if lowering is None or diagnosis is None:
        result = lowering or diagnosis
        assert result is not None
        return result
    message = f"{lowering.message} {diagnosis.message}"
    return Diagnosis(message, diagnosis.remedy or lowering.remedy, diagnosis.operator)


def _outputs_pass(report: ArtifactReport) -> bool:
    """Return whether all outputs agree with Keras, regardless of the task."""
    stages = report.stages
    return stages["numbers"] == PASS and stages["attention"] != FAIL and not report.broken


def _file(bundle: Bundle, artifact: Artifact) -> Mapping[str, Any]:
    return {
        "path": str(bundle.artifact_path(artifact)),
        "inputs": [spec.to_json() for spec in artifact.inputs],
        "outputs": [spec.to_json() for spec in artifact.outputs],
    }
