"""Layers trained in half precision or in float64 compute in float32.

The weights of layers in half precision are stored as float32, and no CPU runtime computes in half
precision. A float32 artifact is therefore closer to the trained function than one that imitates the
rounding. TFLite has few operators for float64.
"""

from collections.abc import Collection
from typing import Any

# Arguments of a layer, whose types are not those that it computes in.
_VALUES = ("__keras_tensor__", "__numpy__", "__tensor__")
_OTHERS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")
# ``keras.ops.saturate_cast`` clips to the numbers of a type.
_LARGEST = {"float16": 65504.0, "bfloat16": 2.0**127 * (2 - 2**-7)}


def in_float32(config: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return ``config`` with every other dtype of floats set to float32; a note lists them.

    A dtype is a name or a policy: ``{"class_name": "DTypePolicy", "config": {"name": ...}}`` in
    Keras 3, ``{"class_name": "Policy", ...}`` in Keras 2.
    """
    replaced: set[str] = set()
    of_inputs: set[str] = set()

    def convert(value: Any, of_layer: bool = True) -> Any:
        if isinstance(value, dict):
            inner = value.get("config")
            if value.get("class_name") == "InputLayer" and "dtype" in (inner or {}):
                dtype = to_dtype(value["config"]["dtype"], of_layer, of_inputs)
                value = {**value, "config": {**value["config"], "dtype": dtype}}
            of_layer = of_layer and value.get("class_name") not in _VALUES
            if (largest := _saturated(value)) is not None:
                replaced.add(value["config"]["dtype"])
                value = {**value, **_clip(value["config"]["name"], largest)}
            return {
                key: to_dtype(v, of_layer) if key == "dtype" else convert(v, of_layer)
                for key, v in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(convert(item, of_layer) for item in value)
        return value

    def to_dtype(value: Any, of_layer: bool, found: set[str] = replaced) -> Any:
        name = value
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            name = value["config"].get("name")
        if isinstance(name, str) and name in _OTHERS:
            if of_layer:
                found.add(name)
            return "float32"
        return value

    converted: dict[str, Any] = convert(config)
    notes.extend(notes_on(replaced))
    if of_inputs and not replaced:
        names = ", ".join(sorted(of_inputs))
        notes.append(f"The inputs of the model are {names} in the file, and float32 here.")
    return converted


def notes_on(dtypes: Collection[str]) -> tuple[str, ...]:
    """Return a note if there are ``dtypes`` in which the model was trained."""
    if not dtypes:
        return ()
    names = ", ".join(sorted(dtypes))
    return (f"The model was trained in {names} and is computed in float32.",)


def _saturated(item: dict[str, Any]) -> float | None:
    """The largest number if ``item`` is a saturating cast of floats to half precision."""
    if item.get("class_name") != "SaturateCast":
        return None
    match item:
        case {
            "config": {"dtype": str(dtype), "name": str()},
            "inbound_nodes": [{"args": [{"config": {"dtype": str(operand)}}]}, *_],
        }:
            return _LARGEST.get(dtype) if "float" in operand else None
    return None


def _clip(name: str, largest: float) -> dict[str, Any]:
    return {
        "module": "keras.src.ops.numpy",
        "class_name": "Clip",
        "registered_name": "Clip",
        "config": {"name": name, "x_min": -largest, "x_max": largest},
    }
