"""Checks, and the limits of each scheme."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.metrics.pairwise import NEAR_TIE
from edgeattn.schemes import MAX_DROP

# The question that decides about a task: do the answers stay the same, or does the score?
CHANGED, SCORE = "changed answers", "score"


# The largest error grows with the number of samples, also in files that are right. On a dataset of
# any size, this share of the samples may exceed its limit, and none by this factor. Limits that the
# user sets hold for every sample.
EXCEEDING_SHARE = 0.01
WORST_FACTOR = 3.0


@dataclass(frozen=True)
class Limits:
    """The largest accepted differences between an artifact and Keras.

    An output passes if it is within ``atol + rtol |expected|`` or reaches ``snr_db``.

    Attributes:
        snr_db: Lowest signal-to-noise ratio of an output, in dB.
        top1_agreement: Lowest share of samples whose predicted class stays the same.
        attention_max_abs: Largest absolute error of an attention weight.
        attention_jsd: Largest mean Jensen-Shannon divergence of attention rows, in nats.
        max_drop: Largest share of a task's answers that may change, or largest drop of its score.
        retention: Lowest share of a task's score that must be retained. If set, it replaces
            ``max_drop``, and the score decides.
        atol: Absolute tolerance of an output.
        rtol: Relative tolerance of an output.
        extremes: Whether the limits apply to extreme edge cases too. Integers saturate there by
            design and must only stay finite.
        lost_values: Largest number of values of an output, or of heads of a map, that change in
            Keras while the artifact is no better than a constant.
        question: What decides about a task, :data:`CHANGED` or :data:`SCORE`. Amounts are always
            decided by their score, because the size of their changes matters.
    """

    snr_db: float
    top1_agreement: float
    attention_max_abs: float
    attention_jsd: float
    max_drop: float = MAX_DROP
    retention: float | None = None
    atol: float = 1e-5
    rtol: float = 1e-4
    extremes: bool = True
    lost_values: float = 0.0
    question: str = SCORE

    @property
    def near_tie(self) -> float:
        """Scores that differ by less than this share of the largest may swap within ``snr_db``."""
        return max(NEAR_TIE, math.pow(10.0, -self.snr_db / 20.0))

    @property
    def task_question(self) -> str:
        """The question that decides about a task."""
        return self.question if self.retention is None else SCORE

    def margin(self, reference_score: float) -> float:
        """The largest accepted drop of a score, or share of changed answers."""
        if self.retention is None:
            return self.max_drop
        return (1.0 - self.retention) * max(reference_score, 0.0)


LIMITS: Mapping[str, Limits] = {
    "float32": Limits(math.inf, 1.0, 1e-5, 1e-8, question=CHANGED),
    "float16": Limits(50.0, 0.999, 2e-3, 1e-5, question=CHANGED),
    "int16x8": Limits(40.0, 0.995, 5e-3, 1e-4, extremes=False, question=CHANGED),
    "dynamic_int8": Limits(30.0, 0.99, 0.03, 1e-3, extremes=False),
    "int8": Limits(20.0, 0.98, 0.05, 5e-3, extremes=False),
    # Experimental, with the limits of int8, which are the widest.
    "int4": Limits(20.0, 0.98, 0.05, 5e-3, extremes=False),
}
# The names that the user can set, for all outputs or for one.
SETTABLE = tuple(spec.name for spec in fields(Limits) if spec.name not in ("extremes", "question"))


@dataclass(frozen=True)
class Limit:
    """A limit set by the user, for one output or (``output=None``) for all."""

    name: str
    value: float
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Parse ``[OUTPUT:]NAME=NUMBER``. Raises :class:`UsageError` if ``text`` is malformed."""
        left, _, number = text.partition("=")
        output, _, name = left.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in SETTABLE or math.isnan(value):
            raise UsageError(
                f"{text!r} is not a limit of the form [OUTPUT:]NAME=NUMBER.",
                hint=f"Use one of these names: {', '.join(SETTABLE)}.",
            )
        return cls(name, value, output or None)


def holds_for_every_sample(output: str, overrides: Sequence[Limit]) -> bool:
    """Whether the user has set a limit of the largest error of ``output``."""
    names = ("atol", "rtol", "attention_max_abs")
    return any(limit.name in names and limit.output in (None, output) for limit in overrides)


