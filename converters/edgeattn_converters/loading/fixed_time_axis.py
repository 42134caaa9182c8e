"""Free axes of the model inputs: the batch axis stays free, the time axis gets a fixed length."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.config_inspection import Config

# The length of the time axis of every input, or that of each by name.
TimeSteps = int | Mapping[str, int]


def length_of(time_steps: TimeSteps | None, name: str | None) -> int | None:
    """The length of a free time axis of the input ``name``, if it is known."""
    return time_steps.get(name or "") if isinstance(time_steps, Mapping) else time_steps


def fix_time_axis(config: dict[str, Any], time_steps: TimeSteps | None) -> dict[str, Any]:
    """Return a migrated model config with the time axis (axis 1) of every input fixed.

    Batch axes become free, even if the model was built with one batch size. Requires layers that
    keep no state from one batch to the next.

    Raises:
        UsageError: the time axis is free and ``time_steps`` is None or less than 1.
        UnsupportedModelError: another axis is free.
    """
    if isinstance(time_steps, int) and time_steps < 1:
        raise UsageError(
            f"--time-steps must be at least 1, got {time_steps}.", hint="Try: --time-steps 50"
        )
    inner = config.get("config")
    if not isinstance(inner, dict) or "layers" not in inner:
        return config
    layers = [
        _fix_input(layer, time_steps)
        if layer.get("class_name") == "InputLayer"
        # The first layer of a Sequential may be a model that contains the input layer.
        else (fix_time_axis(layer, time_steps) if index == 0 else layer)
        for index, layer in enumerate(inner["layers"])
    ]
    return {**config, "config": {**inner, "layers": layers}}


def _fix_input(layer: Config, lengths: TimeSteps | None) -> Config:
    shape = layer["config"].get("batch_shape")
    name = layer["config"].get("name")
    time_steps = length_of(lengths, name)
    if not isinstance(shape, list | tuple) or not shape:
        return layer
    if len(shape) == 1:
        return {**layer, "config": {**layer["config"], "batch_shape": [None]}}
    if any(size is None for size in shape[2:]):
        raise UnsupportedModelError(
            f"Input {name!r} has shape {_formatted(shape)}: only the batch and the time axis may "
            "be free.",
            hint="Rebuild the model with a fixed number of features.",
        )
    if shape[1] is None and time_steps is None:
        raise UsageError(
            f"Input {name!r} has shape {_formatted(shape)}: a converted model needs a fixed number "
            "of time steps.",
            hint="Pass the number: --time-steps N (or --samples with sequences of that length).",
        )
    fixed = [None, time_steps if shape[1] is None else shape[1], *shape[2:]]
    return {**layer, "config": {**layer["config"], "batch_shape": fixed}}


def _formatted(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("free" if size is None else str(size) for size in shape) + ")"
