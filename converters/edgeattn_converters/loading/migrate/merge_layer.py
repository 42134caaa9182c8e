"""The layer ``Merge`` of Keras 1 and early Keras 2, which later became one layer per mode."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.error_text import beginning
from edgeattn_converters.loading.migrate.context import Context, keras_layer, safe_name
from edgeattn_converters.loading.migrate.explicit_masks import without_mask
from edgeattn_converters.loading.migrate.input_layers import input_layer
from edgeattn_converters.loading.migrate.removed_classes import MERGE_CLASSES, merge_arguments

_Reference = list[Any]  # layer, call and output
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
            f"({beginning(repr(mode), 60)}), which is never run.",
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

    Requires the Merge to contain its branches in ``layers``, as in Keras 1. Layers of the same name
    are one layer, which several branches call. A branch has no mask behind its last layer: Keras 1
    and 2 pass none on from a Sequential to a Merge.
    """
    layers: dict[str, dict[str, Any]] = {}
    output, inputs = _append_merged(stored["config"], layers)
    return {
        "class_name": "Model",
        "config": {"name": "merged", "layers": list(layers.values()), "input_layers": inputs,
                   "output_layers": [output]},
    }  # fmt: skip


def _append_merged(
    config: Any, layers: dict[str, dict[str, Any]]
) -> tuple[_Reference, list[_Reference]]:
    """Append the layers of a Sequential that starts with a Merge; return output and inputs."""
    items = list(config if isinstance(config, list) else config["layers"])
    merge = items[0]["config"]
    branch_outputs: list[_Reference] = []
    inputs: list[_Reference] = []
    for index, branch in enumerate(merge.get("layers") or []):
        if starts_sequential(branch):
            output, sources = _append_merged(branch["config"], layers)
        else:
            output, sources = _append_branch(branch, index, layers)
        if _has_masks(branch):
            copied = without_mask(f"{output[0]}_without_mask")
            output = _append(copied, [output], layers)
        branch_outputs.append(output)
        inputs.extend(source for source in sources if source not in inputs)
    output = _append(items[0], branch_outputs, layers)
    if merge.get("mode") == "cos":  # with an additional axis
        name = f"{items[0]['config'].get('name') or 'merge'}_axis"
        reshaped = keras_layer("Reshape", {"name": name, "target_shape": [1, 1]})
        output = _append(reshaped, [output], layers)
    for item in items[1:]:
        output = _append(item, [output], layers)
    return output, inputs


def _append(
    item: Config, tensors: Sequence[_Reference], layers: dict[str, dict[str, Any]]
) -> _Reference:
    """Append a call of a layer, unless it has the same; return its output.

    Raises :class:`UnsupportedModelError` if another layer has its name.
    """
    name = str(item["config"].get("name") or item["class_name"])
    layer = layers.setdefault(name, {**item, "name": name, "inbound_nodes": []})
    if any(layer[key] != item[key] for key in ("class_name", "config")):
        raise UnsupportedModelError(
            f"Two layers of the model are called {name!r}.",
            hint="Give every layer its own name and save the model again.",
        )
    node = [list(tensor) for tensor in tensors]
    if not node:
        return [name, 0, 0]
    if node not in layer["inbound_nodes"]:
        layer["inbound_nodes"].append(node)
    return [name, layer["inbound_nodes"].index(node), 0]


def _has_masks(branch: Config) -> bool:
    """Return whether a layer of a branch creates a mask."""
    text = json.dumps(branch)
    return '"mask_zero": true' in text or '"Masking"' in text


def _append_branch(
    branch: Config, index: int, layers: dict[str, dict[str, Any]]
) -> tuple[_Reference, list[_Reference]]:
    """Append the layers of a branch; return its output and inputs."""
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
    sources: list[Config] = [*inputs, *items]
    first = output = _append(sources[0], [], layers)
    for item in sources[1:]:
        output = _append(item, [output], layers)
    return output, [first]
