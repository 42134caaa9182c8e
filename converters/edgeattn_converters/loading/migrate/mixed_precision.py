"""Layers trained in half precision compute in float32.

Their weights are stored as float32, and no CPU runtime computes in half precision. A float32
artifact is therefore closer to the trained function than one that imitates the rounding.
"""

from typing import Any

_HALF_PRECISION = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def in_float32(config: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return ``config`` with every half-precision dtype set to float32; a note lists them.

    A dtype is a name or a policy: ``{"class_name": "DTypePolicy", "config": {"name": ...}}`` in
    Keras 3, ``{"class_name": "Policy", ...}`` in Keras 2.
    """
    replaced: set[str] = set()

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: to_dtype(v) if key == "dtype" else convert(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(convert(item) for item in value)
        return value

    def to_dtype(value: Any) -> Any:
        name = value
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            name = value["config"].get("name")
        if isinstance(name, str) and name in _HALF_PRECISION:
            replaced.add(name)
            return "float32"
        return value

    converted: dict[str, Any] = convert(config)
    if replaced:
        names = ", ".join(sorted(replaced))
        notes.append(f"The model was trained in {names} and is computed in float32.")
    return converted
