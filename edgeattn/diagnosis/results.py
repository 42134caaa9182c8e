"""Results of comparing the operators of two files, serializable as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeattn.metrics.limits import json_number


@dataclass(frozen=True)
class OperatorComparison:
    """One operator of the artifact, compared with its counterpart.

    The SNRs ``accumulated_db``, ``isolated_db`` and ``explained_db`` are in decibels, infinite if
    nothing differs; see :mod:`edgeattn.diagnosis.comparison`.

    Args:
        cause: one of the causes in :mod:`edgeattn.diagnosis.causes`; ``None`` if the error is
            explained by rounding and within the limit.
        detail: figures for the message of the cause.
        attributes: attributes that differ: own value, reference's value.
        unmatched_before: number of operators without a counterpart that are included in the
            isolated error.
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
    attributes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    unmatched_before: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "operator": self.kind,
            "name": self.name,
            "accumulated_snr_db": json_number(self.accumulated_db),
            "isolated_snr_db": json_number(self.isolated_db),
            "explained_snr_db": json_number(self.explained_db),
            "cause": self.cause,
            "attention": self.attention,
            "recurrent": self.recurrent,
            "detail": {name: json_number(value) for name, value in self.detail.items()},
            "settings": {name: list(pair) for name, pair in self.attributes.items()},
            "before": self.unmatched_before,
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
            {name: (str(own), str(other)) for name, (own, other) in data["settings"].items()},
            int(data["before"]),
        )


@dataclass(frozen=True)
class GraphComparison:
    """All operators with a counterpart in the reference, in order of execution.

    ``unmatched`` counts the others. ``swapped`` and ``misnamed`` are as in
    :class:`edgeattn.diagnosis.matching.Match`. ``outputs_db`` is the SNR in decibels of each output
    if every sample starts from initial states.
    """

    operators: tuple[OperatorComparison, ...]
    unmatched: int = 0
    swapped: tuple[tuple[str, str], ...] = ()
    misnamed: Mapping[str, str] = field(default_factory=dict)
    outputs_db: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "operators": [operator.to_json() for operator in self.operators],
            "unmatched": self.unmatched,
            "swapped": [list(pair) for pair in self.swapped],
            "misnamed": dict(self.misnamed),
            "outputs_db": {name: json_number(value) for name, value in self.outputs_db.items()},
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
