"""How far every operator of a file is from the same operator of the reference, and why.

Accumulated: the whole judged file against the whole reference. Isolated: each judged operator on
its own, given the reference's numbers, so that what comes out wrong is its own doing. Explained:
the reference's operator given inputs that are rounded as the judged one reads them, with weights
and results kept as well as the judged one's dtypes can. What is isolated and not explained is no
rounding.
"""

from __future__ import annotations

import math

from edgeattn import progress
from edgeattn.diagnosis import causes
from edgeattn.diagnosis import locate as places
from edgeattn.diagnosis.causes import Sums, decibels
from edgeattn.diagnosis.graph import Encoding, Graph, InstrumentedModel, Operator, ideal
from edgeattn.diagnosis.matching import Match, match
from edgeattn.diagnosis.results import GraphComparison, OperatorComparison
from edgeattn.tensors import Array, Tensors


def measure(
    reference: InstrumentedModel,
    judged: InstrumentedModel,
    inputs: Tensors,
    limit_db: float,
    maps: tuple[str, ...] = (),
) -> GraphComparison:
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
    loops = places.loops(reference.graph, judged.graph, same)
    weights = {
        its: ideal(right.constants[its].value, kept.constants[mine].stored)
        for right, kept, inner in ((reference.graph, judged.graph, same), *loops.values())
        for mine, its in inner.constants.items()
        if kept.constants[mine].stored.dtype != "float32"
        and right.constants[its].stored.dtype == "float32"
    }
    there = sorted({same.tensors[name] for name in cuts} | set(reference.graph.inputs.values()))
    explained = reference.apart(there, weights)
    rows = len(next(iter(inputs.values())))
    sums: dict[str, Sums] = {name: Sums() for o in compared for name in o.outputs}
    ranges: dict[str, tuple[float, float]] = {}
    for row in range(rows):
        progress.report(f"comparing operators, sequence {row + 1} of {rows}")
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
    attending = places.attending(reference.graph, maps)
    stepping = places.stepping(reference.graph)
    for operator in compared:
        partner = same.operators.get(operator.position, -1)
        counted = [name for name in operator.outputs if sums[name].count]
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
                    attention=partner in attending
                    or places.beside(operator, same, attending, reference.graph),
                    recurrent=partner in stepping,
                    inside=causes.wrong_inside(loops.get(operator.position)),
                    before=places.before(operator, judged.graph, lone, set(cuts)),
                )
            )
    ends = {
        name: decibels(sums[tensor].signal, sums[tensor].whole)
        for name, tensor in judged.graph.outputs.items()
        if tensor in sums and sums[tensor].count and name not in same.misnamed
    }
    return GraphComparison(tuple(told), len(lone), same.swapped, same.misnamed, ends)


def _cuts(graph: Graph, same: Match) -> set[str]:
    """The tensors that operators are given: all that are known and no constants."""
    taken = {name for operator in graph.operators for name in operator.inputs}
    made = {name for operator in graph.operators for name in operator.outputs}
    used = (made & (taken | set(graph.outputs.values()))) | (set(graph.inputs.values()) & taken)
    return {name for name in same.tensors if name in used and name not in graph.constants}


def _agreed(
    same: Match, reference: InstrumentedModel, judged: InstrumentedModel, inputs: Tensors
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


def _as_read(graph: Graph, same: Match) -> dict[str, list[Encoding]]:
    """For tensors of the reference: how the judged file's operators read them, where rounded."""
    read: dict[str, list[Encoding]] = {}
    for operator in graph.operators:
        if operator.rounds:
            continue
        if operator.scales and operator.inputs[0] in same.tensors:
            own = Encoding("int8", dynamic=True)
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
    maker = graph.makers.get(name)
    return _kept_in(graph, maker.inputs[0]) if maker is not None and maker.rounds else None


def _rounded(value: Array, kept: list[Encoding]) -> Array:
    return kept[0].rounded(value) if kept and value.dtype.kind == "f" else value


def _judged(
    operator: Operator,
    sums: list[Sums],
    ranges: list[tuple[float, float]],
    names: list[str],
    graph: Graph,
    reference: Graph,
    same: Match,
    limit_db: float,
    *,
    attention: bool,
    recurrent: bool,
    inside: tuple[str, dict[str, float]] | None,
    before: int,
) -> OperatorComparison:
    signal = sum(total.signal for total in sums)
    alone = sum(total.alone for total in sums)
    explained = sum(
        total.explained + total.count * causes.step_of(operator, graph, name, low, high) ** 2 / 12
        for total, name, (low, high) in zip(sums, names, ranges, strict=True)
    )
    isolated_db = decibels(signal, alone)
    cause, detail = causes.cause_of(operator, sums, ranges, names, graph, reference, same, limit_db)
    where = places.title(operator, graph, reference, same)
    if cause is None and inside is not None:
        cause, detail = causes.WEIGHTS, inside[1]
        where = f"{where}, {inside[0]} in its body,"
    settings = causes.settings_of(operator, reference, same)
    if settings and cause is None:
        cause = causes.SETTINGS
    if cause is None and isolated_db < causes.SAME_DB:
        # What a loop rounds on its way is not known from its ends.
        known = operator.kind not in places.HIDING and not before
        if before and isolated_db < limit_db:
            # Nor is what operators without a like round, which are run with it.
            cause = causes.NO_ROUNDING
        elif known and alone > causes.UNEXPLAINED * explained and isolated_db < limit_db + 10:
            cause = causes.NO_ROUNDING
        elif not before and isolated_db < limit_db:
            cause = causes.ROUNDING
    return OperatorComparison(
        operator.position,
        operator.kind,
        where,
        decibels(signal, sum(total.whole for total in sums)),
        isolated_db,
        decibels(signal, explained),
        cause,
        attention,
        recurrent,
        detail,
        settings,
        before,
    )
