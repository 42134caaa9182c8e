"""The option ``--explain`` of ``edgeattn validate``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgeattn.cli import output
from edgeattn.printable import counted

if TYPE_CHECKING:
    from edgeattn.diagnosis.diagnose import ArtifactDiagnosis

NAME_WIDTH = 48


def format_lines(diagnoses: Sequence[ArtifactDiagnosis]) -> Iterator[str]:
    """Yield the diagnosis of each artifact and a table of its worst operators."""
    if not diagnoses:
        yield ""
        yield "No diagnosis: float32 artifacts that pass have no reference to be compared with."
    for item in diagnoses:
        reference = f", compared with {item.reference}" if item.reference else ""
        yield ""
        yield f"{item.artifact.label}{reference}: {item.diagnosis.message}"
        if item.diagnosis.remedy:
            yield item.diagnosis.remedy
        if item.comparison.unmatched:
            unmatched = counted(item.comparison.unmatched, "operator")
            yield f"Not compared: {unmatched} without a counterpart."
        rows = [
            [
                str(operator.position),
                operator.kind,
                _shorten(operator.name),
                _decibels(operator.isolated_db),
                _decibels(operator.explained_db),
                _decibels(operator.accumulated_db),
                operator.cause or "",
            ]
            for operator in item.worst
        ]
        if rows:
            header = ["position", "operator", "name"]
            header += ["isolated (dB)", "explained (dB)", "accumulated (dB)", "cause"]
            yield output.table(header, rows, right=(0, 3, 4, 5))


def _decibels(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "lost")


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"...{name[3 - NAME_WIDTH :]}"
