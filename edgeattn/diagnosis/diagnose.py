"""Where an artifact goes wrong: the first operator whose inputs are right and whose output is not.

The reference is the float32 artifact of the same format, which the verdict holds to Keras. Where
that one is wrong itself, it is the most precise artifact of the bundle that is right.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeattn import progress
from edgeattn.diagnosis.graph import MOVING
from edgeattn.diagnosis.messages import Diagnosis, told
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.errors import EdgeattnError
from edgeattn.metrics.verdict import FAIL, PASS
from edgeattn.process.worker import Worker, WorkerDied

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.tensors import Array, Tensors
    from edgeattn.validation.report import ArtifactReport

# Sequences that are looked at: the worst, and others evenly.
WORST, OTHERS = 4, 8
# Operators that are listed.
LISTED = 8
# What can be told apart in float32.
FINEST_DB = 60.0
PRECISE = ("float32", "float16", "int16x8", "dynamic_int8", "int8", "int4")
_CALLS = {
    "tflite": "edgeattn.diagnosis.tflite:compare_files",
    "onnx": "edgeattn_converters.diagnosis.onnx:compare_files",
}


@dataclass(frozen=True)
class ArtifactDiagnosis:
    """What was found inside of an artifact.

    ``reference`` is the label of the artifact it was compared with; without one, ``told`` says why.
    ``compared`` are all operators that the reference has the like of.
    """

    artifact: Artifact
    verdict: str
    diagnosis: Diagnosis
    reference: str | None = None
    compared: GraphComparison = field(default_factory=lambda: GraphComparison(()))

    @property
    def operators(self) -> tuple[OperatorComparison, ...]:
        return self.compared.operators

    @property
    def worst(self) -> tuple[OperatorComparison, ...]:
        """The operators that add most noise by themselves, the one that is named at the top."""
        first = self.diagnosis.operator
        noisy = [
            item
            for item in self.operators
            if item is first or (math.isfinite(item.isolated_db) and item.kind not in MOVING)
        ]
        ordered = sorted(noisy, key=lambda item: (item is not first, item.isolated_db))
        return tuple(ordered[:LISTED])

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
            "compared": len(self.operators),
            "unmatched": self.compared.unmatched,
            "outputs_snr_db": self.compared.to_json()["outputs_db"],
            "worst": [item.to_json() for item in self.worst],
        }


def diagnose(
    bundle: Bundle,
    reports: Sequence[ArtifactReport],
    *,
    judge: Callable[[Artifact], ArtifactReport],
) -> tuple[ArtifactDiagnosis, ...]:
    """What is inside the artifacts of ``reports``, as :func:`edgeattn.validate` gave them.

    ``judge`` tells the verdict on an artifact of the bundle that is not among them. A float32
    artifact that is right needs no explanation and gets none. A file that cannot be taken apart is
    explained with the reason why.
    """
    known = {report.artifact.label: report for report in reports}

    def report_on(artifact: Artifact) -> ArtifactReport:
        if artifact.label not in known:
            known[artifact.label] = judge(artifact)
        return known[artifact.label]

    arrays = bundle.reference()
    found = []
    with Worker() as child:
        for report in reports:
            absent = report.runtime is None and not report.broken
            if absent or (report.artifact.scheme == "float32" and report.verdict == PASS):
                continue
            progress.report(f"taking {report.artifact.label} apart")
            found.append(_one(bundle, report, report_on, arrays, child))
    return tuple(found)


def _one(
    bundle: Bundle,
    report: ArtifactReport,
    report_on: Callable[[Artifact], ArtifactReport],
    arrays: Tensors,
    child: Worker,
) -> ArtifactDiagnosis:
    artifact = report.artifact
    if report.broken:
        return ArtifactDiagnosis(
            artifact, report.verdict, Diagnosis(f"It does not run: {report.reason}")
        )
    if artifact.format == "onnx" and importlib.util.find_spec("onnx") is None:
        return ArtifactDiagnosis(
            artifact,
            report.verdict,
            Diagnosis(
                "To explain an ONNX file, it is taken apart with the package onnx, which is not "
                "installed here.",
                "Do it where the model was converted: pip install 'edgeattn[convert]'",
            ),
        )
    reference = _reference(bundle, artifact, report_on)
    lowering = _lowering_fault(bundle, artifact, report_on)
    if reference is None:
        alone = Diagnosis(
            f"The bundle has no other {artifact.format} artifact that is right, to hold it to.",
            "Convert in more schemes: --scheme float32 --scheme float16",
        )
        return ArtifactDiagnosis(artifact, report.verdict, lowering or alone)
    from edgeattn.metrics.limits import LIMITS

    limit = min(LIMITS[artifact.scheme].snr_db, LIMITS[reference.scheme].snr_db, FINEST_DB)
    rows = _rows(bundle, report, arrays)
    inputs = {spec.name: arrays[f"input/{spec.name}"][rows] for spec in artifact.inputs}
    try:
        answer, _ = child.call(
            _CALLS[artifact.format],
            {
                "reference": _file(bundle, reference),
                "judged": _file(bundle, artifact),
                "limit_db": limit,
                "maps": list(artifact.attention),
            },
            inputs,
        )
    except WorkerDied as error:
        reason = Diagnosis(f"It cannot be taken apart: the process for it {error.message}.")
        return ArtifactDiagnosis(artifact, report.verdict, _both(lowering, reason))
    except EdgeattnError as error:
        reason = Diagnosis(error.message, error.hint)
        return ArtifactDiagnosis(artifact, report.verdict, _both(lowering, reason))
    compared = GraphComparison.from_json(answer)
    wrong = [check for check in report.failed if check.stage != "structure"]
    verdict = report.verdict if wrong or report.stages["task"] == FAIL else PASS
    model = str(bundle.manifest.model["file"])
    stages = {name for name, found in report.stages.items() if found == FAIL}
    words = told(compared, artifact, verdict, limit, reference, model, stages)
    if verdict != report.verdict and report.verdict == FAIL:
        # What rounds too much is not what fails it.
        failed = ", ".join(sorted({check.metric for check in report.failed}))
        why = f"What fails it is no number of its outputs, but: {failed}."
        words = Diagnosis(f"{why} {words.message}", None, words.operator)
    words = _both(lowering, words)
    return ArtifactDiagnosis(artifact, report.verdict, words, reference.label, compared)


def _both(lowering: Diagnosis | None, words: Diagnosis) -> Diagnosis:
    """That float32 is wrong first, then what was found in this artifact."""
    if lowering is None:
        return words
    cure = words.remedy or lowering.remedy
    return Diagnosis(f"{lowering.message} {words.message}", cure, words.operator)


def _reference(
    bundle: Bundle, artifact: Artifact, report_on: Callable[[Artifact], ArtifactReport]
) -> Artifact | None:
    """The most precise other artifact of the format that is right."""
    others = [
        item
        for item in bundle.manifest.artifacts
        if item.format == artifact.format and item.label != artifact.label
    ]
    for item in sorted(others, key=lambda item: PRECISE.index(item.scheme)):
        found = report_on(item)
        if found.verdict == PASS or (found.runtime and _numbers_pass(found)):
            return item
    return None


def _numbers_pass(report: ArtifactReport) -> bool:
    """Whether all that was compared with Keras is right, whatever became of the task."""
    stages = report.stages
    return stages["numbers"] == PASS and stages["attention"] != "fail" and not report.broken


def _lowering_fault(
    bundle: Bundle, artifact: Artifact, report_on: Callable[[Artifact], ArtifactReport]
) -> Diagnosis | None:
    """That float32 itself is wrong, which no precision cures."""
    for item in bundle.manifest.artifacts:
        if item.format != artifact.format or item.scheme != "float32":
            continue
        report = report_on(item)
        wrong = sorted({check.output for check in report.failed if check.output})
        if report.runtime is None or not wrong:
            return None
        return Diagnosis(
            f"{item.label} itself is not what Keras computed ({', '.join(wrong)}): the fault is in "
            "how the model was lowered, or in the file, and not in its precision.",
            "Convert again with another lowering: --lowering unrolled. And please report it.",
        )
    return None


def _rows(bundle: Bundle, report: ArtifactReport, arrays: Tensors) -> Array:
    """The sequences to look at: where the artifact is worst, and others."""
    told_of = bundle.manifest.reference
    artifact = report.artifact
    count = int(told_of["samples"]) + int(told_of.get("ordinary_edge_cases", 0))
    first = arrays[f"input/{artifact.inputs[0].name}"]
    count = min(count or len(first), len(first))
    errors = np.zeros(count)
    for name, answer in report.outputs.items():
        expected = arrays.get(name, arrays.get(f"output/{name}"))
        if expected is None or expected.shape != answer.shape:
            continue
        with np.errstate(all="ignore"):
            difference = np.abs(answer[:count].astype(float) - expected[:count])
        difference = np.nan_to_num(difference, nan=np.inf, posinf=np.inf)
        errors = np.maximum(errors, difference.reshape(count, -1).max(axis=1))
    worst = np.argsort(-errors, kind="stable")[:WORST]
    even = np.linspace(0, count - 1, min(OTHERS, count)).astype(int)
    return np.unique(np.concatenate([worst, even]))


def _file(bundle: Bundle, artifact: Artifact) -> Mapping[str, Any]:
    return {
        "path": str(bundle.artifact_path(artifact)),
        "inputs": [spec.to_json() for spec in artifact.inputs],
        "outputs": [spec.to_json() for spec in artifact.outputs],
    }
