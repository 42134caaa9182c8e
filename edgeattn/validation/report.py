"""The report of a validation: checks and verdicts of each artifact and of the bundle."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.evaluation.results import TaskReport
from edgeattn.metrics.limits import Check
from edgeattn.metrics.verdict import FAIL, INCONCLUSIVE, NOT_RUN, PASS, combined
from edgeattn.tensors import Tensors

STAGES = ("structure", "numbers", "attention", "task", "device")


@dataclass(frozen=True)
class ArtifactReport:
    """The report on one artifact.

    Attributes:
        artifact: The artifact.
        runtime: Name and version of the runtime; None if no runtime is installed.
        checks: The checks of all stages.
        reason: Why the artifact did not run, or why it stopped.
        broken: Whether its runtime could not load or run it.
        task: The report on the user's dataset, if one was given.
        outputs: Outputs for the reference inputs by name, the sample axis first.
    """

    artifact: Artifact
    runtime: str | None
    checks: tuple[Check, ...]
    reason: str | None = None
    broken: bool = False
    task: TaskReport | None = None
    outputs: Tensors = field(default_factory=dict, compare=False, repr=False)

    @property
    def verdict(self) -> str:
        """``"pass"``, ``"fail"``, ``"inconclusive"`` or ``"not run"``."""
        stages = self.stages
        if self.broken or FAIL in stages.values():
            return FAIL
        # An intact file is no evidence by itself: at least one output must be within its limits.
        if stages["numbers"] != PASS:
            return NOT_RUN
        return INCONCLUSIVE if stages["task"] == INCONCLUSIVE else PASS

    @property
    def stages(self) -> dict[str, str]:
        """The verdict of each stage."""
        verdicts = dict.fromkeys(STAGES, NOT_RUN)
        for check in self.checks:
            if check.passed is not None and verdicts[check.stage] != FAIL:
                verdicts[check.stage] = PASS if check.passed else FAIL
        if self.task is not None:
            verdicts["task"] = self.task.verdict
        return verdicts

    @property
    def max_abs_error(self) -> float | None:
        """The largest absolute error of an output on the reference; None if it did not run."""
        key = ("numbers", "max_abs_error", None)
        errors = [c.value for c in self.checks if (c.stage, c.metric, c.data) == key]
        return float(np.max(errors)) if errors else None

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that are not within their limits."""
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
    """The report on a bundle. It fails if any artifact fails."""

    artifacts: tuple[ArtifactReport, ...]

    @property
    def verdict(self) -> str:
        return combined(report.verdict for report in self.artifacts)

    @property
    def exit_code(self) -> int:
        return {PASS: 0, FAIL: 1, INCONCLUSIVE: 6, NOT_RUN: 5}[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "artifacts": [report.to_json() for report in self.artifacts],
        }
