"""Free axes of a model's inputs: the batch stays free, the time axis gets its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.migrate.context import Config


def fix_time(config: dict[str, Any], time_steps: int | None) -> dict[str, Any]:
    """A translated model's config with every input's time axis (axis 1) fixed.

    Ensures that batch axes are free, also where data of one batch size gave the shape, and no
    others. Requires layers that keep no state from one batch to the next.

    Raises:
        UsageError: it is free and no length was given, or it is fixed to another length.
        UnsupportedModelError: another axis is free.
    """
    if time_steps is not None and time_steps < 1:
        raise UsageError(
            f"--time-steps must be 1 or more, got {time_steps}", hint="Try: --time-steps 50"
        )
    inner = config.get("config")
    if not isinstance(inner, dict) or "layers" not in inner:
        return config
    layers = [
        _fix_input(layer, time_steps)
        if layer.get("class_name") == "InputLayer"
        # A chain may start with a model that has the input.
        else (fix_time(layer, time_steps) if index == 0 else layer)
        for index, layer in enumerate(inner["layers"])
    ]
    return {**config, "config": {**inner, "layers": layers}}


def _fix_input(layer: Config, time_steps: int | None) -> Config:
    shape = layer["config"].get("batch_shape")
    name = layer["config"].get("name")
    if not isinstance(shape, list | tuple) or not shape:
        return layer
    if len(shape) == 1:
        return {**layer, "config": {**layer["config"], "batch_shape": [None]}}
    if any(size is None for size in shape[2:]):
        raise UnsupportedModelError(
            f"input {name!r} has shape {_shown(shape)}: only the batch and the time axis "
            "may be free",
            hint="Rebuild the model with a fixed number of features.",
        )
    if shape[1] is None and time_steps is None:
        raise UsageError(
            f"input {name!r} has shape {_shown(shape)}: its time axis is free, and an edge model "
            "needs its length",
            hint="Give the number of steps: --time-steps N (or samples of that length).",
        )
    fixed = [None, time_steps if shape[1] is None else shape[1], *shape[2:]]
    return {**layer, "config": {**layer["config"], "batch_shape": fixed}}


def _shown(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("free" if size is None else str(size) for size in shape) + ")"
