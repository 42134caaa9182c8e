"""The connections of a functional model, in the form of Keras 3.

Keras 1 and 2 number the calls of a nested model from 1, Keras 3 numbers them from 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, registered_name, unqualified
from edgeattn_converters.loading.error_text import beginning
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.migrate.context import registered_layer
from edgeattn_converters.loading.safety.allowed_classes import LAYERS, is_operation_module

CONSTANT = "_CONSTANT_VALUE"
_SAVE_AGAIN = "Save the model again: the file is damaged."


@dataclass(frozen=True)
class LayerTable:
    """The layers of one functional model.

    Attributes:
        names: migrated names of the layers by stored name.
        models: ``"functional"`` or ``"sequential"`` for each layer that is a model.
        major: major version of the Keras that wrote the file.
    """

    names: Mapping[str, str]
    models: Mapping[str, str]
    major: int

    @classmethod
    def of(
        cls, layers: Sequence[Config], *, rename: Callable[[str], str], models: Mapping[str, str],
        major: int,
    ) -> LayerTable:  # fmt: skip
        """Return the table of a model's layers.

        Raises :class:`UnsupportedModelError` if a layer has no name, or the migrated name of
        another layer.
        """
        names: dict[str, str] = {}
        for item in layers:
            name = item.get("name") or (item.get("config") or {}).get("name")
            if not isinstance(name, str) or rename(name) in names.values():
                raise UnsupportedModelError(
                    f"Two layers of the model are called {name!r}.",
                    hint="Give every layer its own name and save the model again.",
                )
            names[name] = rename(name)
        return cls(names, models, major)

    def calls(self, item: Config) -> list[dict[str, Any]]:
        """Return the calls of one layer, each as ``{"args": [...], "kwargs": {...}}``."""
        # Keras 2 stores the first argument of functions as it is, that of other layers as a list.
        is_function = item.get("class_name") == "TFOpLambda"
        calls = [
            self._keras3_call(node)
            if isinstance(node, Mapping) and "args" in node
            else self._keras2_call(node, is_function=is_function)
            for node in _with_lists(item.get("inbound_nodes") or [])
        ]
        return [call for call in calls if call["args"] or call["kwargs"]]

    def endpoints(self, stored: Any) -> Any:
        """Return ``input_layers`` or ``output_layers`` as the Functional class expects them."""
        if isinstance(stored, Mapping):
            return {key: self.endpoints(value) for key, value in stored.items()}
        if _is_reference(stored):
            name, index, position = stored[:3]
            # Keras 3 itself subtracts 1 for functional models, but not for Sequential ones.
            sequential = self.models.get(name) == "sequential" and self.major < 3
            return [self._name(name), index - 1 if sequential else index, position]
        endpoints = [self.endpoints(item) for item in stored]
        return endpoints[0] if self.major < 3 and len(endpoints) == 1 else endpoints

    def _name(self, name: str) -> str:
        if name not in self.names:
            raise UnsupportedModelError(
                f"The model connects to a layer {name!r} that is not in it.", hint=_SAVE_AGAIN
            )
        return self.names[name]

    def _keras3_call(self, node: Mapping[str, Any]) -> dict[str, Any]:
        return {"args": self._renamed(node["args"]), "kwargs": self._renamed(node["kwargs"])}

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if is_tensor(value):
            name, index, position = value["config"]["keras_history"]
            return tensor(self._name(name), index, position, like=value["config"])
        return {key: self._renamed(item) for key, item in value.items()}

    def _keras2_call(self, node: Any, *, is_function: bool) -> dict[str, Any]:
        """Convert a call of Keras 1 or 2: a list of references, each with keyword arguments."""
        kwargs: dict[str, Any] = {}
        if isinstance(node, Mapping):
            return {
                "args": [{key: self._argument(item, kwargs) for key, item in node.items()}],
                "kwargs": kwargs,
            }
        if not isinstance(node, list):
            raise UnsupportedModelError(
                f"A connection of the model is stored as {beginning(repr(node), 80)}, not as a "
                "list.",
                hint=_SAVE_AGAIN,
            )
        if _is_reference(node):
            argument = self._argument(node, kwargs)
            is_constant = is_function and isinstance(argument, list)
            return {"args": [constant_tensor(argument) if is_constant else argument],
                    "kwargs": kwargs}  # fmt: skip
        args = [self._argument(item, kwargs) for item in node]
        # One list in the list is an argument with two axes, such as the constant [[1.0, 2.0]].
        is_single = len(node) == 1 and _is_reference(node[0]) and not is_function
        return {"args": [args[0] if is_single else args], "kwargs": kwargs}

    def _argument(self, item: Any, kwargs: dict[str, Any]) -> Any:
        if not _is_reference(item):
            if isinstance(item, Mapping):
                return {key: self._argument(value, kwargs) for key, value in item.items()}
            return [self._argument(value, kwargs) for value in item]
        if len(item) > 3 and isinstance(item[3], Mapping):
            kwargs.update({key: self._keyword(value) for key, value in item[3].items()})
        return self._tensor(item)

    def _keyword(self, value: Any) -> Any:
        """Return a keyword argument: a tensor if it references a layer, else the value."""
        if _is_reference(value) and (value[0] in self.names or value[0] == CONSTANT):
            return self._tensor(value)
        if isinstance(value, list):
            return [self._keyword(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self._keyword(item) for key, item in value.items()}
        return value

    def _tensor(self, reference: Sequence[Any]) -> Any:
        name, index, position = reference[:3]
        if name == CONSTANT:
            return position
        return tensor(self._name(name), index - 1 if name in self.models else index, position)


def with_several_inputs(
    layer: dict[str, Any], name: str, calls: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a migrated layer; if it is a TimeDistributed that is called with several tensors, as
    the layer of edgeattn.

    Raises :class:`UnsupportedModelError` if such a call passes a mask.
    """
    if layer["class_name"] != "TimeDistributed" or not any(map(_has_several, calls)):
        return layer
    if not all(is_none(call["kwargs"].get("mask")) for call in calls):
        raise Keras3ModelError(
            f"Layer {name!r} is a TimeDistributed that is called with several inputs and a mask.",
            hint="Rebuild the model without the argument mask, for example with the mask as "
            "another input of the layer inside. Then load the weights.",
        )
    return _of_several(layer)


