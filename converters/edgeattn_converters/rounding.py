"""What rounding of weights costs: the errors of Keras itself with rounded weights.

They are those of a file that is converted without any fault, so that validation can tell a wrong
conversion from a precision that is too low for the model (:mod:`edgeattn.validation.rounding`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import Artifact
from edgeattn.metrics.limits import Check, json_number
from edgeattn.tensors import Array, Tensors
from edgeattn.validation.comparison import comparison_checks
from edgeattn.validation.rounding import FLOAT32_METRICS, METRICS, WEIGHTS
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.lowering.fourier import is_spectrogram
from edgeattn_converters.quantization.arithmetic import (
    FLOAT16_MAX,
    MIN_ELEMENTS,
    quantize_symmetric,
)
from edgeattn_converters.tracing.trace import Interface

SEED = 20240608
# Converters scale and merge weights before they round them, so that a file's rounding errors are
# another sample of those of Keras' weights. The largest of several is the cost.
DRAWS = 3

Json = dict[str, Any]
RunKeras = Callable[[Tensors], Mapping[str, Array]]
# Also takes the number of a draw.
RunRounded = Callable[[Tensors, int], Mapping[str, Array]]


def rounding_costs(
    model: Any,
    interface: Interface,
    run: RunKeras,
    inputs: Tensors,
    expected: Tensors,
    *,
    ordinary: int,
    float16: int | None = None,
    schemes: Iterable[str],
) -> Json:
    """Errors by type of the weights, output and metric, for the manifest's ``rounding``.

    Args:
        model: The Keras model; its weights are the same afterwards.
        interface: Its inputs and outputs.
        run: Computes the outputs and maps of the model with its current weights.
        inputs: The inputs of the reference.
        expected: The outputs and maps of the model for them.
        ordinary: The number of rows before the extreme edge cases.
        float16: The number of rows on which float16 artifacts have limits; None for all.
        schemes: The schemes that artifacts may have.
    """
    generator = np.random.default_rng(SEED)
    # One scheme stands for all that store weights in its type and have limits for the same rows.
    by_weights = {WEIGHTS[scheme]: scheme for scheme in schemes if scheme in WEIGHTS}
    costs: Json = {}
    for weights, scheme in sorted(by_weights.items()):
        artifact = _artifact(scheme, interface, expected)
        worst: dict[str, dict[str, float]] = {}
        for draw in range(DRAWS):
            with rounded_weights(model, weights, draw, generator):
                actual = run(inputs)
            first = {name: array[:1] for name, array in actual.items()}
            for check in comparison_checks(
                artifact, expected, actual, first, ordinary, float16=float16
            ):
                _add(worst, check, METRICS)
        costs[weights] = _to_json(worst)
    return costs


def float32_costs(
    interface: Interface,
    run: RunRounded,
    inputs: Tensors,
    expected: Tensors,
    *,
    ordinary: int,
) -> dict[str, dict[str, float | str]]:
    """Errors by output and metric of Keras after its operations have rounded differently."""
    artifact = _artifact("float32", interface, expected)
    worst: dict[str, dict[str, float]] = {}
    for draw in range(DRAWS):
        actual = run(inputs, draw)
        first = {name: array[:1] for name, array in actual.items()}
        for check in comparison_checks(artifact, expected, actual, first, ordinary):
            _add(worst, check, FLOAT32_METRICS)
    return _to_json(worst)


def _artifact(scheme: str, interface: Interface, expected: Tensors) -> Artifact:
    """An artifact with those outputs and maps that are expected."""
    outputs = tuple(spec for spec in interface.all_outputs if spec.name in expected)
    maps = tuple(spec.name for spec in interface.attention if spec.name in expected)
    return Artifact("onnx", scheme, "", "", 0, interface.inputs, outputs, maps)


def _to_json(worst: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | str]]:
    return {
        name: {metric: json_number(value) for metric, value in values.items()}
        for name, values in worst.items()
    }


def _add(
    worst: dict[str, dict[str, float]], check: Check, metrics: Mapping[str, Collection[str]]
) -> None:
    """Keep the worst value of a metric that rounding changes."""
    if check.output is None or check.metric not in metrics.get(check.stage, ()):
        return
    values = worst.setdefault(check.output, {})
    select = max if check.relation == "<=" else min
    values[check.metric] = select(values.get(check.metric, check.value), check.value)


@contextmanager
def rounded_weights(
    model: Any, weights: str, draw: int, generator: np.random.Generator
) -> Iterator[None]:
    """Round the weights of ``model`` in place, and restore them at the end."""
    original = [(variable, variable.numpy()) for variable in _variables(model, draw)]
    try:
        for variable, value in original:
            table = str(variable.name).endswith("embeddings")
            rounded = _rounded(value, weights, draw, generator, table=table)
            variable.assign(rounded.astype(value.dtype))
        yield
    finally:
        for variable, value in original:
            variable.assign(value)


def _variables(model: Any, draw: int) -> list[Any]:
    """The large weights; in later draws, all matrices of layers that have large weights.

    No scheme rounds those of spectrograms.
    """
    exact = {
        id(weight)
        for layer in all_layers(model)
        if is_spectrogram(layer)
        for weight in layer.weights
    }
    weights = [
        variable
        for variable in model.variables
        if id(variable) not in exact and variable.numpy().dtype.kind == "f"
    ]
    layers = {_layer_of(variable) for variable in weights if _size(variable) >= MIN_ELEMENTS}
    return [
        variable
        for variable in weights
        if _size(variable) >= MIN_ELEMENTS
        or (draw and len(variable.shape) > 1 and _layer_of(variable) in layers)
    ]


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))


def _layer_of(variable: Any) -> str:
    """The path of the layer that owns a weight."""
    return str(getattr(variable, "path", variable.name)).rpartition("/")[0]


def _rounded(
    value: Array, weights: str, draw: int, generator: np.random.Generator, *, table: bool
) -> Array:
    """A weight as float16, or as int8 with a scale per output channel; a ``table`` has one scale.

    Later draws move the grid of numbers that are exact.
    """
    if weights == "float16":
        factor = generator.uniform(1, 2) if draw else 1.0
        if np.abs(value).max() * factor > FLOAT16_MAX:
            return value
        return (value * factor).astype(np.float16).astype(value.dtype) / factor
    if value.ndim < 2:
        return value
    integers, scale = quantize_symmetric(value, None if table else value.ndim - 1, 127 - draw)
    return integers * scale
