"""Diagnoses in words: what is wrong with an artifact, and which setting corrects it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from edgeattn.bundle.manifest import Artifact
from edgeattn.diagnosis import causes
from edgeattn.diagnosis.graph import DATA_MOVEMENT
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.metrics.verdict import PASS
from edgeattn.printable import counted
from edgeattn.validation.report import ArtifactReport

# Causes that only a faulty file or runtime can have.
FAULTS = (causes.WEIGHTS, causes.ATTRIBUTES, causes.OFFSET, causes.UNEXPLAINED)
# The next scheme of higher precision.
HIGHER_PRECISION = {
    "int8": "int16x8",
    "dynamic_int8": "float16",
    "int16x8": "float16",
    "int4": "dynamic_int8",
    "float16": "float32",
}
# TFLite operators of recurrent layers that are not unrolled.
LOOPS = frozenset({"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM"})


@dataclass(frozen=True)
class Diagnosis:
    """A message, the setting that corrects the problem, and the operator that causes it."""

    message: str
    remedy: str | None = None
    operator: OperatorComparison | None = None


@dataclass(frozen=True)
class Comparison:
    """The comparison of ``artifact`` with ``reference``, and what validation found.

    ``verdict`` is that on the artifact's outputs, ``failed_stages`` are the stages of validation
    that failed, ``limit_db`` is the SNR that outputs must reach, ``model`` the Keras file, and
    ``other_lowerings`` whether ``--lowering`` has an effect on it.
    """

    graphs: GraphComparison
    artifact: Artifact
    reference: Artifact
    verdict: str
    limit_db: float
    model: str
    failed_stages: Collection[str] = ()
    other_lowerings: bool = False


def diagnosis_of(comparison: Comparison) -> Diagnosis:
    """The diagnosis of an artifact. If it passes, only faults are reported, not rounding."""
    if comparison.graphs.swapped or comparison.graphs.misnamed:
        return Diagnosis(_interchanged_names(comparison.graphs), _convert_again(comparison))
    passed = comparison.verdict == PASS
    reported = FAULTS if passed else (*FAULTS, causes.CLIPPING, causes.COARSE, causes.ROUNDING)
    for operator in comparison.graphs.operators:
        if operator.cause in reported and not (passed and operator.unmatched_before):
            return _faulty_operator(operator, comparison)
    if set(comparison.failed_stages) == {"attention"} and comparison.artifact.scheme != "float32":
        return _failed_map(comparison)
    return _no_faulty_operator(comparison)


def _faulty_operator(operator: OperatorComparison, comparison: Comparison) -> Diagnosis:
    location = (
        f"{operator_label(operator)} is the first operator with correct inputs and a wrong output."
    )
    if operator.unmatched_before:
        location = (
            f"{operator_label(operator)} is the first operator with a wrong output; the cause may "
            f"also be one of the {_count(operator.unmatched_before, 'operator')} before it that "
            f"have no counterpart in {comparison.reference.label}."
        )
    return Diagnosis(
        f"{location} {_cause_message(operator, comparison)}",
        _remedy(operator, comparison),
        operator,
    )


def _cause_message(operator: OperatorComparison, comparison: Comparison) -> str:
    detail, scheme = operator.detail, comparison.artifact.scheme
    reference, file_fault = comparison.reference.label, "The file is faulty, not its precision."
    match operator.cause:
        case causes.WEIGHTS:
            return (
                f"{detail['share'] * detail['count']:,.0f} of its {detail['count']:,.0f} weights "
                f"differ from {reference} by up to {detail['largest']:.2g}, more than the rounding "
                f"of {scheme}. {file_fault}"
            )
        case causes.ATTRIBUTES:
            values = [
                f"{name} is {own} instead of {expected}"
                for name, (own, expected) in operator.attributes.items()
            ]
            return f"Its attributes differ from {reference}: {'; '.join(values)}. {file_fault}"
        case causes.OFFSET:
            return (
                f"All its values are off by {detail['steps']:+.1f} integer steps, which indicates "
                f"a wrong zero point. {file_fault}"
            )
        case causes.CLIPPING:
            span = f"range from {detail['low']:.3g} to {detail['high']:.3g}"
            subject = (
                f"The values of its table {span}"
                if "table" in detail
                else f"Its values {span} on these samples"
            )
            return (
                f"{subject}, but the file stores only {_stored_range(detail)}: other values are "
                "clipped."
            )
        case causes.COARSE:
            return (
                f"Its values span only {_count(detail['steps'], 'integer step')}, because the file "
                f"stores {_stored_range(detail)} for a few outliers, such as the fill value of a "
                "mask."
            )
        case causes.ROUNDING:
            return (
                f"Rounding to {scheme} leaves an SNR of {operator.isolated_db:.0f} dB; outputs "
                f"require {comparison.limit_db:.0f} dB."
            )
    return (
        f"{_unexplained_error(operator, scheme)} The file or the runtime is faulty, not the "
        "precision."
    )


def _stored_range(detail: Mapping[str, float]) -> str:
    return f"{detail['kept_low']:.3g} to {detail['kept_high']:.3g}"


def _unexplained_error(operator: OperatorComparison, scheme: str) -> str:
    result = f"an SNR of {operator.isolated_db:.0f} dB"
    if operator.isolated_db == -math.inf:
        result = "non-finite values or the wrong number of values"
    expected = f"rounding to {scheme} explains {operator.explained_db:.0f} dB"
    if math.isinf(operator.explained_db):
        expected = "nothing in it is rounded"
    return f"With correct inputs, it computes {result}, although {expected}."


def _remedy(operator: OperatorComparison, comparison: Comparison) -> str:
    artifact = comparison.artifact
    unrolled = operator.recurrent and comparison.other_lowerings and artifact.format == "tflite"
    if operator.cause == causes.UNEXPLAINED and unrolled:
        return "Convert with unrolled steps: --lowering unrolled. Please report this as a bug."
    if operator.cause in FAULTS:
        return _convert_again(comparison)
    if operator.cause == causes.CLIPPING:
        return "Calibrate on more samples, or on samples that resemble the data: --calibration FILE"
    return _higher_precision(operator, artifact)


def _convert_again(comparison: Comparison) -> str:
    return (
        f"Convert the model again: edgeattn convert {comparison.model} --force. Please report this "
        "as a bug."
    )


def _higher_precision(operator: OperatorComparison | None, artifact: Artifact) -> str:
    if operator is not None and artifact.scheme == "int8":
        if operator.attention:
            return "Keep attention in float32: --attention-precision float32"
        if operator.recurrent and artifact.format == "tflite":
            return (
                "Convert the recurrence with higher precision: --scheme int16x8 or --scheme "
                "dynamic_int8"
            )
    scheme = HIGHER_PRECISION.get(artifact.scheme, "float32")
    return f"Convert with higher precision: --scheme {scheme}"


def _interchanged_names(graphs: GraphComparison) -> str:
    parts = [f"The inputs {one!r} and {other!r} are interchanged." for one, other in graphs.swapped]
    parts += [
        f"The output named {name!r} holds the values of {other!r}."
        for name, other in graphs.misnamed.items()
    ]
    return " ".join([*parts, "The operators are correct; only the names are wrong."])


def operator_label(operator: OperatorComparison) -> str:
    return f"{operator.kind} {operator.name} (operator {operator.position})"


def located_operator(
    result: Mapping[str, Any], artifact: Artifact, reference: Artifact, model: str
) -> Diagnosis:
    """Return the diagnosis for a result of :mod:`edgeattn.diagnosis.by_value`."""
    operator = OperatorComparison(
        int(result["position"]),
        str(result["kind"]),
        str(result["name"]),
        float(result["snr_db"]),
        float(result["snr_db"]),
        math.inf,
        causes.OPERANDS if result["interchanged"] else causes.UNEXPLAINED,
    )
    fault = "The file is faulty, not its precision."
    if result["interchanged"]:
        fault = f"Its operands are interchanged. {fault}"
    elif result["missing"]:
        fault = (
            f"{reference.label} applies {result['missing']} to its input, which the file lacks. "
            f"{fault}"
        )
    elif reference.format != artifact.format:
        fault = f"It, or one of the operators after it, is faulty. {fault}"
    return Diagnosis(
        f"{operator_label(operator)} is the first operator whose values {reference.label} does not "
        f"compute. {fault}",
        f"Convert the model again: edgeattn convert {model} --force. Please report this as a bug.",
        operator,
    )


def has_other_lowerings(model: Mapping[str, Any]) -> bool:
    """Whether ``--lowering`` has an effect on a model, described by a manifest.

    Loops of other layers, such as ConvLSTM, and repeated steps without recurrence have one form.
    False for bundles of earlier versions, whose manifests do not list the recurrent layers.
    """
    return bool(model.get("recurrent"))


def remedy_of_lowering(artifact: Artifact, model: Mapping[str, Any]) -> str:
    """The remedy for a wrong float32 artifact of ``model``; only loops have other lowerings."""
    operators = artifact.achieved.get("operators", {})
    command = f"edgeattn convert {model['file']} --force"
    is_loop = artifact.format == "tflite" and LOOPS.intersection(operators)
    if is_loop and has_other_lowerings(model):
        command += " --lowering unrolled"
    return f"Convert the model again: {command}. Please report this as a bug."


def batch_fault(report: ArtifactReport) -> Diagnosis:
    """The diagnosis of results that are right for single samples, or in one order, only."""
    outputs = ", ".join(sorted({str(check.output) for check in report.failed}))
    if report.reason:
        return Diagnosis(f"The file does not run in all batches it accepts. {report.reason}")
    return Diagnosis(
        f"A sample's {outputs} depends on the other samples of its batch: an operator mixes them. "
        "Single samples agree with Keras, so that no operator can be named.",
        "Run single samples only. Please report this as a bug.",
    )


def _failed_map(comparison: Comparison) -> Diagnosis:
    """Name the operator of attention that rounds most; only the map exceeds its limits."""
    candidates = [
        operator
        for operator in comparison.graphs.operators
        if operator.attention
        and operator.kind not in DATA_MOVEMENT
        and math.isfinite(operator.isolated_db)
    ]
    if not candidates:
        return Diagnosis("No operator that computes the attention map has an error of its own.")
    worst = min(candidates, key=lambda operator: operator.isolated_db)
    return Diagnosis(
        "Only the attention map fails, and no single operator is faulty. Among the operators that "
        f"compute the map, {operator_label(worst)} has the largest rounding error, with an SNR of "
        f"{worst.isolated_db:.0f} dB.",
        _higher_precision(worst, comparison.artifact),
        worst,
    )


def _no_faulty_operator(comparison: Comparison) -> Diagnosis:
    artifact, graphs = comparison.artifact, comparison.graphs
    limit_db, reference = comparison.limit_db, comparison.reference
    listing = " The operators with the largest errors are listed."
    if comparison.verdict == PASS:
        return Diagnosis(
            f"No faults: every operator is as accurate as {artifact.scheme} allows." + listing
        )
    if artifact.scheme == "float32":
        return Diagnosis(
            f"No operator differs from {reference.label} by more than the rounding of "
            f"{reference.scheme}: the fault is smaller than that, or in both artifacts." + listing
        )
    remedy = _higher_precision(None, artifact)
    output_db = min(graphs.outputs_db.values(), default=limit_db)
    if output_db >= limit_db:
        return Diagnosis(
            f"On single samples from initial states, the outputs reach an SNR of {output_db:.0f} "
            f"dB, and the limit is {limit_db:.0f} dB: only a few values fail, or errors carried "
            "from one sample to the next." + listing,
            remedy,
        )
    steps = sum(operator.recurrent for operator in graphs.operators)
    recurrent = f", {steps} of them in steps of a recurrence," if steps else ""
    return Diagnosis(
        "No single operator is faulty. The rounding errors of "
        f"{counted(len(graphs.operators), 'operator')}{recurrent} add up to an SNR of "
        f"{output_db:.0f} dB; outputs require {limit_db:.0f} dB." + listing,
        remedy,
    )


def _count(number: float, noun: str) -> str:
    return counted(max(1, round(number)), noun)
