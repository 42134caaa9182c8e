"""How far every operator of a file is from the same operator of the reference, and why.

Accumulated: the whole judged file against the whole reference. Isolated: each judged operator on
its own, given the reference's numbers, so that what comes out wrong is its own doing. Explained:
the reference's operator given inputs that are rounded as the judged one reads them, with weights
and results kept as well as the judged one's dtypes can. What is isolated and not explained is no
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeattn.explaining.graphs import (
    FIXED_SCALES,
    Constant,
    Graph,
    Opened,
    Operator,
    Stored,
    ideal,
)
from edgeattn.explaining.matching import Match, match
from edgeattn.tensors import Array, Tensors

# An operator's own noise is no rounding from so many times the power that rounding explains.
UNEXPLAINED = 4.0
# A constant shift of the result, in steps of the integers that keep it.
SHIFTED = 0.7
# Below, numbers are the same but for the order in which sums were made.
SAME_DB = 90.0
WEIGHTS, SETTINGS, SHIFT, CUT, COARSE, NO_ROUNDING, ROUNDING = (
    *("weights", "settings", "shifted", "cut off", "coarse", "no rounding"),
    "rounding",
)


@dataclass
class _Sums:
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
        with np.errstate(all="ignore"):
            own = np.asarray(alone, np.float64) - wide
            self.count += wide.size
            self.signal += float(np.sum(wide**2))
            self.whole += float(np.sum((np.asarray(whole, np.float64) - wide) ** 2))
            self.alone += float(np.sum(own**2))
            self.shift += float(np.sum(own))
            self.largest = float(np.maximum(self.largest, np.max(np.abs(own), initial=0.0)))
            self.explained += float(np.sum((np.asarray(explained, np.float64) - wide) ** 2))


@dataclass(frozen=True)
class Measured:
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
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
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
class Compared:
    """Every operator that has its like in the reference, in the order they run in.

    ``unmatched`` counts those that have none. ``swapped`` and ``misnamed`` are as
    :class:`edgeattn.explaining.matching.Match` has them. ``outputs_db`` is what the outputs reach
    when every sequence starts from a clean state.
    """

    operators: tuple[Measured, ...]
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
    def from_json(cls, data: Mapping[str, Any]) -> Compared:
        return cls(
            tuple(Measured.from_json(item) for item in data["operators"]),
            int(data["unmatched"]),
            tuple((str(one), str(other)) for one, other in data["swapped"]),
            {str(name): str(other) for name, other in data["misnamed"].items()},
            {str(name): float(value) for name, value in data["outputs_db"].items()},
        )


def measure(
    reference: Opened,
    judged: Opened,
    inputs: Tensors,
    limit_db: float,
    maps: tuple[str, ...] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Compared:
    """Every operator of ``judged`` that has its like in ``reference``.

    ``inputs`` hold some sequences. ``limit_db`` is what an output of the judged scheme must reach,
    ``maps`` are the outputs that are attention maps.
    """
    same = match(reference.graph, judged.graph)
    shapes = _agreed(same, reference, judged, inputs)
    compared = [
        operator
        for operator in judged.graph.operators
        if any(name in same.tensors for name in operator.outputs)
    ]
    cuts = sorted(_cuts(judged.graph, same))
    alone = judged.apart(cuts, {})
    read = _as_read(judged.graph, same)
    weights = {
        its: ideal(reference.graph.constants[its].value, judged.graph.constants[mine].stored)
        for mine, its in same.constants.items()
        if judged.graph.constants[mine].stored.dtype != "float32"
        and reference.graph.constants[its].stored.dtype == "float32"
    }
    there = sorted({same.tensors[name] for name in cuts} | set(reference.graph.inputs.values()))
    explained = reference.apart(there, weights)
    rows = len(next(iter(inputs.values())))
    sums: dict[str, _Sums] = {name: _Sums() for o in compared for name in o.outputs}
    ranges: dict[str, tuple[float, float]] = {}
    for row in range(rows):
        if on_progress is not None:
            on_progress(f"comparing operators, sequence {row + 1} of {rows}")
        one = {name: array[row : row + 1] for name, array in inputs.items()}
        right, whole = reference.values(one), judged.values(one)
        own = alone({name: right[same.tensors[name]].reshape(shapes[name]) for name in cuts})
        near = explained({name: _rounded(right[name], read.get(name, [])) for name in there})
        for name, total in sums.items():
            wanted = same.tensors.get(name)
            if wanted is None or wanted not in right or name not in own or name not in whole:
                continue
            value = right[wanted]
            low, high = ranges.get(name, (math.inf, -math.inf))
            if value.size:
                low, high = min(low, float(value.min())), max(high, float(value.max()))
            ranges[name] = (low, high)
            total.add(value, whole[name], own[name], near.get(wanted))
    told = []
    lone = {o.position for o in same.without(judged.graph)}
    attending = _attending(reference.graph, maps)
    stepping = _stepping(reference.graph)
    for operator in compared:
        partner = same.operators.get(operator.position, -1)
        counted = [name for name in operator.outputs if sums[name].count]
        if operator.rounds and operator.kind.upper().startswith("DEQUANTIZE"):
            continue  # it only reads what the operator before it kept
        if counted:
            told.append(
                _judged(
                    operator,
                    [sums[name] for name in counted],
                    [ranges[name] for name in counted],
                    counted,
                    judged.graph,
                    reference.graph,
                    same,
                    limit_db,
                    attention=partner in attending or _beside(operator, same, attending, reference),
                    recurrent=partner in stepping,
                    before=_before(operator, judged.graph, lone, set(cuts)),
                )
            )
    ends = {
        name: _db(sums[tensor].signal, sums[tensor].whole)
        for name, tensor in judged.graph.outputs.items()
        if tensor in sums and sums[tensor].count and name not in same.misnamed
    }
    return Compared(tuple(told), len(lone), same.swapped, same.misnamed, ends)


def _before(operator: Operator, graph: Graph, lone: set[int], cuts: set[str]) -> int:
    """How many operators without a like lie between ``operator`` and what it is given."""
    made = {name: o for o in graph.operators for name in o.outputs} if lone else {}
    found: set[int] = set()
    waiting = [name for name in operator.inputs if name not in cuts]
    while waiting:
        maker = made.get(waiting.pop())
        if maker is not None and maker.position in lone - found:
            found.add(maker.position)
            waiting += [name for name in maker.inputs if name not in cuts]
    return len(found)


def _cuts(graph: Graph, same: Match) -> set[str]:
    """The tensors that operators are given: all that are known and no constants."""
    taken = {name for operator in graph.operators for name in operator.inputs}
    made = {name for operator in graph.operators for name in operator.outputs}
    used = (made & (taken | set(graph.outputs.values()))) | (set(graph.inputs.values()) & taken)
    return {name for name in same.tensors if name in used and name not in graph.constants}


def _agreed(
    same: Match, reference: Opened, judged: Opened, inputs: Tensors
) -> dict[str, tuple[int, ...]]:
    """The judged tensors' shapes; one that is not as large as its like has none after all."""
    first = {name: array[:1] for name, array in inputs.items()}
    right, whole = reference.values(first), judged.values(first)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, partner in list(same.tensors.items()):
        if name in whole and partner in right and whole[name].size == right[partner].size:
            shapes[name] = whole[name].shape
        else:
            del same.tensors[name]
    for operator in judged.graph.operators:
        if not any(name in same.tensors for name in operator.outputs):
            same.operators.pop(operator.position, None)
    return shapes


