"""Checks, and the limits of each scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.metrics.pairwise import NEAR_TIE


@dataclass(frozen=True)
class Limits:
    """The largest accepted differences between an artifact and Keras.

    An output passes if it is within ``atol + rtol |expected|`` or reaches ``snr_db``.

    Attributes:
        snr_db: Lowest signal-to-noise ratio of an output, in dB.
        top1_agreement: Lowest share of samples whose predicted class stays the same.
        attention_max_abs: Largest absolute error of an attention weight.
        attention_jsd: Largest mean Jensen-Shannon divergence of attention rows, in nats.
        retention: Lowest share of the task's score that must be retained.
        atol: Absolute tolerance of an output.
        rtol: Relative tolerance of an output.
        extremes: Whether the limits apply to extreme edge cases too. Integers saturate there by
            design and must only stay finite.
    """

    snr_db: float
    top1_agreement: float
    attention_max_abs: float
    attention_jsd: float
    retention: float = 0.999
    atol: float = 1e-5
    rtol: float = 1e-4
    extremes: bool = True

    @property
    def near_tie(self) -> float:
        """Scores that differ by less than this share of the largest may swap within ``snr_db``."""
        return max(NEAR_TIE, math.pow(10.0, -self.snr_db / 20.0))


LIMITS: Mapping[str, Limits] = {
    "float32": Limits(math.inf, 1.0, 1e-5, 1e-8),
    "float16": Limits(50.0, 0.999, 2e-3, 1e-5),
    "int16x8": Limits(40.0, 0.995, 5e-3, 1e-4, extremes=False),
    "dynamic_int8": Limits(30.0, 0.99, 0.03, 1e-3, retention=0.99, extremes=False),
    "int8": Limits(20.0, 0.98, 0.05, 5e-3, retention=0.99, extremes=False),
    # Experimental, with the limits of int8, which are the widest.
    "int4": Limits(20.0, 0.98, 0.05, 5e-3, retention=0.99, extremes=False),
}
# The names that the user can set, for all outputs or for one.
SETTABLE = tuple(spec.name for spec in fields(Limits) if spec.name != "extremes")


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
        }


def json_number(value: float) -> float | str:
    """``value``, as a string if it is infinite or NaN, which JSON cannot represent."""
    return value if math.isfinite(value) else str(value)
