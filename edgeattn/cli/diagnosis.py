"""``edgeattn validate --explain``: where each artifact goes wrong, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeattn.cli import output

if TYPE_CHECKING:
    from edgeattn.bundle.bundle import Bundle
    from edgeattn.diagnosis.diagnose import ArtifactDiagnosis
    from edgeattn.metrics.limits import Limit
    from edgeattn.validation.report import Report

WIDTH = 48


def diagnose_report(
    bundle: Bundle,
    found: Report,
    limits: Sequence[Limit],
) -> tuple[ArtifactDiagnosis, ...]:
    """What is inside the artifacts of a verdict; those beside them are judged where needed."""
    from edgeattn.diagnosis.diagnose import diagnose
    from edgeattn.validation.validate import ValidationOptions, validate_isolated

    options = ValidationOptions(limits=limits)
    return diagnose(
        bundle,
        found.artifacts,
        judge=lambda item: validate_isolated(bundle, (item,), options=options).artifacts[0],
    )


def format_lines(explained: Sequence[ArtifactDiagnosis]) -> Iterator[str]:
    """A paragraph for each artifact, and the operators that add most noise."""
    if not explained:
        yield "\nNothing to explain: float32 artifacts that are right have no other to be held to."
    for item in explained:
        against = f", held to {item.reference}" if item.reference else ""
        yield f"\n{item.artifact.label}{against}: {item.diagnosis.message}"
        if item.diagnosis.remedy:
            yield item.diagnosis.remedy
        if item.compared.unmatched:
            yield f"{item.compared.unmatched} operators have no like there and were not compared."
        rows = [
            [
                str(operator.position),
                operator.kind,
                _short(operator.name),
                _db(operator.isolated_db),
                _db(operator.explained_db),
                _db(operator.accumulated_db),
                operator.cause or "",
            ]
            for operator in item.worst
        ]
        if rows:
            header = [
                "position",
                "operator",
                "of",
                "isolated dB",
                "explained dB",
                "accumulated dB",
                "cause",
            ]
            yield output.table(header, rows, right=(0, 3, 4, 5))


def messages_by_artifact(explained: Sequence[ArtifactDiagnosis]) -> dict[str, list[str]]:
    """The same for the page, by the labels of the artifacts."""
    return {
        item.artifact.label: [
            text for text in (item.diagnosis.message, item.diagnosis.remedy) if text
        ]
        for item in explained
    }


def _db(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "lost")


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else f"...{name[3 - WIDTH :]}"
