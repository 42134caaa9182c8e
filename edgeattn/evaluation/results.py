"""Results of an evaluation: the scores of the reference and of an artifact on a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeattn.metrics.verdict import combined
from edgeattn.tensors import Array


@dataclass(frozen=True)
class TaskResult:
    """The scores of one output.

    Attributes:
        output: Name of the output.
        kind: Kind of task: ``"classes"``, ``"yes or no"`` or ``"amounts"``.
        metric: Name of the score: ``"accuracy"`` or, for amounts, ``"r2"``.
        samples: Number of samples.
        reference_score: Score of the reference.
        artifact_score: Score of the artifact.
        interval: 95% confidence interval of the drop.
        margin: Largest accepted drop.
        verdict: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        needed_samples: Samples that a conclusive verdict would take, if the verdict is
            inconclusive; None if no number of samples is enough.
        lost: Decisions that are right with the reference and wrong with the artifact.
        gained: Decisions that are wrong with the reference and right with the artifact.
        p_value: Exact p-value of McNemar's test.
        errors: Pairs ``(reference, artifact)`` of errors by name, for amounts.
        confusions: Confusion matrices of reference and artifact ``(true class, predicted class)``.
    """

    output: str
    kind: str
    metric: str
    samples: int
    reference_score: float
    artifact_score: float
    interval: tuple[float, float]
    margin: float
    verdict: str
    needed_samples: int | None = None
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusions: tuple[Array, Array] | None = field(default=None, compare=False)

    @property
    def drop(self) -> float:
        """The score of the reference minus that of the artifact."""
        return self.reference_score - self.artifact_score

    def to_json(self) -> dict[str, Any]:
        sides = ("reference", "artifact")
        confusions = None
        if self.confusions is not None:
            confusions = dict(zip(sides, (m.tolist() for m in self.confusions), strict=True))
        return {
            "output": self.output,
            "kind": self.kind,
            "score": self.metric,
            "samples": self.samples,
            "reference": self.reference_score,
            "artifact": self.artifact_score,
            "drop": self.drop,
            "interval": list(self.interval),
            "margin": self.margin,
            "verdict": self.verdict,
            "needed_samples": self.needed_samples,
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.p_value,
            "errors": {
                name: dict(zip(sides, pair, strict=True)) for name, pair in self.errors.items()
            },
            "confusion": confusions,
        }


@dataclass(frozen=True)
class TaskReport:
    """The report on one artifact's task.

    Attributes:
        reference_name: What produced the outputs that the artifact is compared with.
        results: The result of each output with labels.
        source: File name of the dataset.
        notes: What the reader should know about the dataset.
        reason: Why there are no results.
    """

    reference_name: str
    results: tuple[TaskResult, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def verdict(self) -> str:
        return combined(result.verdict for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reference": self.reference_name,
            "source": self.source,
            "reason": self.reason,
            "notes": list(self.notes),
            "outputs": [result.to_json() for result in self.results],
        }
