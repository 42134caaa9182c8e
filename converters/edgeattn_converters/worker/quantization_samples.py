"""The samples that a scheme is quantized with: those of the user, or generated ones."""

import contextlib
import functools
from dataclasses import replace
from pathlib import Path

from edgeattn.bundle.manifest import CALIBRATION, REFERENCE, SAMPLES
from edgeattn.errors import MissingCalibrationError, UsageError
from edgeattn.samples.npz import read_npz
from edgeattn.tensors import Tensors
from edgeattn_converters import calibration
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.quantized_model import QuantizationSamples
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.reference import reference_samples
from edgeattn_converters.tracing.trace import Interface
from edgeattn_converters.worker.open_model import (
    Json,
    OpenModel,
    check_arrays,
    explaining_removed_layers,
)


def calibration_samples(
    opened: OpenModel, quantization: QuantizationOptions, folder: str
) -> calibration.Calibration:
    """The calibration samples of the user.

    Raises :class:`MissingCalibrationError` if there are none.
    """
    if quantization.calibration is None:
        raise MissingCalibrationError(
            "This scheme needs calibration samples.", hint="Pass them with --calibration FILE."
        )
    return _read_calibration(opened, str(quantization.calibration), folder)


@functools.cache
def _read_calibration(opened: OpenModel, path: str, folder: str) -> calibration.Calibration:
    model, interface = opened.model, opened.interface
    check_arrays(opened, Path(path))
    arrays = read_npz(Path(folder) / REFERENCE)
    evaluation = {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs}
    with explaining_removed_layers(opened):
        samples = calibration.read(Path(path), interface, evaluation, interface.vocabulary)
    # States that are always zero would have no range.
    return replace(
        samples, inputs=reference_samples.with_running_states(model, interface, samples.inputs)
    )


@functools.cache
def selection_inputs(opened: OpenModel) -> Tensors:
    """Inputs that are not in the reference, on which candidates of one scheme are compared."""
    return reference_samples.selection_inputs(opened.model, opened.interface, opened.samples)


def quantization_samples(
    opened: OpenModel, quantization: QuantizationOptions, folder: str, scheme: str
) -> tuple[calibration.Calibration | None, Tensors | None]:
    """The calibration samples, if the scheme uses any, and the inputs to quantize with."""
    if recipe_for(scheme).needs_calibration:
        measured = calibration_samples(opened, quantization, folder)
        return measured, measured.inputs
    if scheme != "dynamic_int8":
        return None, None
    # It measures no ranges, but chooses among candidates: better on real inputs. If they are
    # rejected, the schemes that need them report why.
    if quantization.calibration is not None:
        with contextlib.suppress(UsageError):
            measured = calibration_samples(opened, quantization, folder)
            return measured, measured.inputs
    return None, selection_inputs(opened)


def with_reference(
    samples: Tensors | None, interface: Interface, folder: Path, entry: Json | None
) -> QuantizationSamples | None:
    """``samples`` with the inputs of the reference, if these are real: synthetic ones decide
    nothing."""
    if samples is None:
        return None
    if entry is None or entry.get("kind") not in (SAMPLES, CALIBRATION):
        return QuantizationSamples(samples)
    arrays = read_npz(folder / REFERENCE)
    inputs = {spec.name: arrays[f"input/{spec.name}"] for spec in interface.inputs}
    ordinary = int(entry["samples"]) + int(entry.get("ordinary_edge_cases", 0))
    return QuantizationSamples(samples, inputs, ordinary)
