"""Values of one artifact's section: facts, checks, error histograms and attention maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.limits import Check
from edgeattn.printable import counted
from edgeattn.report.attended_inputs import Attended
from edgeattn.report.map_section import MapSection, map_section
from edgeattn.report.number_formats import format_number
from edgeattn.report.svg_figures import Figure
from edgeattn.report.svg_panels import histogram
from edgeattn.report.task_section import OutcomeDetails, outcome_details
from edgeattn.tensors import Tensors
from edgeattn.validation.report import ArtifactReport


@dataclass(frozen=True)
class ArtifactSection:
    """``scheme`` is the achieved one; ``weights`` and ``operators`` are their counts by type as
    text. They are empty if unknown.

    ``checks`` are those of the report, those on the user's data first.
    """

    report: ArtifactReport
    checks: list[Check]
    scheme: str
    weights: str
    operators: str
    errors: list[Figure]
    maps: MapSection
    outcomes: list[OutcomeDetails]
    explanation: Sequence[str]


def artifact_section(
    item: ArtifactReport,
    reference: Tensors,
    samples: int,
    *,
    max_map_bytes: int,
    vocabulary: Sequence[str] | None,
    explanation: Sequence[str],
    attended: Attended | None,
    labels: Mapping[str, Sequence[str]],
) -> ArtifactSection:
    """Draw the figures of one artifact on the first ``samples`` rows of ``reference``.

    ``labels`` are those of the classes, by output.
    """
    expected = {name: array[:samples] for name, array in reference.items()}
    outputs = {name: array[:samples] for name, array in item.outputs.items()}
    return ArtifactSection(
        report=item,
        checks=sorted(item.checks, key=lambda check: check.data is None),
        scheme=_achieved_scheme(item.artifact),
        weights=_weight_types(item.artifact.achieved.get("weights")),
        operators=_operator_types(item.artifact.achieved.get("computes_in")),
        errors=list(_error_histograms(item, expected, outputs)),
        maps=map_section(item.artifact, expected, outputs, max_map_bytes, vocabulary, attended),
        outcomes=[]
        if item.task is None
        else [outcome_details(o, labels.get(o.output, ())) for o in item.task.results],
        explanation=explanation,
    )


def _achieved_scheme(artifact: Artifact) -> str:
    """``dynamic_int8 (requested: int8)``; empty if the manifest has no such entry."""
    achieved = str(artifact.achieved.get("scheme", ""))
    differs = achieved not in ("", artifact.scheme)
    return f"{achieved} (requested: {artifact.scheme})" if differs else achieved


def _weight_types(weights: object) -> str:
    """``98% int8, 2% float32 of 27,210``."""
    if not isinstance(weights, Mapping) or not sum(weights.values()):
        return ""
    total = sum(weights.values())
    ordered = sorted(weights.items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{100 * count / total:.0f}% {kind}" for kind, count in ordered if count)
    return f"{shares} of {total:,}"


def _operator_types(operators: object) -> str:
    """``12 int8, 3 float32``."""
    if not isinstance(operators, Mapping):
        return ""
    return ", ".join(f"{sum(counts.values())} {kind}" for kind, counts in operators.items())


def _error_histograms(
    item: ArtifactReport, expected: Tensors, outputs: Tensors
) -> Iterator[Figure]:
    """The errors of every output that is no attention map and has the shape of the reference."""
    for spec in item.artifact.outputs:
        want, got = expected.get(f"output/{spec.name}"), outputs.get(spec.name)
        if spec.name in item.artifact.attention or want is None or got is None:
            continue
        if want.shape != got.shape:
            continue
        with np.errstate(invalid="ignore"):
            errors = got.astype(np.float64) - want.astype(np.float64)
        largest = float(np.max(np.abs(errors), initial=0.0))
        caption = (
            f"Errors of output {spec.name} on {counted(len(want), 'sample')}: "
            f"{counted(errors.size, 'value')}, "
            f"max abs error {format_number(largest)}."
        )
        exact = int((errors == 0).sum())
        if exact:
            caption += f" Not drawn: {counted(exact, 'exact value')}."
        yield Figure(histogram(errors, caption), caption)
