"""Where an operator is: its name for people, in attention or in a recurrence, in a loop."""

from __future__ import annotations

from edgeattn.diagnosis.graph import Graph, Operator
from edgeattn.diagnosis.matching import Match, match

_HEAVY = frozenset(
    {"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "MatMul", "Gemm", "Einsum", "ReduceSum"}
)
# What rounds inside where it cannot be seen.
HIDING = frozenset({"WHILE", "IF", "Loop", "If", "Scan"})
_LOOPS = frozenset({"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "GRU", "RNN", "Loop", "Scan"})
Loop = tuple[Graph, Graph, Match]


def loops(reference: Graph, judged: Graph, same: Match) -> dict[int, Loop]:
    """Loops that are each other's like, by their positions: both bodies, laid side by side."""
    found = {}
    for position, body in judged.bodies.items():
        right = reference.bodies.get(same.operators.get(position, -1))
        if right is not None:
            found[position] = (right, body, match(right, body))
    return found


def before(operator: Operator, graph: Graph, lone: set[int], cuts: set[str]) -> int:
    """How many operators without a like lie between ``operator`` and what it is given."""
    made = graph.makers
    found: set[int] = set()
    waiting = [name for name in operator.inputs if name not in cuts]
    while waiting:
        maker = made.get(waiting.pop())
        if maker is not None and maker.position in lone - found:
            found.add(maker.position)
            waiting += [name for name in maker.inputs if name not in cuts]
    return len(found)


def title(operator: Operator, graph: Graph, reference: Graph, same: Match) -> str:
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


def attending(graph: Graph, maps: tuple[str, ...]) -> set[int]:
    """Positions of the operators that make scores, weights and what the weights make."""
    made = graph.makers
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


def beside(operator: Operator, same: Match, attending: set[int], reference: Graph) -> bool:
    """Whether one that only rounds does so to what attention makes."""
    if not operator.rounds:
        return False
    maker = reference.makers.get(same.tensors.get(operator.outputs[0], ""))
    return maker is not None and maker.position in attending


def stepping(graph: Graph) -> set[int]:
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
