"""What was measured of operators: plain values that travel as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OperatorComparison:
    """One operator; figures are in decibels, infinite where nothing differs.

    ``cause`` is None where the operator is as right as its dtypes let it be and within the scheme's
    limit. ``detail`` are the numbers that its words need, ``settings`` those that are not the
    reference's: what it is set to, and what it ought to be. ``before`` counts operators without a
    like that it was run together with.
    """

    position: int
    kind: str
    name: str
    accumulated_db: float
    isolated_db: float
    explained_db: float
    cause: str | None = None
    attention: bool = False
    recurrent: bool = False
    detail: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    before: int = 0

    def to_json(self) -> dict[str, Any]:
        def plain(value: float) -> float | str:
            return value if math.isfinite(value) else str(value)

        return {
            "position": self.position,
            "operator": self.kind,
            "name": self.name,
            "accumulated_snr_db": plain(self.accumulated_db),
            "isolated_snr_db": plain(self.isolated_db),
            "explained_snr_db": plain(self.explained_db),
            "cause": self.cause,
            "attention": self.attention,
            "recurrent": self.recurrent,
            "detail": {name: plain(value) for name, value in self.detail.items()},
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "before": self.before,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OperatorComparison:
        return cls(
            int(data["position"]),
            str(data["operator"]),
            str(data["name"]),
            float(data["accumulated_snr_db"]),
            float(data["isolated_snr_db"]),
            float(data["explained_snr_db"]),
            data["cause"],
            bool(data["attention"]),
            bool(data["recurrent"]),
            {name: float(value) for name, value in data["detail"].items()},
            {name: (str(one), str(other)) for name, (one, other) in data["settings"].items()},
            int(data["before"]),
        )


@dataclass(frozen=True)
class GraphComparison:
    """Every operator that has its like in the reference, in the order they run in.

    ``unmatched`` counts those that have none. ``swapped`` and ``misnamed`` are as
    :class:`edgeattn.diagnosis.matching.Match` has them. ``outputs_db`` is what the outputs reach
    when every sequence starts from a clean state.
    """

    operators: tuple[OperatorComparison, ...]
    unmatched: int = 0
    swapped: tuple[tuple[str, str], ...] = ()
    misnamed: Mapping[str, str] = field(default_factory=dict)
    outputs_db: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "operators": [item.to_json() for item in self.operators],
            "unmatched": self.unmatched,
            "swapped": [list(pair) for pair in self.swapped],
            "misnamed": dict(self.misnamed),
            "outputs_db": {
                name: value if math.isfinite(value) else str(value)
                for name, value in self.outputs_db.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GraphComparison:
        return cls(
            tuple(OperatorComparison.from_json(item) for item in data["operators"]),
            int(data["unmatched"]),
            tuple((str(one), str(other)) for one, other in data["swapped"]),
            {str(name): str(other) for name, other in data["misnamed"].items()},
            {str(name): float(value) for name, value in data["outputs_db"].items()},
        )
