"""The samples and labels of a fine-tuning, checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeattn.errors import SampleError, UsageError
from edgeattn.printable import counted
from edgeattn.tensors import Array, Specs, Tensors
from edgeattn_converters.tracing.trace import Interface


def named_arrays(data: Any, names: list[str], what: str) -> dict[str, Array]:
    """Arrays by name, from one array, a list in the order of ``names`` or a dictionary.

    Raises :class:`UsageError` if there are more, fewer or others.
    """
    if isinstance(data, Mapping):
        arrays = {str(name): np.asarray(value) for name, value in data.items()}
        if set(arrays) != set(names):
            raise UsageError(
                f"{what} has the names {', '.join(arrays)}.", hint=f"Use {', '.join(names)}."
            )
        return {name: arrays[name] for name in names}
    values = list(data) if isinstance(data, list | tuple) else [data]
    if len(values) != len(names):
        raise UsageError(
            f"{what} has {counted(len(values), 'array')} instead of {len(names)}.",
            hint=f"Pass a list of arrays for {', '.join(names)}.",
        )
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def checked_inputs(arrays: Tensors, interface: Interface) -> Tensors:
    """The inputs with the model's dtypes.

    Raises :class:`SampleError` if there are none, if they do not fit the model, contain NaN or
    infinity or are constant.
    """
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not all(counts.values()):
        raise SampleError("x has no samples.", hint="Pass samples of the training set.")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SampleError(
            f"The inputs have different numbers of samples: {listed}.",
            hint="Pass the same samples for every input.",
        )
    checked = {}
    for spec in interface.inputs:
        value = arrays[spec.name]
        if value.dtype.kind not in "biuf" or value.shape[1:] != tuple(spec.shape[1:]):
            raise SampleError(
                f"Input {spec.name}: x has the shape {value.shape} and dtype {value.dtype}, "
                f"expected {('samples', *spec.shape[1:])} and {spec.dtype}.".replace("'", ""),
                hint="Preprocess the samples as in training.",
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            row = int(np.argwhere(~np.isfinite(value))[0][0])
            raise SampleError(
                f"Input {spec.name}: sample {row} contains NaN or infinity.",
                hint="Remove the sample.",
            )
        checked[spec.name] = value.astype(spec.dtype)
    _check_ranges(checked, interface.inputs, interface)
    return checked


def _check_ranges(inputs: Tensors, specs: Specs, interface: Interface) -> None:
    constant = [name for name, value in inputs.items() if len(value) > 1 and not np.ptp(value)]
    floats = [spec.name for spec in specs if np.dtype(spec.dtype).kind == "f"]
    wrong = [name for name in constant if name in floats] or (
        constant if len(constant) == len(inputs) else []
    )
    if wrong:
        raise SampleError(
            f"Input {wrong[0]}: every value is {inputs[wrong[0]].flat[0]:g}, so there is no range "
            "to measure.",
            hint="Pass real samples, preprocessed as in training.",
        )
    for name, limits in interface.vocabulary.items():
        value = inputs[name]
        beyond = limits.outside(value, wrapped=True)
        if beyond.any():
            least, largest = limits.range_of(value, beyond)
            raise SampleError(
                f"Input {name}: tokens range from {value.min():g} to {value.max():g}, but the "
                f"model takes {least} to {largest}.",
                hint="Number the words as in training.",
            )


def checked_labels(arrays: Tensors, count: int) -> Tensors:
    """The labels. Raises :class:`SampleError` if they are not one per sample, or not finite."""
    for name, value in arrays.items():
        if not value.ndim or len(value) != count:
            raise SampleError(
                f"Output {name}: y has {counted(len(value) if value.ndim else 0, 'label')} for "
                f"{counted(count, 'sample')}.",
                hint="Pass one label per sample.",
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise SampleError(
                f"Output {name}: y contains NaN or infinity.", hint="Remove these samples."
            )
    return arrays
