"""The report of a validation: checks and verdicts of each artifact and of the bundle."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.evaluation.results import TaskReport
from edgeattn.metrics.limits import Check, json_number
from edgeattn.metrics.verdict import (
    FAIL,
    FEW_SAMPLES,
    INCONCLUSIVE,
    LOST,
    NOT_PROVEN,
    NOT_RUN,
    PASS,
    PRECISION,
    UNKNOWN,
    combined,
)
from edgeattn.samples.labels import CLASSIFICATION
from edgeattn.tensors import Tensors
from edgeattn.validation.few_samples import few_samples
from edgeattn.validation.rounding import COARSE, Costs, excess, unknown_reason

STAGES = ("structure", "numbers", "attention", "task", "device")
# Metrics whose size depends on how much the inputs resemble those of the model's task.
INPUT_DEPENDENT = frozenset(
    {
        *(
            "snr_db",
            "top1_agreement",
            "equal_values",
            "max_abs_error",
            "jensen_shannon",
            "worst_jensen_shannon",
            "lost_values",
        ),
        *("row_sum_error", "masked_mass", "batch_snr_db", "batch_max_abs_error"),
    }
)


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
        conversion: Whether the artifact is converted right: ``"right"``, ``"wrong"`` or
            ``"unknown"``, see :mod:`edgeattn.validation.rounding`.
        rounding: Errors of Keras with rounded weights, by output and metric.
        explained_outputs: The outputs and maps whose errors rounding explains.
        explained: Checks of these that miss the limit of the scheme. Among ``checks`` they have a
            wider limit.
        by_chance: Checks of shares that miss their limit by so few samples that it may be chance.
        lost: Checks of lost values that miss the limit of the scheme, not one of the user.
        undecided: Metrics whose missed limits on the reference do not fail the artifact, because
            the samples of the reference are synthetic.
        outputs: Outputs for the reference inputs by name, the sample axis first.
        warnings: What the reader should know although no check failed.
        samples: The largest number of real samples that it was compared on; None if they are
            synthetic.
    """

    artifact: Artifact
    runtime: str | None
    checks: tuple[Check, ...]
    reason: str | None = None
    broken: bool = False
    task: TaskReport | None = None
    conversion: str = UNKNOWN
    rounding: Costs = field(default_factory=dict)
    explained_outputs: frozenset[str] = frozenset()
    explained: tuple[Check, ...] = ()
    by_chance: tuple[Check, ...] = ()
    lost: tuple[Check, ...] = ()
    undecided: frozenset[str] = frozenset()
    outputs: Tensors = field(default_factory=dict, compare=False, repr=False)
    warnings: tuple[str, ...] = ()
    samples: int | None = None

    def __repr__(self) -> str:
        return f"<ArtifactReport {self.artifact.label}: {self.verdict}>"

    @property
    def verdict(self) -> str:
        """``"pass"``, ``"fail"``, ``"inconclusive"`` or ``"not run"``."""
        stages = self.stages
        if self.broken or FAIL in stages.values():
            return FAIL
        # An intact file is no evidence by itself: outputs must have been compared.
        if stages["numbers"] == NOT_RUN:
            return NOT_RUN
        # Data that were given and could not be compared with anything leave the question open.
        stopped = self.task is not None and bool(self.task.reason) and not self.task.skipped
        return INCONCLUSIVE if stopped or INCONCLUSIVE in stages.values() else PASS

    @property
    def unknown_reason(self) -> str:
        """Why it is unknown whether the artifact is converted right, if ``conversion`` is."""
        return unknown_reason(self.artifact, self.checks, self.rounding, self.explained_outputs)

    @property
    def stages(self) -> dict[str, str]:
        """The verdict of each stage."""
        results: dict[str, set[str]] = {stage: set() for stage in STAGES}
        for check in self.checks:
            if check.passed is not None and not self._is_overruled(check):
                missed = FAIL if self._open_reason(check) is None else INCONCLUSIVE
                results[check.stage].add(PASS if check.passed else missed)
        verdicts = {stage: combined(results[stage]) for stage in STAGES}
        if self.task is not None:
            verdicts["task"] = self.task.verdict
        return verdicts

    @property
    def max_abs_error(self) -> float | None:
        """The largest absolute error of an output; None if the artifact did not run.

        It is that on the user's data if the artifact was compared on them, otherwise that on the
        samples of the reference, without its edge cases.
        """
        return self.headline["max_abs_error"]

    @property
    def reference_error(self) -> float | None:
        """The largest absolute error of an output on the samples of the reference."""
        return self._worst("numbers", "samples_max_abs_error", None)

    @property
    def data(self) -> str | None:
        """File name of the user's dataset, if the artifact was compared on it."""
        return next((check.data for check in self.checks if check.data is not None), None)

    @property
    def headline(self) -> dict[str, float | None]:
        """The worst values of all outputs on the user's data, or else on the reference.

        ``max_abs_error``, ``snr_db`` and ``top1_agreement`` are those of the outputs,
        ``equal_values`` is that of integer outputs,
        ``attention_max_abs_error`` is that of the maps. None if nothing was compared.
        """
        data = self.data
        error = "max_abs_error" if data else "samples_max_abs_error"
        return {
            "max_abs_error": self._worst("numbers", error, data),
            "snr_db": self._worst("numbers", "snr_db", data),
            "top1_agreement": self._worst("numbers", "top1_agreement", data),
            "equal_values": self._worst("numbers", "equal_values", data),
            "attention_max_abs_error": self._worst("attention", "max_abs_error", data),
        }

    def _worst(self, stage: str, metric: str, data: str | None) -> float | None:
        checks = [c for c in self.checks if (c.stage, c.metric, c.data) == (stage, metric, data)]
        values = [check.value for check in checks]
        if not values:
            return None
        return float(np.min(values) if checks[0].relation == ">=" else np.max(values))

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that miss their limits and fail the artifact, on the user's data first."""
        missed = [check for check in self.checks if check.passed is False]
        failed = [check for check in missed if self._open_reason(check) is None]
        return tuple(sorted(failed, key=lambda check: check.data is None))

    @property
    def verdict_reason(self) -> str | None:
        """:attr:`reason`, or why missed limits leave the verdict open."""
        if self.reason or self.verdict != INCONCLUSIVE:
            return self.reason
        return next((reason for reason, _ in self.open_limits), None)

    @property
    def shortcoming(self) -> str | None:
        """Why the artifact does not pass, in one line: what decided first. None for a pass."""
        if self.verdict == PASS or self.reason:
            return self.reason
        missed = [check.comparison for check in self.failed]
        open_limits = [f"{reason}: {check.comparison}" for reason, check in self.open_limits]
        tasks = () if self.task is None else self.task.results
        decided = [f"{x.output}: {x.summary}" for x in tasks if x.verdict == self.verdict]
        stopped = [self.task.reason] if self.task is not None and self.task.reason else []
        return next(iter((*missed, *decided, *open_limits, *stopped)), None)

    @property
    def open_limits(self) -> tuple[tuple[str, Check], ...]:
        """Limits that were missed without failing the artifact, and why they do not."""
        reasons = [(self._open_reason(check), check) for check in self.checks]
        return tuple(
            (reason, check)
            for reason, check in reasons
            if reason is not None and not self._is_overruled(check)
        )

    @property
    def unproven(self) -> tuple[Check, ...]:
        """Limits that were missed on synthetic samples, and that no real sample has settled."""
        return tuple(check for reason, check in self.open_limits if reason == NOT_PROVEN)

    def _open_reason(self, check: Check) -> str | None:
        """Why a missed limit leaves the verdict open; None if it does not."""
        if check.passed is not False:
            return None
        if self._is_undecided(check):
            return NOT_PROVEN
        explained = any(other.key == check.key for other in self.explained)
        if explained and excess(check) <= COARSE:
            return PRECISION
        if check in self.lost:
            return LOST
        return FEW_SAMPLES if check in self.by_chance else None

    def _is_undecided(self, check: Check) -> bool:
        return check.passed is False and check.data is None and check.metric in self.undecided

    def _is_overruled(self, check: Check) -> bool:
        """Whether results on the user's dataset take the place of a limit that was missed."""
        reason = self._open_reason(check)
        if reason == LOST and self._is_decided_by_task(check):
            return True
        if reason in (FEW_SAMPLES, LOST) and check.data is None:
            same = (check.metric, check.output)
            on_data = [c for c in self.checks if c.data and (c.metric, c.output) == same]
            return any(c.passed or reason == LOST for c in on_data)
        if not self._is_undecided(check):
            return False
        if check.stage == "numbers" and self.task is not None and self.task.verdict == PASS:
            return True
        return any(
            other.data is not None
            and other.metric in {*self.undecided, "tolerance_ratio"}
            and other.passed is not None
            and (other.stage, other.output) == (check.stage, check.output)
            for other in self.checks
        )

    def _is_decided_by_task(self, check: Check) -> bool:
        """Whether the answers of a task pass, which need no more than the values that remain.

        Those of an output with a class per position, or with one value. The score of several
        amounts, or of several decisions, is one of all values.
        """
        results = () if self.task is None else self.task.results
        shape = next((x.shape for x in self.artifact.outputs if x.name == check.output), ())
        single = len(shape) < 2 or shape[-1] == 1
        return any(
            result.output == check.output
            and result.verdict == PASS
            and (single or result.kind == CLASSIFICATION)
            for result in results
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "format": self.artifact.format,
            "scheme": self.artifact.scheme,
            "runtime": self.runtime,
            "verdict": self.verdict,
            "stages": self.stages,
            "reason": self.verdict_reason,
            "warnings": list(self.warnings),
            "headline": {
                "data": self.data,
                **{
                    name: None if value is None else json_number(value)
                    for name, value in self.headline.items()
                },
            },
            "conversion": self.conversion,
            "rounding": {
                name: {metric: json_number(value) for metric, value in values.items()}
                for name, values in self.rounding.items()
            },
            "checks": [check.to_json() for check in self.checks],
            "task": None if self.task is None else self.task.to_json(),
        }


@dataclass(frozen=True)
class Report:
    """The report on a bundle. It fails if any artifact fails."""

    artifacts: tuple[ArtifactReport, ...]

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{item.artifact.label} {item.verdict}" for item in self.artifacts)
        return f"<Report {self.verdict}: {verdicts}>"

    @property
    def verdict(self) -> str:
        return combined(report.verdict for report in self.artifacts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of all artifacts, each once."""
        texts = dict.fromkeys(text for item in self.artifacts for text in item.warnings)
        return (*texts, *few_samples((item.artifact, item.samples) for item in self.artifacts))

    @property
    def exit_code(self) -> int:
        return {PASS: 0, FAIL: 1, INCONCLUSIVE: 6, NOT_RUN: 5}[self.verdict]

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "warnings": list(self.warnings),
            "artifacts": [report.to_json() for report in self.artifacts],
        }
