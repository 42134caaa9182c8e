"""Arguments of layers of Keras 1 and 2 for the layers that replaced them, without their context."""

from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.error_text import beginning

MERGE_CLASSES = {
    "sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate",
    "dot": "Dot", "cos": "Dot",
}  # fmt: skip
_LOCALLY_CONNECTED = frozenset(
    {"name", "trainable", "dtype", "filters", "kernel_size", "strides", "padding", "data_format",
     "activation", "use_bias", "implementation"}
)  # fmt: skip


def merge_arguments(config: Config) -> tuple[str, dict[str, Any]]:
    """Return class and arguments of the layer that replaced the mode of a Merge, but its name.

    Raises :class:`UnsupportedModelError` if there is no such mode.
    """
    mode = config.get("mode")
    if not isinstance(mode, str) or mode not in MERGE_CLASSES:
        raise UnsupportedModelError(
            f"Merge has the mode {beginning(repr(mode), 60)}, which is none of "
            f"{', '.join(MERGE_CLASSES)}.",
            hint="Use a layer that computes the same, such as Add or Concatenate.",
        )
    class_name = MERGE_CLASSES[mode]
    found: dict[str, Any] = {}
    if class_name == "Concatenate":
        found["axis"] = config.get("concat_axis", -1)
    if class_name == "Dot":
        found = {"axes": _axes(config.get("dot_axes", -1)), "normalize": mode == "cos"}
    return class_name, found


def _axes(value: Any) -> Any:
    """Flatten the axes of the oldest files: ``[[2], [1]]`` -> ``[2, 1]``."""
    if isinstance(value, list | tuple):
        return [item[0] if isinstance(item, list | tuple) else item for item in value]
    return value


def locally_connected_arguments(config: Config) -> Config:
    """Return the arguments that the layer of edgeattn has, with lists for all axes."""
    arguments = {
        key: value
        for key, value in config.items()
        if key in _LOCALLY_CONNECTED and value is not None
    }
    for key in ("kernel_size", "strides"):
        value = arguments.get(key, 1)
        arguments[key] = [value] if isinstance(value, int) else value
    return arguments
