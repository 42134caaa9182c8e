"""``Merge`` of Keras 1 and early 2: one layer for what later became a layer each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.migrate.config_summary import input_of
from edgeattn_converters.loading.migrate.context import Config, Context, safe_name

_MODES = {
    "sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate",
    "dot": "Dot", "cos": "Dot",
}  # fmt: skip


def is_merge(item: Config) -> bool:
    """Whether it is the old layer."""
    return item.get("class_name") == "Merge"


def layer(item: Config, ctx: Context) -> dict[str, Any]:
    """The layer that took over this mode.

    Raises:
        UnsupportedModelError: a mode that was a Python function.
    """
    config = item["config"]
    mode = config.get("mode")
    if not isinstance(mode, str) or mode not in _MODES or config.get("mode_type") == "lambda":
        raise UnsupportedModelError(
            f"{config.get('name')!r} is a Merge with a function of its own as mode ({mode!r:.60}), "
            "which is not run",
            hint="Rebuild the model with a layer that does the same.",
        )
    class_name = _MODES[mode]
    new: dict[str, Any] = {"name": safe_name(str(config.get("name")))}
    if class_name == "Concatenate":
        new["axis"] = config.get("concat_axis", -1)
    if class_name == "Dot":
        new["axes"] = _axes(config.get("dot_axes", -1))
        new["normalize"] = mode == "cos"
    ctx.note(f"{new['name']}: Merge(mode={mode!r}) became {class_name}.")
    return {"module": "keras.layers", "class_name": class_name, "config": new,
            "registered_name": None}  # fmt: skip


def _axes(value: Any) -> Any:
    """``[[2], [1]]`` of the oldest files -> ``[2, 1]``."""
    if isinstance(value, list):
        return [item[0] if isinstance(item, list) else item for item in value]
    return value


def starts_chain(stored: Config) -> bool:
    """Whether the model is a chain whose first layer joins other models."""
    config = stored.get("config")
    if stored.get("class_name") != "Sequential" or not config:
        return False
    items = config if isinstance(config, list) else config.get("layers") or [{}]
    return is_merge(items[0])


def as_graph(stored: Config) -> Mapping[str, Any]:
    """A chain that starts with a Merge of other models, as the graph it is.

    Requires the Merge to keep its branches in ``layers``, as Keras 1 did.
    """
    config = stored["config"]
    items = list(config if isinstance(config, list) else config["layers"])
    branches = items[0]["config"].get("layers") or []
    layers: list[dict[str, Any]] = []
    ends, inputs = [], []
    for index, branch in enumerate(branches):
        name, first = _branch(branch, index, layers)
        ends.append([name, 0, 0])
        inputs.append([first, 0, 0])
    previous = [ends]
    for item in items:
        name = str(item["config"].get("name") or item["class_name"])
        layers.append({**item, "name": name, "inbound_nodes": previous})
        previous = [[[name, 0, 0]]]
    return {
        "class_name": "Model",
        "config": {"name": "merged", "layers": layers, "input_layers": inputs,
                   "output_layers": previous[0]},
    }  # fmt: skip


def _branch(branch: Config, index: int, layers: list[dict[str, Any]]) -> tuple[str, str]:
    """Append one branch's layers; the names of its last and of its input."""
    config = branch["config"]
    items = list(config if isinstance(config, list) else config.get("layers", ()))
    if branch.get("class_name") != "Sequential" or not items:
        raise UnsupportedModelError(
            f"branch {index + 1} of the first Merge is a {branch.get('class_name')}, "
            "not a Sequential",
            hint="Rebuild the model with the functional API and load its weights.",
        )
    inputs = input_of(items[0])
    if not inputs and items[0]["class_name"] != "InputLayer":
        raise UnsupportedModelError(
            f"branch {index + 1} of the first Merge does not say its input shape",
            hint="Rebuild the model with the functional API and load its weights.",
        )
    chain = [*inputs, *items]
    previous: list[Any] = []
    for item in chain:
        layers.append({**item, "name": item["config"]["name"], "inbound_nodes": previous})
        previous = [[[item["config"]["name"], 0, 0]]]
    return str(chain[-1]["config"]["name"]), str(chain[0]["config"]["name"])
