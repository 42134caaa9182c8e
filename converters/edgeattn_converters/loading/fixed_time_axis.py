"""Free axes of the model inputs: the batch axis stays free, the others get fixed sizes."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.tensors import TensorSpec
from edgeattn_converters.loading.config_inspection import Config

# The length of a time axis, or the sizes of all axes without the batch axis.
Size = int | tuple[int, ...]
# The size of every input, or that of each by name; the name "" stands for all others.
TimeSteps = Size | Mapping[str, Size]
Shape = Sequence[int | None]


class FreeAxesError(UsageError):
    """Inputs with free axes that no option determines. ``names`` are those of all inputs."""

    def __init__(self, message: str, *, hint: str | None = None, names: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.names = tuple(names)


def length_of(time_steps: TimeSteps | None, name: str | None) -> Size | None:
    """The size of the input ``name``, if it is known."""
    if not isinstance(time_steps, Mapping):
        return time_steps
    return time_steps.get(name or "", time_steps.get(""))


def with_sizes(shape: Shape, size: Size | None) -> list[int | None]:
    """``shape``, which begins with the batch axis, with ``size`` in place of its free axes.

    A number is the size of axis 1. Axes whose size is unknown stay free.
    """
    sizes = () if size is None else (size,) if isinstance(size, int) else size
    known = [*sizes, *[None] * len(shape)]
    axes = [known[index] if axis is None else axis for index, axis in enumerate(shape[1:])]
    return [*shape[:1], *axes]


def free_axes_error(
    shapes: Mapping[str, Shape], time_steps: TimeSteps | None = None
) -> FreeAxesError | None:
    """The error for inputs with free axes, and the options that determine these; None if none are.

    ``shapes`` are those of all inputs, by name. Axes that ``time_steps`` determine count as fixed.
    """
    free = {name: shape for name, shape in shapes.items() if None in shape[1:]}
    filled = {name: with_sizes(shape, length_of(time_steps, name)) for name, shape in free.items()}
    name = next((name for name, shape in filled.items() if None in shape[1:]), None)
    if name is None:
        return None
    several = len(shapes) > 1 or isinstance(time_steps, Mapping)
    message = f"Input {name!r} has shape {_formatted(free[name])}: a converted model needs "
    if _are_lengths(filled):
        return FreeAxesError(
            f"{message}a fixed number of time steps.",
            hint=f"Pass the number: {options_for(filled, several=several)} (or --samples with "
            "sequences of that length).",
            names=tuple(shapes),
        )
    hint = f"Pass the sizes as numbers: {options_for(filled)} (or --samples of that shape)."
    if isinstance(length_of(time_steps, name), int):
        first = free[name][1]
        here = "" if first is None else f", here {first}"
        hint = f"Leave out --time-steps: it is the size of axis 1{here}. {hint}"
    return FreeAxesError(f"{message}a fixed shape.", hint=hint, names=tuple(shapes))


def options_for(shapes: Mapping[str, Shape], *, several: bool = False) -> str:
    """The options that determine the free axes of ``shapes``, with letters in place of numbers.

    ``several`` is whether there are more inputs than these.
    """
    if not _are_lengths(shapes):
        return " ".join(
            f"--input-shape {shlex.quote(f'{name}={_sizes_to_pass(axes)}')}"
            for name, axes in shapes.items()
            if None in axes[1:]
        )
    if len(shapes) == 1 and not several:
        return "--time-steps N"
    lengths = ",".join(f"{name}={axes[1] or 'N'}" for name, axes in shapes.items())
    return f"--time-steps {shlex.quote(lengths)}"


def _are_lengths(shapes: Mapping[str, Shape]) -> bool:
    """Whether no axis is free but the time axes."""
    return all(None not in shape[2:] for shape in shapes.values())


def single_numbers(inputs: Sequence[TensorSpec]) -> str:
    """What to do if the samples of all inputs are single numbers, and may be meant as sequences.

    Graphs for a waveform of any length have one axis, which is that of the samples here.
    """
    if not inputs or any(len(spec.shape) != 1 for spec in inputs):
        return ""
    spec = inputs[0]
    return (
        f"The only axis of {spec.name!r} is taken as that of the samples. If it is the length of "
        "one sample, such as a waveform, save the model with an axis of samples before it: "
        f"tf.TensorSpec((None, N), tf.{spec.dtype}), with the length in place of N."
    )


def has_fixed_batch(config: Config) -> bool:
    """Return whether an input of a migrated model config has a fixed number of samples."""
    inner = config.get("config")
    layers = list(inner.get("layers", ())) if isinstance(inner, dict) else []
    shapes = [
        layer["config"].get("batch_shape")
        for layer in layers
        if layer["class_name"] == "InputLayer"
    ]
    return any(isinstance(shape, list | tuple) and shape and shape[0] for shape in shapes) or (
        bool(layers) and not shapes and has_fixed_batch(layers[0])
    )


def fix_time_axis(
    config: dict[str, Any], time_steps: TimeSteps | None, *, keep_batch: bool = False
) -> dict[str, Any]:
    """Return a migrated model config in which only the batch axis of every input is free.

    Batch axes become free, even if the model was built with one batch size, unless ``keep_batch``.
    Requires layers that keep no state from one batch to the next.

    Raises :class:`UsageError` if an axis is free and ``time_steps`` does not determine it.
    """
    inner = config.get("config")
    if not isinstance(inner, dict) or "layers" not in inner:
        return config
    inputs = [layer["config"] for layer in inner["layers"] if layer["class_name"] == "InputLayer"]
    shapes = {item.get("name"): item.get("batch_shape") for item in inputs}
    known = {name: shape for name, shape in shapes.items() if isinstance(shape, list | tuple)}
    if error := free_axes_error(known, time_steps):
        raise error
    layers = [
        _fix_input(layer, time_steps, keep_batch=keep_batch)
        if layer.get("class_name") == "InputLayer"
        # The first layer of a Sequential may be a model that contains the input layer.
        else (
            fix_time_axis(layer, time_steps, keep_batch=keep_batch)
            if index == 0 and not inputs
            else layer
        )
        for index, layer in enumerate(inner["layers"])
    ]
    return {**config, "config": {**inner, "layers": layers}}


def _fix_input(layer: Config, time_steps: TimeSteps | None, *, keep_batch: bool) -> Config:
    shape = layer["config"].get("batch_shape")
    if not isinstance(shape, list | tuple) or not shape:
        return layer
    size = length_of(time_steps, layer["config"].get("name"))
    fixed = [shape[0] if keep_batch else None, *with_sizes(shape, size)[1:]]
    return {**layer, "config": {**layer["config"], "batch_shape": fixed}}


def _sizes_to_pass(shape: Shape) -> str:
    """The shape without the batch axis, with a letter for each free axis."""
    letters = "HWDKLM" if len(shape) > 3 else "NM"
    return "x".join(str(axis or letters[index]) for index, axis in enumerate(shape[1:]))


def _formatted(shape: Shape) -> str:
    return "(" + ", ".join("free" if size is None else str(size) for size in shape) + ")"