def _as_read(graph: Graph, same: Match) -> dict[str, list[Stored]]:
    """For tensors of the reference: how the judged file's operators read them, where rounded."""
    read: dict[str, list[Stored]] = {}
    for operator in graph.operators:
        if operator.rounds:
            continue
        if operator.scales and operator.inputs[0] in same.tensors:
            own = Stored("int8", dynamic=True)
            read.setdefault(same.tensors[operator.inputs[0]], []).append(own)
        for name in operator.inputs:
            source = _kept_in(graph, name)
            if source is not None and name in same.tensors:
                read.setdefault(same.tensors[name], []).append(graph.keeping(source))
    return read


def _kept_in(graph: Graph, name: str) -> str | None:
    """The integer tensor that ``name`` is, or is read from."""
    if graph.keeping(name).scale is not None:
        return name
    for operator in graph.operators:
        if operator.rounds and name in operator.outputs:
            return _kept_in(graph, operator.inputs[0])
    return None


def _rounded(value: Array, kept: list[Stored]) -> Array:
    return kept[0].rounded(value) if kept and value.dtype.kind == "f" else value


def _judged(
    operator: Operator,
    sums: list[_Sums],
    ranges: list[tuple[float, float]],
    names: list[str],
    graph: Graph,
    reference: Graph,
    same: Match,
    limit_db: float,
    *,
    attention: bool,
    recurrent: bool,
    before: int,
) -> Measured:
    signal = sum(total.signal for total in sums)
    alone = sum(total.alone for total in sums)
    explained = sum(
        total.explained + total.count * _step(operator, graph, name, low, high) ** 2 / 12
        for total, name, (low, high) in zip(sums, names, ranges, strict=True)
    )
    isolated_db = _db(signal, alone)
    cause, detail = _cause(operator, sums, ranges, names, graph, reference, same, limit_db)
    settings = _settings(operator, reference, same)
    if settings and cause is None:
        cause = SETTINGS
    if cause is None and isolated_db < SAME_DB:
        if alone > UNEXPLAINED * explained and isolated_db < limit_db + 10:
            cause = NO_ROUNDING
        elif isolated_db < limit_db:
            cause = ROUNDING
    return Measured(
        operator.position,
        operator.kind,
        _title(operator, graph, reference, same),
        _db(signal, sum(total.whole for total in sums)),
        isolated_db,
        _db(signal, explained),
        cause,
        attention,
        recurrent,
        detail,
        settings,
        before,
    )


