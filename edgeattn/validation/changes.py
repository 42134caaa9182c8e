"""A value of an artifact in an old and a new bundle, and how much worse it may become."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.metrics.limits import json_number

SIZE, LATENCY, SCORE, ERROR, ATTENTION = "size", "latency", "score", "error", "attention"
ROUNDING = 1e-9


@dataclass(frozen=True)
class ComparisonLimits:
    """How much worse an artifact may be than that of the old bundle; infinite for no limit.

    Attributes:
        size: Largest growth of the file, as a share: 0.1 is 10%.
        latency: Largest growth of the median latency, as a share.
        score: Largest drop of the score: 0.01 is one percentage point.
        error: Largest growth of the max abs error of an output, as a share.
        attention: Largest increase of the max abs error of an attention weight.
    """

    size: float = 0.1
    latency: float = 0.2
    score: float = 0.01
    error: float = math.inf
    attention: float = 0.01

    @classmethod
    def parse(cls, values: Mapping[str, float] | Sequence[str]) -> ComparisonLimits:
        """Limits from ``{name: number}`` or texts ``NAME=NUMBER``; the others are the defaults.

        Raises :class:`UsageError` for other names, repeated ones, and numbers below 0.
        """
        names = [spec.name for spec in fields(cls)]
        texts = (
            [f"{name}={value!r}" for name, value in values.items()]
            if isinstance(values, Mapping)
            else values
        )
        limits: dict[str, float] = {}
        for text in texts:
            name, _, number = text.partition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if name not in names or name in limits or not value >= 0:
                raise UsageError(
                    f"--compare-limit {text} is not NAME=NUMBER with a number of at least 0, or is "
                    "repeated.",
                    hint=f"Use each of these names at most once: {', '.join(names)}.",
                )
            limits[name] = value
        return cls(**limits)

    def to_json(self) -> dict[str, float | str]:
        return {spec.name: json_number(getattr(self, spec.name)) for spec in fields(self)}


@dataclass(frozen=True)
class Change:
    """One value of an artifact in the old bundle and in the new one; None if it is unknown.

    Attributes:
        metric: :data:`SIZE` in bytes, :data:`LATENCY` in milliseconds, :data:`SCORE`,
            :data:`ERROR` or :data:`ATTENTION`.
        worse_by: By how much the new value is worse, in the unit of the limit; None if unknown or
            if the two values are not comparable.
        limit: The largest accepted ``worse_by``.
        detail: The output of a score, or the number of threads of a latency.
    """

    metric: str
    old: float | None
    new: float | None
    worse_by: float | None
    limit: float
    detail: str = ""

    @property
    def is_regression(self) -> bool:
        # NaN is within no limit, and the rounding of a difference does not exceed one.
        limited = self.worse_by is not None and self.limit < math.inf
        return limited and not (self.worse_by or 0.0) <= self.limit + ROUNDING

    def describe(self) -> str:
        """The regression in words: ``size grew by 12.3% (limit 10%)``."""
        worse, limit, of = self.worse_by or 0.0, self.limit, f" of {self.detail}"
        if self.metric == SCORE:
            return f"score{of} dropped by {100 * worse:.2f} points (limit {100 * limit:g})"
        if self.metric == ATTENTION:
            return f"max map error increased by {worse:.2g} (limit {limit:g})"
        name = {SIZE: "size", LATENCY: f"median latency with {self.detail}", ERROR: "max abs error"}
        return f"{name[self.metric]} grew by {100 * worse:.1f}% (limit {100 * limit:g}%)"

    def to_json(self) -> dict[str, Any]:
        return {
            name: json_number(value) if isinstance(value, float) else value
            for name, value in vars(self).items()
        } | {"regression": self.is_regression}


def difference(old: float, new: float) -> float:
    """``new - old``, and 0 for two values that are the same, finite or not."""
    return 0.0 if old == new or (math.isnan(old) and math.isnan(new)) else new - old


def growth(old: float, new: float) -> float:
    """The difference as a share of ``old``; infinite from 0 to more."""
    change = difference(old, new)
    return change / old if old and change else math.copysign(math.inf, change) if change else 0.0
