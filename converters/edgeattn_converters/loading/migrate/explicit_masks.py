"""Calls of Keras 2 with ``mask=None``, or None for each input: the layer uses no mask.

Keras 3 takes None as a mask that is not given, and uses those of the inputs. So such calls get
their inputs without a mask, from a layer that copies them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.lambdas import expressions
from edgeattn_converters.loading.migrate.context import registered_layer
from edgeattn_converters.loading.migrate.functional_nodes import is_none, is_tensor, tensor
from edgeattn_converters.loading.migrate.graph_edits import unused_name

_Layer = dict[str, Any]
_MODELS = frozenset({"Functional", "Sequential"})


def without_mask(name: str) -> _Layer:
    """The layer that copies a tensor without its mask."""
    copied = expressions.operation("identity", expressions.INPUT)
    return registered_layer(expressions.REGISTERED, {"name": name, "expression": copied})


def excludes_mask(call: Mapping[str, Any]) -> bool:
    """Whether a call names a mask that is None."""
    return "mask" in call["kwargs"] and is_none(call["kwargs"]["mask"])


def with_copies(
    layers: Sequence[_Layer], stored_calls: Sequence[Sequence[Mapping[str, Any]]]
) -> list[_Layer]:
    """The migrated layers of a functional model; inputs of calls with the mask None are copied.

    ``stored_calls`` are those of each layer before the migration. Raises
    :class:`UnsupportedModelError` if a model is called so with tensors that others use.
    """
    names = {layer["name"] for layer in layers}
    uses = Counter(key for layer in layers for key in _tensors(layer["inbound_nodes"]))
    result: list[_Layer] = []
    for layer, stored in zip(layers, stored_calls, strict=True):
        calls = []
        for call, of_file in zip(layer["inbound_nodes"], stored, strict=True):
            if excludes_mask(of_file) and call["args"]:
                if layer["class_name"] in _MODELS:
                    _require_single_use(layer["name"], call["args"][0], uses)
                inputs, copies = _copied(call["args"][0], layer["name"], names)
                result.extend(copies)
                call = {**call, "args": [inputs, *call["args"][1:]]}
            calls.append(call)
        result.append({**layer, "inbound_nodes": calls})
    return result


def _require_single_use(name: str, inputs: Any, uses: Counter[str]) -> None:
    """Keras 2 deletes the masks of the tensors themselves, for the layers that it calls later."""
    if any(uses[key] > 1 for key in _tensors(inputs)):
        raise UnsupportedModelError(
            f"The model {name!r} is called with mask=None, and other layers have the same inputs: "
            "Keras 2 deletes their masks too, for those that it calls later.",
            hint="Pass it copies of its inputs, such as tf.identity(x), and save the model again.",
        )


def _tensors(value: Any) -> Iterator[str]:
    """The tensors in the arguments of calls, as text."""
    if is_tensor(value):
        yield repr(value["config"]["keras_history"])
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _copied(inputs: Any, name: str, names: set[str]) -> tuple[Any, list[_Layer]]:
    """Inputs with a copy in the place of each tensor, and the layers that copy them."""
    copies: list[_Layer] = []

    def copy(value: Any) -> Any:
        if is_tensor(value):
            copy_name = unused_name(f"{name}_without_mask", names)
            names.add(copy_name)
            node = {"args": [value], "kwargs": {}}
            copies.append({**without_mask(copy_name), "name": copy_name, "inbound_nodes": [node]})
            return tensor(copy_name, 0, 0)
        if isinstance(value, Mapping):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return copy(inputs), copies
