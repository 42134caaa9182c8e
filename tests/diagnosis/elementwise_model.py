"""A model of elementwise NumPy operators, to test comparisons without a runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, InstrumentedModel, Operator
from edgeattn.tensors import Array, Tensors

FUNCTIONS: Mapping[str, Callable[..., Array]] = {
    "MUL": lambda x, w: x * w,
    "ADD": lambda x, w: x + w,
    "NEG": lambda x: -x,
    "ABS": abs,
    "QUANTIZE": lambda x: x,
    "DEQUANTIZE": lambda x: x,
}


@dataclass
class ElementwiseModel(InstrumentedModel):
    """A model whose operators are ``FUNCTIONS``; outputs are rounded to their encoding."""

    graph: Graph

    def _dtype(self, tensor: str) -> str | None:
        return None

    def _run(self, feeds: Tensors) -> Tensors:
        return self._compute(dict(self._decode(feeds)), {}, {})

    def _cut(
        self, boundaries: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        def run(feeds: Tensors) -> Tensors:
            replaced = self._decode(feeds)
            results = self._compute(dict(replaced), constants, replaced)
            return {name: results[name] for name in boundaries if name in results}

        return run

    def _compute(
        self, values: dict[str, Array], constants: Mapping[str, Array], replaced: Tensors
    ) -> Tensors:
        """Return the encoded outputs of all operators; ``replaced`` are inputs that were cut."""
        known = {name: c.values for name, c in self.graph.constants.items()} | dict(constants)
        results = {}
        for operator in self.graph.operators:
            inputs = [replaced.get(n, values.get(n, known.get(n))) for n in operator.inputs]
            (name,) = operator.outputs
            encoding = self.graph.encoding(name)
            results[name] = encoding.encode(np.asarray(FUNCTIONS[operator.kind](*inputs)))
            values[name] = encoding.decode(results[name])
        return results


def chain(
    *steps: tuple[str, float | None],
    encodings: Mapping[str, Encoding] | None = None,
    prefix: str = "t",
) -> ElementwiseModel:
    """Return a model that applies operators to ``x`` one after the other.

    Each step is a kind and a constant or ``None``. Tensors are named ``t0``, ``t1`` with the
    ``prefix``, and constants ``c0``, ``c1``.
    """
    operators, constants = [], {}
    tensor = "x"
    for position, (kind, constant) in enumerate(steps):
        inputs = [tensor]
        if constant is not None:
            values = np.array([constant], np.float32)
            constants[f"c{position}"] = Constant(values, Encoding("float32"))
            inputs.append(f"c{position}")
        tensor = f"{prefix}{position}"
        recodes = kind in ("QUANTIZE", "DEQUANTIZE")
        operators.append(Operator(position, kind, tuple(inputs), (tensor,), recodes))
    graph = Graph(
        tuple(operators), constants, {"x": "x"}, {"y": tensor}, encodings or {}, {tensor: "y"}
    )
    return ElementwiseModel(graph)
