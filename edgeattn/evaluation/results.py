"""Results of an evaluation: the scores of the reference and of an artifact on a dataset."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeattn.metrics.limits import CHANGED, SCORE, json_number
from edgeattn.metrics.verdict import FAIL, combined
from edgeattn.tensors import Array


@dataclass(frozen=True)
class TaskResult:
    """The scores of one output, and the statistics that decide about them.

    Attributes:
        output: Name of the output.
        kind: Kind of task: ``"classes"``, ``"yes or no"`` or ``"amounts"``.
        metric: Name of the score: ``"accuracy"`` or, for amounts, ``"r2"``.
        samples: Number of samples.
        reference_score: Score of the reference.
        artifact_score: Score of the artifact.
        interval: 95% confidence interval of the drop; infinite if an amount is off by more than
            the range of the labels.
        margin: Largest accepted drop, or share of changed answers.
        verdict: ``"pass"``, ``"fail"`` or ``"inconclusive"``.
        question: What decided: ``"changed answers"`` or ``"score"``.
        changed: Share of answers that differ from those of the reference; None for amounts.
        changed_interval: 95% confidence interval of that share.
        retention: Share of the score to retain, if the user set that limit.
        needed_samples: If the verdict is inconclusive, the number of samples at which 80% of
            datasets with such results lead to a verdict; None if no practical number does.
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
    question: str = SCORE
    changed: float | None = None
    changed_interval: tuple[float, float] | None = None
    retention: float | None = None
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

    @property
    def decisive_value(self) -> float:
        """The share of changed answers or the drop, whichever decided."""
        if self.question == CHANGED and self.changed is not None:
            return self.changed
        return self.drop

    @property
    def decisive_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of :attr:`decisive_value`."""
        if self.question == CHANGED and self.changed_interval is not None:
            return self.changed_interval
        return self.interval

    @property
    def passing_max_drop(self) -> float | None:
        """The smallest ``max_drop``, to four decimals, with which this dataset passes, if any."""
        high = self.decisive_interval[1]
        if not high < 1.0:
            return None
        value = max(math.ceil(high * 1e4), 1) / 1e4
        return value if 0 < value < 1 else None

    @property
    def summary(self) -> str:
        """What decided, its interval and its limit, as part of a sentence."""
        low, high = (100 * end for end in self.decisive_interval)
        allowed = f"(95% interval {low:.2f} to {high:.2f}, {100 * self.margin:.2f} allowed)"
        if self.question == CHANGED:
            return f"{100 * self.decisive_value:.2f}% of the answers changed {allowed}"
        return f"{self.metric} drops by {100 * self.drop:.2f} points {allowed}"

    @property
    def remedy(self) -> str:
        """What would make this a pass, in one or two sentences; empty if nothing would.

        More samples or a larger limit for an inconclusive result. For a failed one whose answers
        change but whose score is within the limit, the option that lets the score decide.
        """
        if self.verdict == FAIL:
            share = _floor(1.0 - self.margin / max(self.reference_score, 1e-9))
            if self.question != CHANGED or self.interval[1] > self.margin or share is None:
                return ""
            return (
                "The drop of the score is within the limit; the score decides with "
                f"--limit {self.output}:retention={share:g}."
            )
        if math.isinf(self.decisive_interval[1]):
            return "An error exceeds the range of the labels, so that the drop has no upper limit."
        option, value = "--max-drop", self.passing_max_drop
        if self.retention is not None and self.reference_score > 0:
            option = f"--limit {self.output}:retention"
            value = _floor(1.0 - self.decisive_interval[1] / self.reference_score)
        separator = "=" if self.retention is not None else " "
        passing = f"These samples pass with {option}{separator}{value:g}" if value else ""
        if self.needed_samples is None:
            more = "The result is so close to the limit that more samples will hardly settle it."
            return f"{passing}. {more}" if passing else more
        about = f"bout {self.needed_samples:,} samples would settle it."
        return f"{passing}; a{about}" if passing else f"A{about}"

    def to_json(self) -> dict[str, Any]:
        sides = ("reference", "artifact")
        confusions = None
        if self.confusions is not None:
            confusions = dict(zip(sides, (m.tolist() for m in self.confusions), strict=True))
        changed = self.changed_interval
        return {
            "output": self.output,
            "kind": self.kind,
            "score": self.metric,
            "samples": self.samples,
            "reference": json_number(self.reference_score),
            "artifact": json_number(self.artifact_score),
            "drop": json_number(self.drop),
            "interval": [json_number(end) for end in self.interval],
            "changed": self.changed,
            "changed_interval": None if changed is None else list(changed),
            "question": self.question,
            "margin": self.margin,
            "verdict": self.verdict,
            "passing_max_drop": self.passing_max_drop,
            "needed_samples": self.needed_samples,
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.p_value,
            "errors": {
                name: dict(zip(sides, map(json_number, pair), strict=True))
                for name, pair in self.errors.items()
            },
            "confusion": confusions,
        }


def _floor(share: float) -> float | None:
    """``share`` rounded down to four decimals, if that is more than 0."""
    value = math.floor(share * 1e4) / 1e4
    return value if value > 0 else None


@dataclass(frozen=True)
class TaskReport:
    """The report on one artifact's task.

    Attributes:
        reference_name: What produced the outputs that the artifact is compared with.
        results: The result of each output with labels.
        source: File name of the dataset.
        notes: What the reader should know about the dataset.
        reason: Why there are no results.
        skipped: Whether that is because there are no labels, or the artifact is the reference.
        samples: Number of samples in the dataset.
    """

    reference_name: str
    results: tuple[TaskResult, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    reason: str | None = None
    skipped: bool = False
    samples: int = 0

    @property
    def verdict(self) -> str:
        return combined(result.verdict for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reference": self.reference_name,
            "source": self.source,
            "samples": self.samples,
            "reason": self.reason,
            "notes": list(self.notes),
            "outputs": [result.to_json() for result in self.results],
        }