def _settings(operator: Operator, reference: Graph, same: Match) -> dict[str, tuple[str, str]]:
    """What the operator is set to and its like is not."""
    place = same.operators.get(operator.position)
    partner = next((o for o in reference.operators if o.position == place), None)
    if partner is None or partner.kind != operator.kind or operator.scales or partner.scales:
        return {}
    names = sorted({*operator.attributes, *partner.attributes})
    pairs = {n: (operator.attributes.get(n, "-"), partner.attributes.get(n, "-")) for n in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _step(operator: Operator, graph: Graph, name: str, low: float, high: float) -> float:
    """The step between numbers that the result's dtype can keep at its best."""
    stored = graph.keeping(name)
    if stored.scale is None:
        return 0.0
    if FIXED_SCALES.get(operator.kind, 0.0) > 0 and stored.dtype == "int8":
        return FIXED_SCALES[operator.kind]
    info = np.iinfo(stored.dtype)
    low, high = min(low, 0.0), max(high, 0.0)
    return max(high, -low) / info.max if stored.dtype == "int16" else (high - low) / 255


def _cause(
    operator: Operator,
    sums: list[_Sums],
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
        stored = graph.keeping(name)
        if stored.scale is None or not total.count:
            continue
        mean = total.shift / total.count / stored.scale
        spread = math.sqrt(max(0.0, total.alone / total.count / stored.scale**2 - mean**2))
        if abs(mean) > SHIFTED and spread < SHIFTED:
            return SHIFT, {"steps": mean}
        own_db = _db(total.signal, total.alone)
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
        step = {"float32": 1e-5, "float16": 2.0**-10}.get(kept.stored.dtype, 1 / 127)
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


def _title(operator: Operator, graph: Graph, reference: Graph, same: Match) -> str:
    partners = [same.tensors.get(name, "") for name in operator.outputs]
    titles = [reference.titles.get(partner) for partner in partners]
    titles += [graph.titles.get(name) for name in operator.outputs]
    # Where what it makes is not named after a layer, what it is made of may be.
    weights = [same.constants.get(name, "") for name in operator.inputs]
    told = [reference.titles.get(name) for name in weights]
    told += [graph.titles.get(name) for name in operator.inputs if name in graph.constants]
    layers = [title.rsplit("/", 2)[0] for title in told if title and title.count("/") > 1]
    known = [title for title in titles if title]
    for title in (*(item for item in known if "/" in item), *layers, *known):
        first, *rest = title.split(";")[0].removesuffix(":0").split("/")
        # The first part is the model's own name.
        return "/".join(rest) if rest and first != "attention" else "/".join([first, *rest])
    return "without a name"


_HEAVY = frozenset(
    {"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "MatMul", "Gemm", "Einsum", "ReduceSum"}
)
_LOOPS = frozenset({"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "GRU", "RNN", "Loop", "Scan"})


def _attending(graph: Graph, maps: tuple[str, ...]) -> set[int]:
    """Positions of the operators that make scores, weights and what the weights make."""
    made = {name: o for o in graph.operators for name in o.outputs}
    found: set[int] = set()
    ends = [graph.outputs[name] for name in maps if name in graph.outputs]
    waiting = list(ends)
    while waiting:
        operator = made.get(waiting.pop())
        if operator is not None and operator.position not in found:
            found.add(operator.position)
            if operator.kind not in _HEAVY:
                waiting += operator.inputs
    known = set(ends)
    for operator in graph.operators:
        if known & set(operator.inputs):
            found.add(operator.position)
            if operator.kind not in _HEAVY:
                known |= set(operator.outputs)
    return found


def _beside(operator: Operator, same: Match, attending: set[int], reference: Opened) -> bool:
    """Whether one that only rounds does so to what attention makes."""
    if not operator.rounds:
        return False
    wanted = same.tensors.get(operator.outputs[0])
    return any(o.position in attending and wanted in o.outputs for o in reference.graph.operators)


def _stepping(graph: Graph) -> set[int]:
    """Positions of recurrences: loops, and steps that are written out, which all share weights."""
    users: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        for name in operator.inputs:
            if name in graph.constants and graph.constants[name].value.ndim == 2:
                users.setdefault(name, []).append(operator)
    found = {o.position for o in graph.operators if o.kind in _LOOPS}
    for same in users.values():
        if len(same) > 2:
            found.update(range(same[0].position, same[-1].position + 1))
    return found


def _db(signal: float, noise: float) -> float:
    if math.isnan(noise) or math.isinf(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0 else -math.inf
