"""Mistakes that the stored configuration of a model reveals, before TensorFlow is imported.

What the configuration does not determine is left to the checks on the loaded model.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgeattn.errors import NoRecurrentLayerError, SampleError, UsageError
from edgeattn.samples import files as sample_files
from edgeattn.samples.prepared import shown_name
from edgeattn.tensors import TensorSpec
from edgeattn_converters import calibration
from edgeattn_converters.loading import stored_interface
from edgeattn_converters.loading.architecture import check_architecture, read_architecture
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.fixed_time_axis import (
    FreeAxesError,
    Size,
    TimeSteps,
    single_numbers,
)
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference import reference_samples
from edgeattn_converters.tracing.trace import Interface

Result = TypeVar("Result")

# The longest sequence of a model with recurrent or attention layers: their time and memory grow
# with it, up to its square.
MAX_STEPS = 10_000


def check(
    file: ModelFile,
    source: ModelSource,
    options: ConversionOptions,
    *,
    calibration_samples: Path | None = None,
    data: Path | None = None,
) -> None:
    """Check the options and files of samples against the configuration in ``file``.

    ``data`` are labeled samples. Raises :class:`UsageError` for a mistake of the user, and the
    errors of the loader for an architecture that does not fit the file.
    """
    check_architecture(file, source.architecture)
    stored = _stored(file, source.architecture)
    if stored is None:
        return
    # Classes of the user may contain other layers.
    known = source.custom_objects is None
    layers = _determined(stored_interface.layer_list, stored) if known else None
    if layers is not None:
        _check_layers(layers, source, options)
    with free_axes_checked(source):
        specs = _determined(stored_interface.input_specs, stored, time_steps_of(source))
    if specs is None:
        return
    check_sizes(source, specs)
    outputs = _determined(stored_interface.output_names, stored) or ()
    for path in (source.samples, data):
        if path is not None:
            samples = sample_files.open_samples(
                Path(path), specs, outputs=outputs, ignore=source.ignore
            )
            if outputs:
                samples.check_arrays(outputs)
            for _ in samples.batches(calibration.rows_per_batch(samples)):
                pass  # checks the values
            _check_labels(samples, required=path == data)
    if calibration_samples is not None:
        calibration.read(calibration_samples, Interface(specs, (), ()))


@contextlib.contextmanager
def free_axes_checked(source: ModelSource) -> Iterator[None]:
    """Within the context, errors about free axes are about a wrong name if there is one.

    The options and the files of samples of ``source`` may name inputs that the model does not have.
    """
    try:
        yield
    except FreeAxesError as error:
        if error.names:
            _check_names(source, error.names)
            file = source.samples if source.samples is not None else source.sized_by
            if file is not None:
                sample_files.check_names(Path(file), error.names, ignore=source.ignore)
        raise


def time_steps_of(source: ModelSource) -> TimeSteps | None:
    """The sizes for free axes: those of the options, or else those of the samples."""
    named: dict[str, Size] = {**dict(source.lengths), **dict(source.shapes)}
    if source.time_steps is not None:
        return {"": source.time_steps, **named} if named else source.time_steps
    file = source.samples if source.samples is not None else source.sized_by
    if file is None:
        return named or None
    return {**(reference_samples.time_steps_of(Path(file)) or {}), **named} or None


def may_be_free(file: ModelFile, architecture: str | None) -> bool:
    """Whether the stored configuration leaves the time axis free, or does not determine it."""
    stored = _stored(file, architecture)
    if stored is None:
        return True
    try:
        return _determined(stored_interface.input_specs, stored, None) is None
    except UsageError:
        return True


def check_sizes(source: ModelSource, specs: Sequence[TensorSpec]) -> None:
    """Raise :class:`UsageError` if the inputs do not have the sizes that the options name."""
    listed = ", ".join(map(str, specs))
    lengths = [spec.shape[1] for spec in specs if len(spec.shape) > 1]
    numbers = single_numbers(specs)
    if numbers and (source.time_steps is not None or source.lengths or source.shapes):
        raise UsageError(
            f"The model has no axis for --time-steps or --input-shape; its inputs are {listed}.",
            hint=numbers,
        )
    if source.time_steps is not None and source.time_steps not in lengths:
        raise UsageError(
            f"--time-steps {source.time_steps}: the model has a fixed sequence length; its inputs "
            f"are {listed}.",
            hint="Omit --time-steps.",
        )
    shapes = {spec.name: spec.shape[1:] for spec in specs}
    _check_names(source, tuple(shapes))
    for option, (name, size) in _named_sizes(source).items():
        shape = shapes[name][:1] if isinstance(size, int) else shapes[name]
        if shape != ((size,) if isinstance(size, int) else size):
            raise UsageError(
                f"{option}: the input has another fixed shape; the inputs are {listed}.",
                hint=f"Omit {option}.",
            )


def _named_sizes(source: ModelSource) -> dict[str, tuple[str, Size]]:
    """The names of inputs and their sizes, by the option that contains them."""
    return {
        **{f"--time-steps {name}={size}": (name, size) for name, size in source.lengths},
        **{
            f"--input-shape {name}={'x'.join(map(str, shape))}": (name, shape)
            for name, shape in source.shapes
        },
    }


def _check_names(source: ModelSource, names: Sequence[str]) -> None:
    """Raise :class:`UsageError` if the options name an input that the model does not have."""
    for option, (name, _) in _named_sizes(source).items():
        if name not in names:
            similar = difflib.get_close_matches(name, names, 1)
            raise UsageError(
                f"{option}: the model has no input with this name; its inputs are "
                f"{', '.join(names)}." + (f" Did you mean {similar[0]}?" if similar else ""),
                hint=f"List the inputs: {source.command('inspect')}",
            )


def _stored(file: ModelFile, architecture: str | None) -> Config | None:
    if architecture is None:
        return file.config or None
    # A function has to be executed.
    return read_architecture(Path(architecture), file) if architecture.endswith(".json") else None


def _determined(function: Callable[..., Result], *arguments: Any) -> Result | None:
    """What ``function`` reads from a configuration; ``None`` if the configuration is damaged."""
    try:
        return function(*arguments)
    except (TypeError, AttributeError, LookupError, ValueError, RecursionError):
        return None  # the loader reports the damage


def _check_layers(
    layers: stored_interface.LayerList, source: ModelSource, options: ConversionOptions
) -> None:
    inspect = f"List the layers: {source.command('inspect')}"
    for name in options.attention_layers:
        if name not in layers.names:
            similar = difflib.get_close_matches(name, layers.names, 1)
            suggestion = f" Did you mean {similar[0]}?" if similar else ""
            raise UsageError(
                f"--attention {name}: the model has no layer with this name.{suggestion}",
                hint=inspect,
            )
    check_lowering(options.lowering, recurrent=layers.recurrent)
    if options.states and not layers.recurrent:
        raise NoRecurrentLayerError(
            "--states has no effect: the model has no recurrent layer.", hint="Omit --states."
        )
    grows = layers.recurrent or any("Attention" in name for name in layers.classes)
    longest = max((source.time_steps or 0, *(length for _, length in source.lengths)))
    if longest > MAX_STEPS and grows and not layers.may_shorten:
        raise UsageError(
            f"--time-steps {longest}: a model with recurrent or attention layers takes "
            f"at most {MAX_STEPS:,} steps.",
            hint="Pass the length of one sequence, as in training.",
        )


def check_lowering(lowering: str, *, recurrent: bool) -> None:
    """Raise :class:`NoRecurrentLayerError` if a form of recurrences is chosen without effect."""
    if lowering != "auto" and not recurrent:
        raise NoRecurrentLayerError(
            f"--lowering {lowering} has no effect: the model has no LSTM, GRU or SimpleRNN.",
            hint="Omit --lowering.",
        )


def _check_labels(file: sample_files.SampleFile, *, required: bool) -> None:
    path = file.path
    # Arrays that are not inputs may be labels of outputs that are not known yet.
    if required and not file.labels and not file.unused:
        raise SampleError(
            f"{shown_name(path)} has no labels.", hint="Add them to the .npz as 'y' or 'y/OUTPUT'."
        )
    for name, array in file.labels.items():
        if array.dtype.kind not in "buif":
            raise SampleError(
                f"The labels {name!r} in {shown_name(path)} are not numbers.",
                hint="Number the classes from 0, in the order of the model's outputs.",
            )
        with array.open() as reader:
            values = reader.read(0, array.shape[0])
        if not np.isfinite(values).all():
            raise SampleError(
                f"The labels {name!r} in {shown_name(path)} contain NaN or infinity.",
                hint="Remove or repair these samples.",
            )
