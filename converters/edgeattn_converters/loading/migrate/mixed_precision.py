"""Layers that computed in half precision while they were trained compute in float32 here.

Their weights are float32 as they stand, and no CPU runtime computes in half precision: an artifact
in float32 is nearer to what was meant than one that imitates the rounding.
"""

from __future__ import annotations

from typing import Any

_HALF = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16")


def in_float32(config: Any) -> tuple[Any, frozenset[str]]:
    """``config`` with every half-precision ``dtype`` of it as float32, and the names of those.

    A dtype is a name, or a policy: ``{"class_name": "DTypePolicy", "config": {"name": ...}}`` in
    Keras 3, ``{"class_name": "Policy", ...}`` in Keras 2.
    """
    found: set[str] = set()

    def repaired(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: dtype(v) if key == "dtype" else repaired(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(repaired(item) for item in value)
        return value

    def dtype(value: Any) -> Any:
        name = value
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            name = value["config"].get("name")
        if isinstance(name, str) and name in _HALF:
            found.add(name)
            return "float32"
        return value

    return repaired(config), frozenset(found)
