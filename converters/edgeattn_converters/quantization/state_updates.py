"""Finding the operators of recurrent steps that update their states, and their products.

An LSTM adds to its cell in every step and a GRU to its state, so the rounding of a step remains
in the next ones. In float32, these few operators add no rounding of their own, while the products
and the activation functions of the steps stay integers.
"""

from typing import Any

from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.float_operators import MOVING, layer_pattern

GATES = {"LOGISTIC", "TANH", "RELU", "HARD_SWISH"}
SUMS = {"ADD", "SUB"}


def state_updates(file: TFLiteFile, graph: Any, *, functions: bool = False) -> set[int]:
    """The tensors that these operators compute.

    They are ``f * c + i * g`` of an LSTM, except the product of two gates, and
    ``n + z * (h - n)`` of a GRU. With ``functions``, the product of two gates is included, and so
    is every ``TANH`` that computes what is added to a state, or reads a state: its int8 kernel has
    a fixed step of 1/128, which is coarse for small values.
    """
    makers = {int(i): operator for operator in graph.operators for i in operator.outputs}

    def kind(index: int) -> str:
        return file.kind(makers[index]) if index in makers else ""

    def inputs(operator: Any) -> list[int]:
        return [int(i) for i in operator.inputs if int(i) >= 0]

    updates: set[int] = set()
    for operator in graph.operators:
        terms = inputs(operator)
        if file.kind(operator) != "ADD" or not all(kind(i) in GATES | {"MUL"} for i in terms):
            continue
        products = [i for i in terms if kind(i) == "MUL"]
        carried = [i for i in products if not all(kind(k) in GATES for k in inputs(makers[i]))]
        if not carried:
            continue
        updates.update((int(operator.outputs[0]), *carried))
        factors = [k for i in carried for k in inputs(makers[i])]
        updates.update(k for k in factors if kind(k) in SUMS)
        if functions:
            added = {i for i in products if i not in carried}
            # The first cell is a product of two gates alone.
            added |= {k for i in carried for k in inputs(makers[i]) if kind(k) == "MUL"}
            sources = {*terms, *(k for i in added for k in inputs(makers[i]))}
            updates |= added | {i for i in sources if kind(i) == "TANH"}
    if functions:
        updates.update(
            int(operator.outputs[0])
            for operator in graph.operators
            if file.kind(operator) == "TANH" and not updates.isdisjoint(inputs(operator))
        )
    return updates


def step_products(file: TFLiteFile, layers: tuple[str, ...]) -> set[str]:
    """The products with a state in unrolled steps of these recurrent layers, by their outputs.

    They are the products whose input is computed in the same layer, unlike the input products of
    all steps.
    """
    if not layers:
        return set()
    inside = layer_pattern(layers)
    tensors = file.main.tensors
    makers = {int(i): operator for operator in file.main.operators for i in operator.outputs}

    def layer(index: int) -> str:
        match = inside.search(file.name(tensors[index]))
        return match[1] if match else ""

    products = set()
    for operator in file.main.operators:
        output, source = int(operator.outputs[0]), int(operator.inputs[0])
        if file.kind(operator) != "FULLY_CONNECTED" or not layer(output):
            continue
        while source in makers and file.kind(makers[source]) in MOVING:
            source = int(makers[source].inputs[0])
        if source in makers and layer(source) == layer(output):
            products.add(file.name(tensors[output]))
    return products
