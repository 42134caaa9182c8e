"""Values of the overview: each artifact with the stages in which it differs from its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from edgeattn.validation.report import STAGES, ArtifactReport, Report


@dataclass(frozen=True)
class OverviewRow:
    """An artifact, and the stages that its verdict alone does not tell.

    ``decisive`` are the stages with its verdict, if that is not a pass; ``others`` are those with
    another one, such as ``task not run``, apart from the stages that ran for no artifact.
    """

    report: ArtifactReport
    decisive: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class OverviewSection:
    """``ran`` are stages that ran for at least one artifact, ``not_run`` the rest."""

    rows: list[OverviewRow]
    ran: tuple[str, ...]
    not_run: tuple[str, ...]


def overview_section(report: Report) -> OverviewSection:
    """The rows of all artifacts."""
    ran = tuple(
        stage
        for stage in STAGES
        if any(item.stages[stage] != "not run" for item in report.artifacts)
    )
    rows = []
    for item in report.artifacts:
        verdicts = {stage: item.stages[stage] for stage in ran}
        decisive = [x for x, verdict in verdicts.items() if verdict == item.verdict != "pass"]
        others = [
            f"{stage} {verdict}"
            for stage, verdict in verdicts.items()
            if verdict not in ("pass", item.verdict)
        ]
        rows.append(OverviewRow(item, tuple(decisive), tuple(others)))
    return OverviewSection(rows, ran, tuple(stage for stage in STAGES if stage not in ran))
