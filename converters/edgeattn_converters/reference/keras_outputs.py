"""What Keras computes: outputs of ``model.predict``, and attention maps of the traced model."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeattn.errors import EdgeattnError, UnsupportedModelError
from edgeattn.metrics.limits import LIMITS
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.graphs.free_squeezes import squeezes_of_free_batches
from edgeattn_converters.keras_classes import is_signature
from edgeattn_converters.loading.build import root_cause
from edgeattn_converters.loading.loaded_model import calls_signature
from edgeattn_converters.reference.traced_values import BATCH_SIZE, traced_values
from edgeattn_converters.tracing.graph_form import (
    averages_of_known_shape,
    reshapes_of_free_batches,
    sorted_top_k,
)
from edgeattn_converters.tracing.keras_call import pack, values_by_name
from edgeattn_converters.tracing.trace import Interface, Traced, trace

# TensorFlow names the only format that it computes on a CPU.
_CHANNELS_LAST_ONLY = re.compile(r"\bND?HWC\b")
# An operation without a kernel for a CPU, or without one for its types.
_WITHOUT_KERNEL = re.compile(
    r"No OpKernel was registered to support Op '(\w+)'|Could not find device for node: .*?= (\w+)"
)


@dataclass(frozen=True)
class KerasOutputs:
    """``outputs`` by name, ``maps`` by ``attention/LAYER``, the sample axis first.

    ``with_maps`` are the outputs of the model that returns the maps too; empty without maps.
    ``failure`` is why Keras cannot compute some rows, those whose indices are ``failed``; they are
    NaN, or 0 if they are integers. ``unsorted`` are operations whose results have no defined order;
    ``maps`` and ``with_maps`` are those for sorted results.
    """

    outputs: dict[str, Array]
    maps: dict[str, Array]
    with_maps: dict[str, Array]
    failure: EdgeattnError | None = None
    unsorted: tuple[str, ...] = ()
    failed: tuple[int, ...] = ()

    @property
    def all(self) -> dict[str, Array]:
        """Outputs and maps."""
        return {**self.outputs, **self.maps}

    @property
    def finite(self) -> Array:
        """Which rows are finite in all outputs and maps."""
        finite = np.ones(len(next(iter(self.outputs.values()))), bool)
        for value in self.all.values():
            finite &= np.isfinite(value).reshape(len(value), -1).all(axis=1)
        finite[list(self.failed)] = False
        return finite


def predict(
    model: Any, interface: Interface, inputs: Tensors, batch_size: int = BATCH_SIZE
) -> dict[str, Array]:
    """The outputs of ``model.predict`` by name; of parts in half precision, those in float32.

    Raises :class:`UnsupportedModelError` if Keras cannot compute them, because an index that the
    model computes is outside its table for example.
    """
    import tensorflow as tf

    ordered = tuple(inputs[spec.name] for spec in interface.inputs)
    try:
        if interface.half:
            return dict(traced_values(_in_float32(model, interface), inputs, batch_size))
        with (
            averages_of_known_shape(),
            reshapes_of_free_batches(),
            squeezes_of_free_batches(model),
        ):
            size = _samples_of_signature(model) or interface.batch or batch_size
            predicted = model.predict(_batches(pack(model, ordered), size), verbose=0)
    except tf.errors.OpError as error:
        lines = [line.strip() for line in str(error.message).splitlines() if "{{node" not in line]
        reason = next((line for line in reversed(lines) if line), type(error).__name__)
        raise UnsupportedModelError(
            f"Keras itself cannot compute the model on its samples: {reason}",
            hint=_hint(model, str(error.message)),
        ) from error
    except (ValueError, TypeError) as error:
        raise UnsupportedModelError(
            f"Keras cannot compute the model on its samples: {root_cause(error)}",
            hint="If it was created for a number of samples, such as keras.Input(batch_shape=...), "
            "create it with shape=... and save it again.",
        ) from error
    names = [spec.name for spec in interface.outputs]
    values = values_by_name(model, predicted, names, [spec.name for spec in interface.inputs])
    arrays = {name: np.asarray(value) for name, value in values.items()}
    # Files return them in float32.
    half = {name for name, array in arrays.items() if array.dtype.name in ("float16", "bfloat16")}
    return arrays | {name: arrays[name].astype(np.float32) for name in half}


@functools.lru_cache(maxsize=1)
def _in_float32(model: Any, interface: Interface) -> Traced:
    return trace(model, interface, batch=None, attention=False, freeze=False)


def _batches(inputs: Any, size: int) -> Any:
    """Batches of ``inputs`` as Keras makes them from arrays, without the functions for shuffling.

    Keras compiles these in every call of ``model.predict``, which takes longer than a small model.
    """
    import keras
    import tensorflow as tf

    def in_precision_of_keras(array: Array) -> Array:
        is_float = keras.backend.is_float_dtype(array.dtype)
        return array.astype(keras.backend.floatx()) if is_float else array

    arrays = keras.tree.lists_to_tuples(keras.tree.map_structure(in_precision_of_keras, inputs))
    # A tuple of up to three elements would be inputs, labels and weights.
    return tf.data.Dataset.from_tensor_slices((arrays,)).batch(size)


def _hint(model: Any, reason: str) -> str:
    """What to do if Keras cannot compute a model for this ``reason``."""
    if found := _WITHOUT_KERNEL.search(reason):
        return (
            f"TensorFlow has no {found[1] or found[2]} of these types for a CPU. Compute the same "
            "with other operations, whose values are equal on all devices."
        )
    if not _CHANNELS_LAST_ONLY.search(reason):
        return "Pass real samples, with values as in training: --samples FILE"
    if calls_signature(model):
        return (
            "The graph has the channels first, which TensorFlow does not compute on a CPU. Convert "
            "the .keras or .h5 file of the model, whose layers edgeattn computes with the channels "
            "last."
        )
    return "Rebuild the model with the channels last; TensorFlow computes no others on a CPU."


def _samples_of_signature(model: Any) -> int | None:
    """The number of samples that the signature of a SavedModel computes, if it is fixed.

    The function of one sample that files compute is compared with the signature itself.
    """
    layers = getattr(model, "layers", ())
    counts = (layer.count for layer in layers if is_signature(layer))
    return next((count for count in counts if count > 1), None)


@dataclass(frozen=True)
class KerasFunction:
    """A function from inputs to what Keras computes from them.

    Rows that Keras cannot compute, such as a matrix without an inverse, are NaN. Raises
    :class:`UnsupportedModelError` if it can compute none. If ``alone``, no sample is in a batch
    with others.
    """

    model: Any
    interface: Interface
    traced: Traced
    unsorted: tuple[str, ...]
    alone: bool = False

    def __call__(self, inputs: Tensors) -> KerasOutputs:
        return by_row_on_failure(self._run)(inputs)

    def _run(self, inputs: Tensors) -> KerasOutputs:
        batch_size = 1 if self.alone else None
        outputs = predict(self.model, self.interface, inputs, batch_size or BATCH_SIZE)
        if not self.traced.attention and not self.unsorted:
            return KerasOutputs(outputs, {}, {})
        values = dict(traced_values(self.traced, inputs, batch_size))
        maps = {name: values.pop(name) for name in self.traced.attention}
        return KerasOutputs(outputs, maps, values, unsorted=self.unsorted)


def keras_function(model: Any, interface: Interface, *, attention: bool) -> KerasFunction:
    """What Keras computes, with maps if ``attention``."""
    with sorted_top_k() as unsorted:
        # Not frozen, because dropout layers keep the state of their random numbers in variables.
        traced = trace(model, interface, batch=None, attention=attention, freeze=False)

    return KerasFunction(model, interface, traced, tuple(unsorted))


def by_row_on_failure(run: Callable[[Tensors], KerasOutputs]) -> Callable[[Tensors], KerasOutputs]:
    """``run``, which computes the rows one by one if it fails for all of them together."""
    import tensorflow as tf

    errors = (UnsupportedModelError, tf.errors.OpError)

    def run_rows(inputs: Tensors) -> KerasOutputs:
        try:
            return run(inputs)
        except errors as error:
            failure = error if isinstance(error, EdgeattnError) else None
            rows: list[KerasOutputs | None] = []
            for k in range(len(next(iter(inputs.values())))):
                try:
                    rows.append(run({name: array[k : k + 1] for name, array in inputs.items()}))
                except errors:
                    rows.append(None)
            known = next((row for row in rows if row is not None), None)
            if known is None:
                raise
            failed = tuple(k for k, row in enumerate(rows) if row is None)
            filled = [_without_values(known) if row is None else row for row in rows]
            outputs, maps, with_maps = (
                {
                    name: np.concatenate([getattr(row, part)[name] for row in filled])
                    for name in getattr(known, part)
                }
                for part in ("outputs", "maps", "with_maps")
            )
            return KerasOutputs(outputs, maps, with_maps, failure, known.unsorted, failed)

    return run_rows


def _without_values(row: KerasOutputs) -> KerasOutputs:
    """The outputs of one row as NaN, and zeros for integers."""

    def empty(arrays: dict[str, Array]) -> dict[str, Array]:
        return {
            name: np.full_like(value, np.nan if value.dtype.kind == "f" else 0)
            for name, value in arrays.items()
        }

    return KerasOutputs(empty(row.outputs), empty(row.maps), empty(row.with_maps))


def check_unchanged(
    values: KerasOutputs, rows: Array, again: Callable[[], KerasOutputs] | None = None
) -> None:
    """Raises :class:`EdgeattnError` if returning maps changes the outputs for any of ``rows``.

    Keras computes weights that it returns in another order of operations, which changes outputs by
    rounding. Up to half of what a float16 file may change them, that is no reason to stop: files
    are compared with the outputs of ``model.predict``, within the limits of their schemes.

    Outputs also change if they depend on an order that is not defined, or on random numbers;
    ``again`` computes the rows once more to find out.
    """
    for name, with_maps in values.with_maps.items():
        expected = values.outputs[name][rows]
        if _same(expected, with_maps[rows]):
            continue
        if again is not None and not _same(expected, again().outputs[name]):
            raise UnsupportedModelError(
                f"Keras computes another output {name!r} for the same input each time, because a "
                "layer draws random numbers at inference, and its attention maps cannot be "
                "compared.",
                hint="Draw the numbers once, in build(), or convert with --no-attention.",
            )
        if values.unsorted:
            raise UnsupportedModelError(
                f"Output {name!r} depends on the order of top_k with sorted=False "
                f"({values.unsorted[0]}), which TensorFlow does not define: TFLite and ONNX sort.",
                hint="Use top_k with sorted=True, and check that the model is as accurate.",
            )
        raise EdgeattnError(
            f"Exporting attention maps changes output {name!r} in Keras.",
            hint="Convert with --no-attention, and please report this model.",
        )


def _same(expected: Array, actual: Array) -> bool:
    """Whether no row differs by more than half of what a float16 file may change it."""
    share = 10 ** (-LIMITS["float16"].snr_db / 20) / 2
    expected = expected.astype(np.float64)
    moved = np.abs(actual - expected).reshape(len(expected), -1)
    size = np.linalg.norm(expected.reshape(moved.shape), axis=1)
    return bool((np.linalg.norm(moved, axis=1) <= 1e-5 + share * size).all())
