"""The samples of a reference: those of a file, or plausible ones from a fixed seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.bundle.manifest import CALIBRATION, SAMPLES, SYNTHETIC
from edgeattn.errors import SampleError
from edgeattn.samples import files as sample_files
from edgeattn.samples.arrays import npy_array, npz_members
from edgeattn.samples.prepared import shown_name
from edgeattn.samples.states import sample_inputs
from edgeattn.tensors import Array, Tensors
from edgeattn_converters import calibration
from edgeattn_converters.loading.fixed_time_axis import Size
from edgeattn_converters.reference.edge_cases import SEED
from edgeattn_converters.reference.keras_outputs import KerasOutputs, by_row_on_failure, predict
from edgeattn_converters.reference.plausible_inputs import plausible_inputs
from edgeattn_converters.tracing import states
from edgeattn_converters.tracing.tokens import TokenLimits
from edgeattn_converters.tracing.trace import Interface

# The number of samples from a file; the bundle is copied to the device.
MAX_SAMPLES = 64
# The largest number of rows of continued sequences.
MAX_CONTINUED = 16


@dataclass(frozen=True)
class Source:
    """The samples of a reference.

    ``kind`` is that of the manifest, ``name`` the file, ``targets`` the labels in it.
    """

    inputs: Tensors
    kind: str
    name: str
    targets: Array | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def time_steps_of(path: Path) -> dict[str, Size] | None:
    """The sizes of the arrays in a file of samples by name, and under ``""`` those of any other.

    The latter are those of the only array or of ``x``, which may have another name than the input,
    or else the length that all arrays have.
    """
    if path.suffix.lower() == ".npz":
        members = {name: item for name, item in npz_members(path).items() if name != "y"}
        files = {name: npy_array(path, member) for name, member in members.items()}
        # The shape of text does not determine the number of time steps.
        numbers = {name: file for name, file in files.items() if file.dtype.kind not in "US"}
        shapes = {name: file.shape[1:] for name, file in numbers.items()}
    elif path.suffix.lower() == ".npy":
        try:
            shapes = {"": npy_array(path).shape[1:]}
        except SampleError:
            return None  # read() reports what is wrong with the file
    else:
        return None
    sizes: dict[str, Size] = {name: shape for name, shape in shapes.items() if shape and all(shape)}
    lengths = {shape[0] for shape in shapes.values() if shape}
    if len(sizes) == 1:
        sizes[""] = next(iter(sizes.values()))
    elif "x" in sizes:
        sizes[""] = sizes["x"]
    elif len(lengths) == 1:
        sizes[""] = lengths.pop()
    return sizes or None


def reference_source(
    model: Any, interface: Interface, samples: Path | None, calibration_file: Path | None
) -> Source:
    """The samples of ``samples``, samples that are not calibrated on, or plausible inputs."""
    vocabulary = interface.vocabulary
    if samples is not None:
        data = sample_files.read_samples(samples, interface.inputs)[:MAX_SAMPLES]
        _check_tokens(data.inputs, vocabulary, samples)
        return Source(data.inputs, SAMPLES, shown_name(samples), data.targets)
    notes: tuple[str, ...] = ()
    if calibration_file is not None:
        rows = calibration.set_aside(calibration_file, interface, vocabulary, MAX_SAMPLES)
        if rows is not None:
            return Source(rows, CALIBRATION, shown_name(calibration_file))
        notes = (
            f"{shown_name(calibration_file)} has too few samples to set some aside for the "
            "comparison with Keras, which uses synthetic samples instead",
        )
    inputs = plausible_inputs(model, interface, np.random.default_rng(SEED))
    return Source(inputs, SYNTHETIC, "seeded", notes=notes)


def selection_inputs(model: Any, interface: Interface, samples: Path | None) -> Tensors:
    """Inputs that are not in the reference: the next samples of the file, or synthetic ones."""
    if samples is not None:
        more = sample_files.read_samples(samples, interface.inputs)[MAX_SAMPLES : 2 * MAX_SAMPLES]
        if len(more):
            return with_running_states(model, interface, more.inputs)
    inputs = plausible_inputs(model, interface, np.random.default_rng(SEED + 1))
    run = by_row_on_failure(lambda rows: KerasOutputs(predict(model, interface, rows), {}, {}))
    finite = run(inputs).finite
    if finite.any():
        inputs = {name: array[finite] for name, array in inputs.items()}
    return with_running_states(model, interface, inputs)


def with_running_states(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """``inputs`` with the states that Keras computes after other sequences."""
    return states.with_running_states(
        lambda batch: predict(model, interface, batch), interface, inputs
    )


def continued_sequences(model: Any, interface: Interface, inputs: Tensors) -> Tensors:
    """Samples that start from the final states of others; no rows if no states are inputs."""
    has_states = len(sample_inputs(interface.inputs)) < len(interface.inputs)
    rows = MAX_CONTINUED if has_states else 0
    return with_running_states(
        model, interface, {name: array[:rows] for name, array in inputs.items()}
    )


def _check_tokens(inputs: Tensors, vocabulary: dict[str, TokenLimits], path: Path) -> None:
    for name, limits in vocabulary.items():
        values = inputs[name]
        wrong = limits.outside(values)
        if wrong.any():
            least, largest = limits.range_of(values, wrong)
            raise SampleError(
                f"Input {name!r} takes tokens from {least} to {largest}; "
                f"{path} contains {values[wrong].min()} to {values[wrong].max()}.",
                hint="Replace words outside the vocabulary by the token for unknown words.",
            )
