"""A file made of functions, so that explanations can be tested without a runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.diagnosis.graph import Constant, Encoding, Graph, Operator
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
class Made:
    """A file whose operators are ``FUNCTIONS``; what is stored as integers comes out rounded."""

    graph: Graph

    def _run(self, values: dict[str, Array], constants: Mapping[str, Array], given: Tensors) -> Any:
        known = {name: c.value for name, c in self.graph.constants.items()} | dict(constants)
        results = {}
        for operator in self.graph.operators:
            taken = [given.get(name, values.get(name, known.get(name))) for name in operator.inputs]
            made = FUNCTIONS[operator.kind](*taken)
            (name,) = operator.outputs
            values[name] = results[name] = self.graph.keeping(name).rounded(np.asarray(made))
        return results

    def values(self, row: Tensors) -> Tensors:
        ends = {tensor: row[name] for name, tensor in self.graph.inputs.items()}
        return {**ends, **self._run(dict(ends), {}, {})}

    def apart(
        self, tensors: Collection[str], constants: Mapping[str, Array]
    ) -> Callable[[Tensors], Tensors]:
        def run(feeds: Tensors) -> Tensors:
            given = {n: self.graph.keeping(n).rounded(feeds[n]) for n in tensors}
            results: Tensors = self._run(dict(given), constants, given)
            return {name: results[name] for name in tensors if name in results}

        return run


def chain(
    *steps: tuple[str, float | None],
    stored: Mapping[str, Encoding] | None = None,
    kept: Mapping[str, Encoding] | None = None,
    names: str = "t",
) -> Made:
    """``x`` through one operator after the other, each with a constant or none.

    Tensors are ``t0``, ``t1``; constants ``c0``, ``c1``. ``kept`` says how constants are.
    """
    operators, constants = [], {}
    before = "x"
    for number, (kind, constant) in enumerate(steps):
        inputs = [before]
        if constant is not None:
            name = f"c{number}"
            value = np.array([constant], np.float32)
            constants[name] = Constant(value, (kept or {}).get(name, Encoding("float32")))
            inputs.append(name)
        before = f"{names}{number}"
        rounds = kind in ("QUANTIZE", "DEQUANTIZE")
        operators.append(Operator(number, kind, tuple(inputs), (before,), rounds))
    return Made(
        Graph(tuple(operators), constants, {"x": "x"}, {"y": before}, stored or {}, {before: "y"})
    )
