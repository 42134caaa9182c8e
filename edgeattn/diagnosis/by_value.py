"""Location of a faulty operator by the values of all tensors, whatever the formats of the files.

A tensor is confirmed if the reference has a tensor with the same values in any order, because
formats lay out axes differently. The first operator between the confirmed tensors and a wrong
output, none of whose later results is confirmed, contains the fault or hides it.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.diagnosis.causes import decibels
from edgeattn.diagnosis.graph import DATA_MOVEMENT, Graph, InstrumentedModel, Operator
from edgeattn.diagnosis.locate import PRODUCTS
from edgeattn.tensors import Array, Tensors, TensorSpec

# Values of two float32 or float16 files are equal if they differ by this share of the largest.
TOLERANCE = 2e-3
# Constant tensors, such as masks, confirm nothing.
MIN_DISTINCT = 3


def locate_in_files(
    reference: Mapping[str, Any], artifact: Mapping[str, Any], tensors: Tensors
) -> dict[str, Any]:
    """In the worker: :func:`locate` for two files with ``open``, ``path`` and the specs.

    ``open`` is the function that returns the :class:`InstrumentedModel`, as ``module:function``.
    """
    models = [_open(file) for file in (reference, artifact)]
    suspect = locate(models[0], models[1], tensors)
    if suspect is None:
        return {}
    reference_graph, graph = models[0].graph, models[1].graph
    return {
        "position": suspect.operator.position,
        "kind": suspect.operator.kind,
        "name": _name(suspect.operator, graph),
        "interchanged": suspect.interchanged,
        "missing": suspect.missing
        and f"{suspect.missing.kind} {_name(suspect.missing, reference_graph)}",
        "snr_db": suspect.snr_db,
    }


def _name(operator: Operator, graph: Graph) -> str:
    name = graph.names.get(operator.outputs[0], "without a name")
    return name.split(";")[0].removesuffix(":0")


def _open(file: Mapping[str, Any]) -> InstrumentedModel:
    module, _, name = str(file["open"]).partition(":")
    specs = ([TensorSpec.from_json(spec) for spec in file[side]] for side in ("inputs", "outputs"))
    model: InstrumentedModel = getattr(importlib.import_module(module), name)(
        Path(file["path"]), *specs
    )
    return model


@dataclass(frozen=True)
class Suspect:
    """The first operator with unconfirmed values.

    ``interchanged`` tells whether its operands are, ``missing`` is an operator of the reference
    with the same inputs that the artifact lacks, and ``snr_db`` that of the worst output.
    """

    operator: Operator
    interchanged: bool
    missing: Operator | None
    snr_db: float


def locate(
    reference: InstrumentedModel, artifact: InstrumentedModel, inputs: Tensors
) -> Suspect | None:
    """Return the suspect; None if no output is wrong, or no operator stands out.

    ``inputs`` are samples along the first axis.
    """
    samples = [
        {name: array[index : index + 1] for name, array in inputs.items()}
        for index in range(len(next(iter(inputs.values()))))
    ]
    expected = _stacked([reference.tensor_values(sample) for sample in samples])
    actual = _stacked([artifact.tensor_values(sample) for sample in samples])
    wrong = _wrong_outputs(reference.graph, artifact.graph, expected, actual)
    if not wrong:
        return None
    known = _Fingerprints(expected)
    confirmed = {name for name, values in actual.items() if known.contain(values)}
    confirmed |= set(artifact.graph.inputs.values())
    suspect = _first_unconfirmed(artifact.graph, confirmed, set(wrong))
    if suspect is None:
        return None
    swapped = _with_swapped_operands(suspect.kind, actual[suspect.outputs[0]])
    return Suspect(
        suspect,
        swapped is not None and known.contain(swapped),
        _missing(suspect, reference.graph, expected, actual),
        min(wrong.values()),
    )


def _missing(
    suspect: Operator, reference: Graph, expected: Tensors, actual: Tensors
) -> Operator | None:
    """An operator that the reference applies to the inputs of ``suspect``, and the artifact not."""
    inputs = _Fingerprints({name: actual[name] for name in suspect.inputs if name in actual})
    computed = _Fingerprints(actual)
    for operator in reference.operators:
        results = [expected[name] for name in operator.outputs if name in expected]
        if operator.kind in DATA_MOVEMENT or any(computed.contain(item) for item in results):
            continue
        if any(name in expected and inputs.contain(expected[name]) for name in operator.inputs):
            products = operator.kind in PRODUCTS and suspect.kind in PRODUCTS
            same = products or operator.kind.upper() == suspect.kind.upper()
            return None if same else operator
    return None


def _stacked(results: list[Tensors]) -> dict[str, Array]:
    """The values by tensor, (samples, values)."""
    return {
        name: np.stack([np.ravel(result[name]).astype(np.float64) for result in results])
        for name in results[0]
    }


def _wrong_outputs(
    reference: Graph, artifact: Graph, expected: Tensors, actual: Tensors
) -> dict[str, float]:
    """The tensors of outputs that differ from the reference's, with their SNR in decibels."""
    wrong = {}
    for name, tensor in artifact.outputs.items():
        values, right = actual.get(tensor), expected.get(reference.outputs.get(name, ""))
        if values is None or right is None or values.shape != right.shape:
            continue
        if not _equal(values, right):
            wrong[tensor] = decibels(float(np.sum(right**2)), float(np.sum((values - right) ** 2)))
    return wrong


def _equal(values: Array, right: Array) -> bool:
    with np.errstate(invalid="ignore"):
        difference = np.abs(values - right)
    return bool((difference <= TOLERANCE * max(float(np.abs(right).max()), 1e-9)).all())


class _Fingerprints:
    """The values of many tensors, sorted for each sample."""

    def __init__(self, tensors: Tensors) -> None:
        self._by_size: dict[int, list[Array]] = {}
        for values in tensors.values():
            self._by_size.setdefault(values.shape[1], []).append(np.sort(values, axis=1))

    def contain(self, values: Array) -> bool:
        if len(np.unique(values)) < MIN_DISTINCT:
            return False
        ordered = np.sort(values, axis=1)
        return any(_equal(ordered, known) for known in self._by_size.get(values.shape[1], ()))


def _first_unconfirmed(graph: Graph, confirmed: set[str], wrong: set[str]) -> Operator | None:
    correct = _ancestors(graph, confirmed - wrong, stop=set())
    between = _ancestors(graph, wrong, stop=confirmed) - correct
    candidates = [operator for operator in graph.operators if operator.position in between]
    candidates = [o for o in candidates if o.kind not in DATA_MOVEMENT and not o.recodes]
    return candidates[0] if candidates else None


def _ancestors(graph: Graph, tensors: set[str], stop: set[str]) -> set[int]:
    """The positions of the operators that compute ``tensors``, up to the tensors ``stop``."""
    positions: set[int] = set()
    pending = list(tensors)
    while pending:
        operator = graph.producers.get(pending.pop())
        if operator is not None and operator.position not in positions:
            positions.add(operator.position)
            pending += [name for name in operator.inputs if name not in stop]
    return positions


def _with_swapped_operands(kind: str, result: Array) -> Array | None:
    """What ``a - b`` and ``a / b`` would be with their operands interchanged."""
    if kind.upper() == "SUB":
        return -result
    if kind.upper() == "DIV":
        with np.errstate(all="ignore"):
            return 1 / result
    return None
