"""What is said of a task: how each output did it before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeattn.metrics.statistics import FAIL, INCONCLUSIVE, NOT_RUN, PASS
from edgeattn.tensors import Array


@dataclass(frozen=True)
class Outcome:
    """How an output did its task before and after; ``drop`` is before less after.

    ``score`` names what is kept: ``accuracy`` of classes and of yes or no, ``r2`` of amounts.
    ``needed`` is how many samples would settle an inconclusive one, where any number would.
    ``lost`` and ``gained`` count the decisions that became wrong and right. Confusions have a row
    for each true class and a column for each answer.
    """

    output: str
    kind: str
    score: str
    samples: int
    before: float
    after: float
    interval: tuple[float, float]
    margin: float
    verdict: str
    needed: int | None = None
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None
    errors: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confusions: tuple[Array, Array] | None = field(default=None, compare=False)

    @property
    def drop(self) -> float:
        return self.before - self.after

    def to_json(self) -> dict[str, Any]:
        return {
            "output": self.output,
            "kind": self.kind,
            "score": self.score,
            "samples": self.samples,
            "reference": self.before,
            "artifact": self.after,
            "drop": self.drop,
            "interval": list(self.interval),
            "margin": self.margin,
            "verdict": self.verdict,
            "needed_samples": self.needed,
            "lost": self.lost,
            "gained": self.gained,
            "mcnemar_p": self.p_value,
            "errors": {
                name: {"reference": pair[0], "artifact": pair[1]}
                for name, pair in self.errors.items()
            },
            "confusion": None
            if self.confusions is None
            else dict(
                zip(
                    ("reference", "artifact"),
                    [matrix.tolist() for matrix in self.confusions],
                    strict=True,
                )
            ),
        }


@dataclass(frozen=True)
class TaskReport:
    """One artifact's task: what it was paired with, on which samples, and each output's outcome.

    ``reference`` says who gave the answers that the artifact's are compared with.
    """

    reference: str
    outcomes: tuple[Outcome, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def verdict(self) -> str:
        verdicts = {outcome.verdict for outcome in self.outcomes}
        return next((v for v in (FAIL, INCONCLUSIVE, PASS) if v in verdicts), NOT_RUN)

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reference": self.reference,
            "source": self.source,
            "reason": self.reason,
            "notes": list(self.notes),
            "outputs": [outcome.to_json() for outcome in self.outcomes],
        }
