"""Results of comparing the operators of two files, serializable as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edgeattn.metrics.limits import json_number

_JSON_KEYS = {
    "kind": "operator",
    "accumulated_db": "accumulated_snr_db",
    "isolated_db": "isolated_snr_db",
    "explained_db": "explained_snr_db",
    "attributes": "settings",
    "unmatched_before": "before",
}


@dataclass(frozen=True)
class OperatorComparison:
    """One operator of the artifact, compared with its counterpart.

    The SNRs ``accumulated_db``, ``isolated_db`` and ``explained_db`` are in decibels, infinite if
    nothing differs; see :mod:`edgeattn.diagnosis.comparison`. ``cause`` is one of those in
    :mod:`edgeattn.diagnosis.causes`, ``None`` if the error is explained by rounding and within the
    limit, and ``detail`` holds the figures for its message. ``attributes`` are those that differ:
    own value, reference's value. ``unmatched_before`` is the number of operators without a
    counterpart that are included in the isolated error.
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
        return {_JSON_KEYS.get(key, key): _to_json(value) for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OperatorComparison:
        values = {item.name: data[_JSON_KEYS.get(item.name, item.name)] for item in fields(cls)}
        for key in ("accumulated_db", "isolated_db", "explained_db"):
            values[key] = float(values[key])
        values["detail"] = {name: float(value) for name, value in values["detail"].items()}
        values["attributes"] = {name: tuple(pair) for name, pair in values["attributes"].items()}
        return cls(**values)


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
            **{key: _to_json(value) for key, value in vars(self).items()},
            "operators": [operator.to_json() for operator in self.operators],
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


def _to_json(value: Any) -> Any:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value
