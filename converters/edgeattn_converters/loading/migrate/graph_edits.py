"""Changes of the connections between the layers of a functional model, as Keras 3 stores it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from edgeattn_converters.loading.migrate.functional_nodes import is_tensor, tensor

# An output of a layer: its name and the number of its call.
Output = tuple[str, int]


def unused_name(name: str, names: Container[str]) -> str:
    """``name``, with a number if it is among ``names``."""
    numbered, number = name, 0
    while numbered in names:
        number += 1
        numbered = f"{name}_{number}"
    return numbered


def redirected(value: Any, outputs: Mapping[Output, Output]) -> Any:
    """The calls of a layer with other outputs in the place of the keys of ``outputs``.

    Of a call with several results, the first one is replaced.
    """
    if is_tensor(value):
        name, call, position = value["config"]["keras_history"]
        new = None if position else outputs.get((name, call))
        return value if new is None else tensor(*new, 0)
    if isinstance(value, Mapping):
        return {key: redirected(item, outputs) for key, item in value.items()}
    return [redirected(item, outputs) for item in value] if isinstance(value, list) else value


def redirected_endpoints(endpoints: Any, outputs: Mapping[Output, Output]) -> Any:
    """``output_layers`` with other outputs in the place of the keys of ``outputs``."""
    if is_endpoint(endpoints):
        new = None if endpoints[2] else outputs.get((endpoints[0], endpoints[1]))
        return endpoints if new is None else [*new, 0]
    if isinstance(endpoints, Mapping):
        return {key: redirected_endpoints(item, outputs) for key, item in endpoints.items()}
    return [redirected_endpoints(item, outputs) for item in endpoints]


def is_endpoint(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str)


def endpoint_names(endpoints: Any) -> Iterator[str]:
    """The names of the layers in ``input_layers`` or ``output_layers``."""
    if is_endpoint(endpoints):
        yield endpoints[0]
        return
    for item in endpoints.values() if isinstance(endpoints, Mapping) else endpoints:
        yield from endpoint_names(item)
