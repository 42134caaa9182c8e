"""What was found about artifacts, and the verdict that it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.evaluation.results import TaskReport
from edgeattn.metrics.limits import Check
from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.tensors import Tensors

STAGES = ("structure", "numbers", "attention", "task", "device")


@dataclass(frozen=True)
class ArtifactReport:
    """What was found about one artifact; ``reason`` says why it did not run, or could not."""

    artifact: Artifact
    runtime: str | None
    checks: tuple[Check, ...]
    reason: str | None = None
    broken: bool = False
    task: TaskReport | None = None
    # What the artifact answered to the reference's inputs, for those who draw it.
    answers: Tensors = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        if self.broken or FAIL in self.stages.values():
            return FAIL
        # Whole files alone prove nothing: an output must have been held to Keras' numbers.
        if self.stages["numbers"] != PASS:
            return NOT_RUN
        return INCONCLUSIVE if self.stages["task"] == INCONCLUSIVE else PASS

    @property
    def stages(self) -> dict[str, str]:
        found = dict.fromkeys(STAGES, NOT_RUN)
        for check in self.checks:
            if check.passed is not None and found[check.stage] != FAIL:
                found[check.stage] = PASS if check.passed else FAIL
        if self.task is not None:
            found["task"] = self.task.verdict
        return found

    @property
    def max_abs_error(self) -> float | None:
        """The largest error of a main output on the reference; None where nothing was run."""
        wanted = ("numbers", "max_abs_error", None)
        errors = [c.value for c in self.checks if (c.stage, c.metric, c.data) == wanted]
        return float(np.max(errors)) if errors else None

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "verdict": self.verdict,
            "stages": self.stages,
            "reason": self.reason,
            "checks": [check.to_json() for check in self.checks],
            "task": None if self.task is None else self.task.to_json(),
        }


@dataclass(frozen=True)
class Report:
    """The verdict on a bundle: a failure anywhere fails it."""

    artifacts: tuple[ArtifactReport, ...]

    @property
    def verdict(self) -> str:
        verdicts = {report.verdict for report in self.artifacts}
        for worst in (FAIL, INCONCLUSIVE, PASS):
            if worst in verdicts:
                return worst
        return NOT_RUN

    @property
    def exit_code(self) -> int:
        return {PASS: 0, FAIL: 1, INCONCLUSIVE: 6, NOT_RUN: 5}[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "artifacts": [report.to_json() for report in self.artifacts],
        }
