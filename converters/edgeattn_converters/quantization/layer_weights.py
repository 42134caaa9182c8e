"""Which layer of the Keras model a constant of a file comes from, told by its values.

Names do not tell: converters merge, transpose and cut constants, and Keras numbers the layers of a
traced graph anew, so that ``dense_1`` there may be ``dense`` here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import UsageError
from edgeattn.tensors import Array
from edgeattn_converters.lowering.replacement import all_layers
from edgeattn_converters.lowering.rnn.cells import as_float32, is_recurrent
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.tflite_weights import MIN_ELEMENTS

# Of a constant's values that are not zero, how many must be a layer's.
SAME = 0.99
CLOSE = 1e-5

PrecisionOf = Callable[[Array], str]


@dataclass(frozen=True)
class LayerWeights:
    """A layer that the model is made of, by name, and its weights that are worth fewer bits."""

    name: str
    values: tuple[Array, ...]
    recurrent: bool = False

    @property
    def size(self) -> int:
        """How many values there are."""
        return sum(value.size for value in self.values)


def layer_weights(model: Any) -> tuple[LayerWeights, ...]:
    """The layers of a Keras model with large weights, in its order; those of models in it too.

    What a layer is made of (the projections of an attention, the cell of a recurrence) belongs to
    it and has no entry of its own.
    """
    found = []
    for layer in _outermost(model):
        values = [as_float32(variable) for variable in layer.weights]
        large = tuple(value for value in values if value.size >= MIN_ELEMENTS)
        if large:
            found.append(LayerWeights(str(layer.name), large, _recurs(layer)))
    return tuple(found)


def recurrent_layers(model: Any) -> tuple[str, ...]:
    """The names of Keras' recurrent layers in ``model``."""
    return tuple(str(layer.name) for layer in all_layers(model) if is_recurrent(layer))


def _recurs(layer: Any) -> bool:
    """Whether it is a recurrence, or Bidirectional's two."""
    inner = [getattr(layer, name, None) for name in ("forward_layer", "backward_layer")]
    return any(item is not None and is_recurrent(item) for item in (layer, *inner))


def _outermost(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        # A model among the layers has layers of its own; a wrapper has one, and is not a model.
        if hasattr(layer, "layers") and hasattr(layer, "predict"):
            yield from _outermost(layer)
        else:
            yield layer


def precisions(
    precision: Iterable[tuple[str, str]], layers: Iterable[LayerWeights], usual: str
) -> PrecisionOf:
    """For a constant's value the precision it is stored in: its layer's, or the ``usual`` one.

    Raises :class:`UsageError` for a layer that is none of the model's with large weights.
    """
    wanted = dict(precision)
    if not wanted:
        return lambda value: usual
    there = {layer.name: layer for layer in layers}
    for name in wanted:
        if name not in there:
            raise UsageError(
                f"No layer {name!r} with weights to quantize: there is {', '.join(there)}."
            )
    owners = [(there[name], how) for name, how in wanted.items()]

    def precision_of(value: Array) -> str:
        return next((how for layer, how in owners if owns(layer, value)), usual)

    return precision_of


def under(
    plan: Candidate, precision_of: PrecisionOf, upstream: set[bytes], layers: Iterable[LayerWeights]
) -> PrecisionOf:
    """``precision_of`` where ``plan`` leaves it be; ``upstream`` are the keys of the constants that
    attention's scores are made of."""
    if not plan.upstream:
        return precision_of
    recurrent = [layer for layer in layers if layer.recurrent]

    def changed(value: Array) -> str:
        usual = precision_of(value)
        if not usual.startswith("int8") or key_of(value) not in upstream:
            return usual
        half = plan.half == "all" or (
            plan.half == "recurrent" and any(owns(layer, value) for layer in recurrent)
        )
        return "float16" if half else "int8_weights"

    return changed


def key_of(value: Array) -> bytes:
    """What tells a constant from others."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def owns(layer: LayerWeights, value: Array) -> bool:
    """Whether a constant was made of weights of ``layer``: moved, cut, joined or scaled."""
    there = value[value != 0]
    if not there.size:
        return False
    if value.size <= layer.size:
        known = np.concatenate([weight.reshape(-1) for weight in layer.values])
        if float(np.isin(there, known).mean()) >= SAME:
            return True
    return any(_scaled(value, weight) for weight in layer.values)


def _scaled(value: Array, weight: Array) -> bool:
    """All values of a weight, scaled as a whole or by channel."""
    if value.size != weight.size or value.ndim < 2:
        return False
    if _close(_shape_of(value.reshape(1, -1)), _shape_of(weight.reshape(1, -1))):
        return True
    # By channel of what comes out, as a normalisation behind it does; or of what goes in, as one
    # before it does. Both are last in Keras, and first or last in a file.
    return any(
        _close(_shape_of(_rows(value, there)), _shape_of(_rows(weight, here)))
        for there in (0, -1)
        for here in (-1, -2)
        if value.shape[there] == weight.shape[here]
    )


def _rows(value: Array, axis: int) -> Array:
    """A row for each index of ``axis``."""
    return np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)


def _shape_of(rows: Array) -> Array:
    """Each row's sizes in order, the largest as one: what scaling a row does not change."""
    sizes = np.sort(np.abs(rows.astype(np.float64)), axis=1)
    largest = sizes[:, -1:]
    return sizes / np.where(largest == 0, 1.0, largest)


def _close(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= CLOSE)
