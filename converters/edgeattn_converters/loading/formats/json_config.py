"""Model configurations as JSON, as all formats of Keras store them."""

import json
from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.safety import size_limits
from edgeattn_converters.loading.safety.size_limits import FileLimits


def parse_config(text: str, limits: FileLimits) -> Mapping[str, Any]:
    """Parse the JSON text of a model configuration.

    Raises :class:`UnsupportedModelError` if the text is not JSON or not the configuration of a
    model, and :class:`UnsafeModelError` if it is too large or too deeply nested.
    """
    config = parse_object(text, limits)
    if "class_name" not in config or "config" not in config:
        raise _not_of_model(limits)
    return config


def parse_object(text: str, limits: FileLimits) -> Mapping[str, Any]:
    """Parse the JSON text of an object that may have no configuration; errors as above."""
    limits.require(
        len(text) <= size_limits.MAX_CONFIG_BYTES,
        f"its configuration has {len(text)} characters, more than {size_limits.MAX_CONFIG_BYTES}",
    )
    try:
        config = json.loads(text, object_hook=_decode_tuple)
    except RecursionError as error:
        raise limits.refusal("its configuration is nested too deeply") from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"The model configuration in {limits.name} is not valid JSON: {error}",
            hint="Save the model again: the file is damaged.",
        ) from error
    if not isinstance(config, dict):
        raise _not_of_model(limits)
    return config


def _not_of_model(limits: FileLimits) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{limits.name} contains no Keras model: its config has no class_name or config key.",
        hint="Save the whole model: model.save('model.keras')",
    )


def _decode_tuple(value: dict[str, Any]) -> Any:
    """Decode tuples and shapes, which JSON does not have."""
    if isinstance(items := value.get("items"), list):
        if value.get("class_name") == "__tuple__":
            return tuple(items)
        if value.get("class_name") == "TensorShape":
            return items
    return value
