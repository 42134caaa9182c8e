"""Location of an operator: its readable name, and whether it is in attention or a recurrence."""

from edgeattn.diagnosis.graph import Graph, Operator
from edgeattn.diagnosis.matching import GraphPair

PRODUCTS = frozenset(
    {"BATCH_MATMUL", "FULLY_CONNECTED", "SUM", "CONV_2D", "MatMul", "Gemm", "Einsum", "ReduceSum"}
)
# Operators whose bodies round without being visible from outside.
OPAQUE = frozenset({"WHILE", "IF", "Loop", "If", "Scan"})
_RECURRENT = frozenset(
    {"WHILE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "GRU", "RNN", "Loop", "Scan"}
)


def unmatched_before(operator: Operator, graph: Graph, unmatched: set[int], cuts: set[str]) -> int:
    """Count the ``unmatched`` operators between ``operator`` and the tensors ``cuts``."""
    counted: set[int] = set()
    pending = [name for name in operator.inputs if name not in cuts]
    while pending:
        producer = graph.producers.get(pending.pop())
        if producer is not None and producer.position in unmatched - counted:
            counted.add(producer.position)
            pending += [name for name in producer.inputs if name not in cuts]
    return len(counted)


def readable_name(operator: Operator, pair: GraphPair) -> str:
    """A name from the outputs, or else from the weights, without the model's; preferably with a
    layer's path."""
    match, artifact, reference = pair.match, pair.artifact.names, pair.reference.names
    outputs = [reference.get(match.tensors.get(name, "")) for name in operator.outputs]
    outputs += [artifact.get(name) for name in operator.outputs]
    weights = [reference.get(match.constants.get(name, "")) for name in operator.inputs]
    weights += [artifact.get(name) for name in operator.inputs if name in pair.artifact.constants]
    output_names = [name for name in outputs if name]
    layers = [name.rsplit("/", 2)[0] for name in weights if name and name.count("/") > 1]
    for name in (*(n for n in output_names if "/" in n), *layers, *output_names):
        first, *rest = name.split(";")[0].removesuffix(":0").split("/")
        return "/".join(rest) if rest and first != "attention" else "/".join([first, *rest])
    return "without a name"


def attention_positions(graph: Graph, maps: tuple[str, ...]) -> set[int]:
    """The positions of the operators that produce or apply the attention maps, from the products
    that compute the scores to those that apply the weights."""
    positions: set[int] = set()
    map_tensors = [graph.outputs[name] for name in maps if name in graph.outputs]
    pending = list(map_tensors)
    while pending:
        operator = graph.producers.get(pending.pop())
        if operator is not None and operator.position not in positions:
            positions.add(operator.position)
            if operator.kind not in PRODUCTS:
                pending += operator.inputs
    reached = set(map_tensors)
    for operator in graph.operators:
        if reached & set(operator.inputs):
            positions.add(operator.position)
            if operator.kind not in PRODUCTS:
                reached |= set(operator.outputs)
    return positions


def recodes_attention(operator: Operator, pair: GraphPair, attention: set[int]) -> bool:
    """Return whether ``operator`` changes the encoding of a tensor that attention produces."""
    if not operator.recodes:
        return False
    producer = pair.reference.producers.get(pair.match.tensors.get(operator.outputs[0], ""))
    return producer is not None and producer.position in attention


def recurrent_positions(graph: Graph) -> set[int]:
    """Return the positions of recurrences: loops, and unrolled steps, which share weights."""
    readers: dict[str, list[int]] = {}
    for operator in graph.operators:
        for name in operator.inputs:
            if name in graph.constants and graph.constants[name].values.ndim == 2:
                readers.setdefault(name, []).append(operator.position)
    positions = {o.position for o in graph.operators if o.kind in _RECURRENT}
    for steps in readers.values():
        if len(steps) > 2:
            positions.update(range(steps[0], steps[-1] + 1))
    return positions
