"""What is wrong with an operator beyond the rounding that its dtypes mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeattn.diagnosis.graph import FIXED_SCALES, Constant, Encoding, Graph, Operator
from edgeattn.diagnosis.locate import Loop, title
from edgeattn.diagnosis.matching import Match
from edgeattn.tensors import Array

# An operator's own noise is no rounding from so many times the power that rounding explains.
UNEXPLAINED = 4.0
# A constant shift of the result, in steps of the integers that keep it.
SHIFTED = 0.7
# Below, numbers are the same but for the order in which sums were made.
SAME_DB = 90.0
# Of what is zero in the reference.
NOTHING = 1e-9
WEIGHTS, SETTINGS, SHIFT, CUT, COARSE, NO_ROUNDING, ROUNDING = (
    *("weights", "settings", "shifted", "cut off", "coarse", "no rounding"),
    "rounding",
)


@dataclass
class Sums:
    """What is added up over the sequences, of one tensor."""

    count: int = 0
    signal: float = 0.0
    whole: float = 0.0
    alone: float = 0.0
    explained: float = 0.0
    shift: float = 0.0
    largest: float = 0.0

    def add(self, right: Array, whole: Array, alone: Array, explained: Array | None) -> None:
        wide = np.asarray(right, np.float64).ravel()
        # Axes of one come and go; another number of values is another thing altogether.
        lost = np.full_like(wide, np.nan)
        whole, alone, explained = (
            np.ravel(item) if item is not None and np.size(item) == wide.size else lost
            for item in (whole, alone, right if explained is None else explained)
        )
        # An infinity that both have, such as that of a mask, is no difference.
        odd = ~np.isfinite(wide)
        if odd.any():
            whole, alone, explained = (
                np.where(odd & ((item == wide) | (np.isnan(item) & np.isnan(wide))), 0.0, item)
                for item in (whole, alone, explained)
            )
            wide = np.where(odd, 0.0, wide)
        with np.errstate(all="ignore"):
            own = np.asarray(alone, np.float64) - wide
            self.count += wide.size
            self.signal += float(np.sum(wide**2))
            self.whole += float(np.sum((np.asarray(whole, np.float64) - wide) ** 2))
            self.alone += float(np.sum(own**2))
            self.shift += float(np.sum(own))
            self.largest = float(np.maximum(self.largest, np.max(np.abs(own), initial=0.0)))
            self.explained += float(np.sum((np.asarray(explained, np.float64) - wide) ** 2))


def wrong_inside(loop: Loop | None) -> tuple[str, dict[str, float]] | None:
    """The first operator of a loop's body whose weights are not the reference's, and how far."""
    if loop is None:
        return None
    right, body, same = loop
    for operator in body.operators:
        for name in operator.inputs:
            if name in same.constants:
                found = _weights(body.constants[name], right.constants[same.constants[name]])
                if found is not None:
                    return f"{operator.kind} {title(operator, body, right, same)}", found
    return None


def settings_of(operator: Operator, reference: Graph, same: Match) -> dict[str, tuple[str, str]]:
    """What the operator is set to and its like is not."""
    partner = reference.at.get(same.operators.get(operator.position, -1))
    if partner is None or partner.kind != operator.kind or operator.scales or partner.scales:
        return {}
    names = sorted({*operator.attributes, *partner.attributes})
    pairs = {n: (operator.attributes.get(n, "-"), partner.attributes.get(n, "-")) for n in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def step_of(operator: Operator, graph: Graph, name: str, low: float, high: float) -> float:
    """The step between numbers that the result's dtype can keep at its best."""
    stored = _keeping(operator, graph, name)
    if stored.scale is None:
        return 0.0
    if graph.keeping(name).scale is None:
        return stored.scale  # that of the integers which are read, good or bad
    if FIXED_SCALES.get(operator.kind, 0.0) > 0 and stored.dtype == "int8":
        return FIXED_SCALES[operator.kind]
    info = np.iinfo(stored.dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    return max(high, -low) / info.max if stored.dtype == "int16" else (high - low) / 255


def _keeping(operator: Operator, graph: Graph, name: str) -> Encoding:
    """How a result is kept; one that integers were read back to is as fine as those."""
    stored = graph.keeping(name)
    return graph.keeping(operator.inputs[0]) if operator.rounds and not stored.scale else stored


def cause_of(
    operator: Operator,
    sums: list[Sums],
    ranges: list[tuple[float, float]],
    names: list[str],
    graph: Graph,
    reference: Graph,
    same: Match,
    limit_db: float,
) -> tuple[str | None, dict[str, float]]:
    """What is wrong with an operator beyond the rounding that its dtypes mean, if anything."""
    for name in operator.inputs:
        if name in same.constants and name in graph.constants:
            found = _weights(graph.constants[name], reference.constants[same.constants[name]])
            if found is not None:
                return WEIGHTS, found
    for total, name, (low, high) in zip(sums, names, ranges, strict=True):
        stored = _keeping(operator, graph, name)
        if stored.scale is None or not total.count:
            continue
        mean = total.shift / total.count / stored.scale
        spread = math.sqrt(max(0.0, total.alone / total.count / stored.scale**2 - mean**2))
        if abs(mean) > SHIFTED and spread < SHIFTED:
            return SHIFT, {"steps": mean}
        own_db = decibels(total.signal, total.alone)
        limits = stored.limits
        assert limits is not None
        beyond = max(limits[0] - low, high - limits[1])
        if own_db < limit_db + 10 and beyond > stored.scale and total.largest > stored.scale:
            return CUT, {"low": low, "high": high, "kept_low": limits[0], "kept_high": limits[1]}
        used = (max(high, 0.0) - min(low, 0.0)) / stored.scale
        if own_db < limit_db and used < 64:
            return COARSE, {"steps": used, "kept_low": limits[0], "kept_high": limits[1]}
    return None, {}


def _weights(kept: Constant, right: Constant) -> dict[str, float] | None:
    """How far stored weights are from the reference's, where rounding cannot explain it."""
    if kept.value.size != right.value.size:
        return None
    # As the judged file shapes them: axes of one come and go.
    stored = kept.value.astype(np.float64)
    wanted = right.value.astype(np.float64).reshape(stored.shape)
    if kept.stored.dtype == "int32":
        # A bias: finer than anything it is added to.
        allowed = np.full_like(wanted, 0.02 * float(np.abs(wanted).max(initial=0.0)) + 1e-6)
        worst = np.abs(stored - wanted) / allowed
    else:
        axis = kept.stored.channels
        axes = tuple(k for k in range(wanted.ndim) if k != axis)
        most = np.abs(wanted).max(axes if axis is not None else None, keepdims=True)
        step = {"float32": 1e-5, "float16": 2.0**-10, "int4": 1 / 7}.get(kept.stored.dtype, 1 / 127)
        if right.stored.dtype == "float16":
            step = max(step, 2.0**-10)
        worst = np.abs(stored - wanted) / np.maximum(most * step, 1e-9)
    with np.errstate(invalid="ignore"):
        share = float(np.mean(~(worst <= 1.0)))
    if not share:
        return None
    with np.errstate(invalid="ignore"):
        difference = np.abs(stored - wanted)
    return {"share": share, "largest": float(np.max(difference)), "count": float(wanted.size)}


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``: infinite where nothing differs, -inf where all is lost."""
    if math.isnan(noise) or math.isinf(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    if signal == 0.0:
        # Next to nothing is nothing.
        return math.inf if noise < NOTHING else -math.inf
    return 10.0 * math.log10(signal / noise)
