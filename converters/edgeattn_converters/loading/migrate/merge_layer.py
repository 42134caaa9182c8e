"""The layer ``Merge`` of Keras 1 and early Keras 2, which later became one layer per mode."""

from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.migrate.context import Context, keras_layer, safe_name
from edgeattn_converters.loading.migrate.input_layers import input_layer
from edgeattn_converters.loading.migrate.removed_classes import MERGE_CLASSES, merge_arguments

_USE_FUNCTIONAL = "Rebuild the model with the functional API and load its weights."


def is_merge(item: Config) -> bool:
    """Return whether the layer is a Merge."""
    return item.get("class_name") == "Merge"


def migrate(item: Config, ctx: Context) -> dict[str, Any]:
    """Return the Keras layer that replaced the mode of a Merge.

    Raises :class:`UnsupportedModelError` if the mode is a Python function.
    """
    config = item["config"]
    mode = config.get("mode")
    if (
        not isinstance(mode, str)
        or mode not in MERGE_CLASSES
        or config.get("mode_type") == "lambda"
    ):
        raise UnsupportedModelError(
            f"The Merge layer {config.get('name')!r} has a Python function as its mode "
            f"({mode!r:.60}), which is never run.",
            hint="Rebuild the model with a Keras layer that computes the same.",
        )
    class_name, migrated = merge_arguments(config)
    name = safe_name(str(config.get("name")))
    ctx.notes.append(f"{name}: replaced Merge(mode={mode!r}) with {class_name}.")
    return keras_layer(class_name, {"name": name, **migrated})


def starts_sequential(stored: Config) -> bool:
    """Return whether the model is a Sequential whose first layer merges other models."""
    config = stored.get("config")
    if stored.get("class_name") != "Sequential" or not config:
        return False
    items = config if isinstance(config, list) else config.get("layers") or [{}]
    return is_merge(items[0])


def as_functional(stored: Config) -> Mapping[str, Any]:
    """Return a Sequential that starts with a Merge of other models as a functional model.

    Requires the Merge to contain its branches in ``layers``, as in Keras 1.
    """
    layers: list[dict[str, Any]] = []
    output, inputs = _append_merged(stored["config"], layers)
    return {
        "class_name": "Model",
        "config": {"name": "merged", "layers": layers, "input_layers": inputs,
                   "output_layers": output},
    }  # fmt: skip


def _append_merged(config: Any, layers: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Append the layers of a Sequential that starts with a Merge; return output and inputs."""
    items = list(config if isinstance(config, list) else config["layers"])
    branch_outputs, inputs = [], []
    for index, branch in enumerate(items[0]["config"].get("layers") or []):
        if starts_sequential(branch):
            output, inner = _append_merged(branch["config"], layers)
            branch_outputs.append(output)
            inputs.extend(inner)
            continue
        last, first = _append_branch(branch, index, layers)
        branch_outputs.append([last, 0, 0])
        inputs.append([first, 0, 0])
    inbound = [branch_outputs]
    for item in items:
        name = str(item["config"].get("name") or item["class_name"])
        layers.append({**item, "name": name, "inbound_nodes": inbound})
        inbound = [[[name, 0, 0]]]
    return inbound[0][0], inputs


def _append_branch(branch: Config, index: int, layers: list[dict[str, Any]]) -> tuple[str, str]:
    """Append the layers of a branch; return the names of its last and its input layer."""
    config = branch["config"]
    items = list(config if isinstance(config, list) else config.get("layers", ()))
    if branch.get("class_name") != "Sequential" or not items:
        raise UnsupportedModelError(
            f"Branch {index + 1} of the first Merge layer is a {branch.get('class_name')}, not a "
            "Sequential.",
            hint=_USE_FUNCTIONAL,
        )
    has_input = items[0]["class_name"] == "InputLayer"
    inputs = [] if has_input else input_layer(items[0])
    if not inputs and not has_input:
        raise UnsupportedModelError(
            f"Branch {index + 1} of the first Merge layer has no input shape.", hint=_USE_FUNCTIONAL
        )
    branch_layers = [*inputs, *items]
    inbound: list[Any] = []
    for item in branch_layers:
        layers.append({**item, "name": item["config"]["name"], "inbound_nodes": inbound})
        inbound = [[[item["config"]["name"], 0, 0]]]
    return str(branch_layers[-1]["config"]["name"]), str(branch_layers[0]["config"]["name"])