def is_set(name: str, output: str | None, overrides: Sequence[Limit]) -> bool:
    """Whether the user has set the limit ``name`` of ``output``."""
    return any(limit.name == name and limit.output in (None, output) for limit in overrides)


def limits_for(scheme: str, output: str, overrides: Sequence[Limit] = ()) -> Limits:
    """The limits of one output: the scheme's, then ``overrides``, those of the output last."""
    ordered = sorted(overrides, key=lambda limit: limit.output is not None)
    values = {limit.name: limit.value for limit in ordered if limit.output in (None, output)}
    return replace(LIMITS[scheme], **values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Check:
    """A metric's value and its limit.

    Attributes:
        artifact: Label of the artifact.
        stage: Stage of the validation: structure, numbers, attention, task or device.
        metric: Name of the metric.
        value: Value of the metric, for an attention map that of the worst head. NaN never passes.
        limit: Limit of the value; None for a metric that is reported only.
        relation: ``"<="`` if the limit is an upper one, ``">="`` if it is a lower one.
        output: Name of the output, if the check is about one.
        heads: Values of the heads of a multi-head attention layer.
        data: File name of the user's dataset; None for the bundle's reference.
        detail: What the value counts, as text; None if the value says it all.
        samples: The number of samples that the value is a share of; None if it is no share.
    """

    artifact: str
    stage: str
    metric: str
    value: float
    limit: float | None = None
    relation: str = "<="
    output: str | None = None
    heads: tuple[float, ...] = ()
    data: str | None = None
    detail: str | None = None
    samples: int | None = None

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Metric, output and dataset, which identify a check among those of one artifact."""
        return self.metric, self.output, self.data

    @property
    def name(self) -> str:
        """The metric with its output and dataset, such as ``snr_db of score on test.npz``."""
        of = f" of {self.output}" if self.output else ""
        return self.metric + of + (f" on {self.data}" if self.data else "")

    @property
    def passed(self) -> bool | None:
        """Whether the value is within its limit; None if there is no limit."""
        if self.limit is None:
            return None
        if self.relation == "<=":
            return self.value <= self.limit
        return self.value >= self.limit

    @property
    def comparison(self) -> str:
        """The value beside its limit, such as ``snr_db of score is 7.5 (limit >= 20)``."""
        return self.compared()

    def compared(self, usual: float | None = None) -> str:
        """:attr:`comparison`, such as ``... (limit <= 10; usual limit <= 1)``.

        ``usual`` is the limit of the scheme, if rounding extends it; None if it does not.
        """
        detail = f": {self.detail}" if self.detail else ""
        if self.limit is None:
            return f"{self.name} is {self.value:.3g}{detail}"
        value, limit = self._distinct(self.limit)
        limits = f"limit {self.relation} {limit}"
        if usual is not None and usual != self.limit:
            limits += f"; usual limit {self.relation} {usual:.3g}"
        return f"{self.name} is {value} ({limits}){detail}"

    def _distinct(self, limit: float) -> tuple[str, str]:
        """Value and limit with three significant digits, or as many as show a missed limit."""
        pairs = [(f"{self.value:.{digits}g}", f"{limit:.{digits}g}") for digits in range(3, 18)]
        return next((pair for pair in pairs if self.passed or pair[0] != pair[1]), pairs[0])

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "output": self.output,
            "metric": self.metric,
            "value": json_number(self.value),
            "limit": None if self.limit is None else json_number(self.limit),
            "passed": self.passed,
            **({"heads": [json_number(value) for value in self.heads]} if self.heads else {}),
            **({"data": self.data} if self.data else {}),
            **({"detail": self.detail} if self.detail else {}),
            **({"samples": self.samples} if self.samples is not None else {}),
        }


def checks_of(
    artifact: str, stage: str, output: str, data: str | None = None
) -> Callable[..., Check]:
    """A function that makes the checks of one output from the other fields of :class:`Check`."""

    def check(
        metric: str,
        value: float,
        limit: float | None = None,
        relation: str = "<=",
        heads: tuple[float, ...] = (),
        samples: int | None = None,
        detail: str | None = None,
    ) -> Check:
        values = (artifact, stage, metric, value, limit, relation, output, heads, data)
        return Check(*values, detail=detail, samples=samples)

    return check


def json_number(value: float) -> float | str:
    """``value``, as a string if it is infinite or NaN, which JSON cannot represent."""
    return value if math.isfinite(value) else str(value)