def _of_several(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer, and those inside it, of edgeattn."""
    if layer["class_name"] != "TimeDistributed":
        return layer
    config = {**layer["config"], "layer": _of_several(layer["config"]["layer"])}
    return registered_layer("edgeattn>TimeDistributed", config)


def _has_several(call: Mapping[str, Any]) -> bool:
    [first, *_] = call["args"] or [None]
    return isinstance(first, list | Mapping) and not is_tensor(first)


def _with_lists(value: Any) -> Any:
    """Return an argument with lists for tuples, which SavedModel folders alone distinguish."""
    if isinstance(value, list | tuple):
        return [_with_lists(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return value


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def tensor(name: str, index: int, position: int, *, like: Config | None = None) -> dict[str, Any]:
    """Return a tensor of the model as Keras 3 stores it; loading ignores shape and dtype."""
    source = like or {"shape": [None], "dtype": "float32"}
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": source.get("shape"), "dtype": source.get("dtype"),
                   "keras_history": [name, index, position]},
    }  # fmt: skip


def constant_tensor(value: Any) -> dict[str, Any]:
    """Return an array or a tensor that was an argument: a list would be several tensors."""
    return {"class_name": "__tensor__", "config": {"value": value}}


def is_tensor(value: Any) -> bool:
    """Return whether the value is a tensor of the model as Keras 3 stores it."""
    return isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__"


_WITH_STATES = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "CuDNNLSTM", "CuDNNGRU"}
    | {"ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
)


# Arguments of calls that have no effect if they are None, or None for each input.
_OPTIONAL = frozenset({"mask", "initial_state", "constants", "training"})


def is_none(value: Any) -> bool:
    """Return whether a mask, or another argument, is None or a list of None for each input."""
    return value is None or (isinstance(value, list) and all(map(is_none, value)))


def keras3_call(class_name: str, config: Config, call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Keras 2 call of a layer with the arguments of Keras 3.

    Keras 2 passes a list of sequence and initial states to recurrent layers, and takes ``causal``
    in the constructor of attention layers.
    """
    args, kwargs = list(call["args"]), dict(call["kwargs"])
    if class_name == "Lambda":
        return {"args": args, "kwargs": {}}
    # That of a class of the user is not one of Keras.
    name = "" if class_name == registered_name(class_name) else unqualified(class_name)
    count = (name in _WITH_STATES and config.get("num_constants")) or 0
    # Constants that are no tensors of the model are arguments of their own.
    takes_constants = name in ("RNN", "Bidirectional")
    if count and (not takes_constants or kwargs.get("constants") is not None):
        raise constants_error(str(config.get("name")))
    if name in _WITH_STATES and args and isinstance(args[0], list) and len(args[0]) > 1:
        sequence, *others = args[0]
        states, constants = others[: len(others) - count], others[len(others) - count :]
        args[0] = sequence
        if states:
            single = len(states) == 1 and name == "GRU"
            kwargs["initial_state"] = states[0] if single else states
        if constants:
            kwargs["constants"] = constants
    if name in ("Attention", "AdditiveAttention") and config.get("causal"):
        kwargs["use_causal_mask"] = True
    kwargs = {
        key: value for key, value in kwargs.items() if not (key in _OPTIONAL and is_none(value))
    }
    if kwargs.get("training") is not None and not is_tensor(kwargs["training"]):
        kwargs["training"] = bool(kwargs["training"])
    return {"args": args, "kwargs": kwargs}


def constants_error(name: str) -> UnsupportedModelError:
    """Return the error about a recurrent layer that is called with constants."""
    return Keras3ModelError(
        f"Layer {name!r} is called with constants, which edgeattn passes only to a single cell of "
        "an RNN, also inside Bidirectional.",
        hint="Change the cell so that it receives the constants as part of the sequence "
        "(RepeatVector, Concatenate), and save the model again.",
    )


def is_operation(item: Config, calls: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the item is an operation of Keras 3, such as ``x + y``, and not a layer.

    A ``.keras`` file stores its module. A ``.h5`` file does not, but operations are not trainable,
    and those that have the name of a layer have no ``dtype``.
    """
    module = item.get("module")
    if isinstance(module, str) and is_operation_module(module):
        return True
    if module is not None or not calls:
        return False
    config = item.get("config") or {}
    class_name = str(item.get("class_name"))
    if "trainable" in config or (class_name in LAYERS and "dtype" in config):
        return False
    return _operation_module(class_name) is not None


def operation(item: Config) -> dict[str, Any]:
    """Return the config of an operation with the module that defines it."""
    class_name = str(item["class_name"])
    if class_name == "Argpartition":
        raise UnsupportedModelError(
            f"{item.get('name') or 'The model'} is keras.ops.argpartition, which Keras computes "
            "with TensorFlow for a single row of integers only.",
            hint="Use keras.ops.argsort or keras.ops.top_k in its place.",
        )
    module = item.get("module") or _operation_module(class_name)
    config = dict(item.get("config") or {})
    if isinstance(config.get("output_size"), list):  # adaptive pooling accepts tuples only
        config["output_size"] = tuple(config["output_size"])
    # A class of the user may be registered under the name of the operation.
    return {"module": module, "class_name": class_name, "config": config,
            "registered_name": None}  # fmt: skip


def _operation_module(class_name: str) -> str | None:
    """Return the Keras module that defines an operation, None if there is none."""
    for module in ("numpy", "nn", "core", "math", "linalg", "image", "einops"):
        path = f"keras.src.ops.{module}"
        if isinstance(getattr(importlib.import_module(path), class_name, None), type):
            return path
    return None
