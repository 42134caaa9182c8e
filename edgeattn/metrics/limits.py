"""A number held against its limit, and the limits of every scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.metrics import pairwise as metrics


@dataclass(frozen=True)
class Limits:
    """What an artifact of a scheme may differ by; see "The verdict" in the documentation.

    Outputs pass that are within ``atol + rtol |expected|`` or reach ``snr_db``. ``retention`` is
    the share of the task's score that must be kept. ``extremes`` says whether numbers are held to
    Keras' on inputs far beyond the samples too: integers saturate there by design, and must only
    stay finite.
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
        """Classes this close, as a share of the larger, the noise that is allowed may swap."""
        return max(metrics.NEAR_TIE, math.pow(10.0, -self.snr_db / 20.0))


LIMITS: Mapping[str, Limits] = {
    "float32": Limits(math.inf, 1.0, 1e-5, 1e-8),
    "float16": Limits(50.0, 0.999, 2e-3, 1e-5),
    "int16x8": Limits(40.0, 0.995, 5e-3, 1e-4, extremes=False),
    "dynamic_int8": Limits(30.0, 0.99, 0.03, 1e-3, retention=0.99, extremes=False),
    "int8": Limits(20.0, 0.98, 0.05, 5e-3, retention=0.99, extremes=False),
    # Experimental, and held to what int8 is held to: the widest limits there are.
    "int4": Limits(20.0, 0.98, 0.05, 5e-3, retention=0.99, extremes=False),
}
# The limits that can be set by name, for all outputs or for one.
SETTABLE = tuple(spec.name for spec in fields(Limits) if spec.name != "extremes")


@dataclass(frozen=True)
class Limit:
    """A limit set by the user: for every output, or for one."""

    name: str
    value: float
    output: str | None = None

    @classmethod
    def parse(cls, text: str) -> Limit:
        """``[OUTPUT:]NAME=NUMBER``; :class:`UsageError` for anything else."""
        left, _, number = text.partition("=")
        output, _, name = left.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in SETTABLE or math.isnan(value):
            raise UsageError(
                f"A limit is [OUTPUT:]NAME=NUMBER, not {text!r}.",
                hint=f"Names are {', '.join(SETTABLE)}.",
            )
        return cls(name, value, output or None)


def limits_for(scheme: str, output: str, changes: Sequence[Limit] = ()) -> Limits:
    """The limits of an output: the scheme's, changed for all outputs, then for this one."""
    ordered = sorted(changes, key=lambda change: change.output is not None)
    chosen = {c.name: c.value for c in ordered if c.output in (None, output)}
    return replace(LIMITS[scheme], **chosen)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Check:
    """One number held against its limit.

    ``better`` says on which side of the limit it must lie, ``"<="`` or ``">="``. Without a limit
    the number is told and judges nothing. NaN never passes. Where an attention layer has several
    heads, ``heads`` are theirs, and ``value`` is the worst of them. ``data`` names the user's file
    that it was taken on; without it, that is the bundle's reference.
    """

    artifact: str
    stage: str
    metric: str
    value: float
    limit: float | None = None
    better: str = "<="
    output: str | None = None
    heads: tuple[float, ...] = ()
    data: str | None = None

    @property
    def name(self) -> str:
        """What it is a check of, for people: ``snr_db of score on test.npz``."""
        of = f" of {self.output}" if self.output else ""
        return self.metric + of + (f" on {self.data}" if self.data else "")

    @property
    def passed(self) -> bool | None:
        if self.limit is None:
            return None
        if self.better == "<=":
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
    """JSON has no infinity and no NaN: they are told as text."""
    return value if math.isfinite(value) else str(value)
