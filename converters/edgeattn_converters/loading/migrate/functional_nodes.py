"""Who calls what with what: the nodes of a functional model, in the form of Keras 3.

Older eras count the calls of a model inside a model from 1, Keras 3 from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.migrate.context import Config

CONSTANT = "_CONSTANT_VALUE"


@dataclass(frozen=True)
class Table:
    """The names in one functional model, and how its era counts."""

    names: Mapping[str, str]
    models: Mapping[str, str]
    era: int

    @classmethod
    def of(
        cls, layers: Sequence[Config], *, names: Callable[[str], str], models: Mapping[str, str],
        era: int,
    ) -> Table:  # fmt: skip
        """The table of a model's layers. Refuses two layers that would get one name."""
        table: dict[str, str] = {}
        for item in layers:
            name = item.get("name") or (item.get("config") or {}).get("name")
            if not isinstance(name, str) or names(name) in table.values():
                raise UnsupportedModelError(
                    f"expected every layer to have a name of its own, got {name!r} again",
                    hint="Give the layers names of their own and save the model again.",
                )
            table[name] = names(name)
        return cls(table, models, era)

    def calls(self, stored: Sequence[Any]) -> list[dict[str, Any]]:
        """The calls of one layer: ``{"args": [...], "kwargs": {...}}`` each."""
        calls = [
            self._modern(node) if isinstance(node, Mapping) and "args" in node else self._old(node)
            for node in stored
        ]
        return [call for call in calls if call["args"] or call["kwargs"]]

    def ends(self, stored: Any) -> Any:
        """Input or output layers, as the constructor of a Functional wants them."""
        if isinstance(stored, Mapping):
            return {key: self.ends(value) for key, value in stored.items()}
        if _is_reference(stored):
            name, index, position = stored[:3]
            # Keras 3 takes one off for a graph by itself.
            chain = self.models.get(name) == "chain" and self.era < 3
            return [self._name(name), index - 1 if chain else index, position]
        ends = [self.ends(item) for item in stored]
        return ends[0] if self.era < 3 and len(ends) == 1 else ends

    def _name(self, name: str) -> str:
        if name not in self.names:
            raise UnsupportedModelError(
                f"the model's graph uses a layer {name!r} that is not in it",
                hint="The file is damaged; save the model again.",
            )
        return self.names[name]

    def _modern(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """A call of Keras 3, with names made safe."""
        return {"args": self._renamed(node["args"]), "kwargs": self._renamed(node["kwargs"])}

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if value.get("class_name") == "__keras_tensor__":
            name, index, position = value["config"]["keras_history"]
            return tensor(self._name(name), index, position, like=value["config"])
        return {key: self._renamed(item) for key, item in value.items()}

    def _old(self, node: Any) -> dict[str, Any]:
        """A call of Keras 1 or 2: references, the last part of each its keyword arguments."""
        if isinstance(node, Mapping):
            merged: dict[str, Any] = {}
            named = {key: self._argument(item, merged) for key, item in node.items()}
            return {"args": [named], "kwargs": merged}
        if not isinstance(node, list):
            raise UnsupportedModelError(
                f"expected a call in the model's graph to be a list, got {node!r:.80}",
                hint="The file is damaged; save the model again.",
            )
        kwargs: dict[str, Any] = {}
        if _is_reference(node):
            node = [node]
        args = [self._argument(item, kwargs) for item in node]
        return {"args": [args[0] if len(args) == 1 else args], "kwargs": kwargs}

    def _argument(self, item: Any, kwargs: dict[str, Any]) -> Any:
        if not _is_reference(item):
            if isinstance(item, Mapping):
                return {key: self._argument(value, kwargs) for key, value in item.items()}
            return [self._argument(value, kwargs) for value in item]
        if len(item) > 3 and isinstance(item[3], Mapping):
            kwargs.update({key: self._keyword(value) for key, value in item[3].items()})
        return self._tensor(item)

    def _keyword(self, value: Any) -> Any:
        """A keyword argument: a tensor of the graph where it names a layer, else a value."""
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


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def tensor(name: str, index: int, position: int, *, like: Config | None = None) -> dict[str, Any]:
    """A tensor of the graph as Keras 3 writes it. Shape and dtype are not read when loading."""
    about = like or {"shape": [None], "dtype": "float32"}
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": about.get("shape"), "dtype": about.get("dtype"),
                   "keras_history": [name, index, position]},
    }  # fmt: skip


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of the graph."""
    return isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__"


def keras3_call(class_name: str, config: Config, call: Mapping[str, Any]) -> dict[str, Any]:
    """A Keras-2 call of a layer, with its arguments where Keras 3 wants them.

    Recurrent layers were called with a list of the sequence and the initial states; causal
    attention was a matter of the constructor.
    """
    args, kwargs = list(call["args"]), dict(call["kwargs"])
    if class_name == "Lambda":
        return {"args": args, "kwargs": {}}
    bare = class_name.rsplit(">", 1)[-1]
    if bare in _WITH_STATES and args and isinstance(args[0], list) and len(args[0]) > 1:
        sequence, *states = args[0]
        args[0] = sequence
        kwargs["initial_state"] = states[0] if len(states) == 1 and bare == "GRU" else states
    if bare in ("Attention", "AdditiveAttention") and config.get("causal"):
        kwargs["use_causal_mask"] = True
    kwargs = {
        key: value
        for key, value in kwargs.items()
        if not (value is None and key in ("mask", "initial_state", "constants", "training"))
    }
    if kwargs.get("training") is not None and not is_tensor(kwargs["training"]):
        kwargs["training"] = bool(kwargs["training"])
    return {"args": args, "kwargs": kwargs}


_WITH_STATES = frozenset(
    {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "CuDNNLSTM", "CuDNNGRU", "ConvLSTM2D"}
)

# Operations of Keras 3 that a ``.h5`` stores like the layers of the same names.
_OPERATIONS = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum",
               "Minimum": "Minimum", "Dot": "Dot", "Average": "Average",
               "Concatenate": "Concatenate"}  # fmt: skip


def is_operation_call(item: Config, calls: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is an operation such as ``x + y`` of Keras 3, not a layer.

    A ``.keras`` file says so by its module. A ``.h5`` does not, but operations have no ``dtype``.
    """
    from edgeattn_converters.loading.safety.allowed_classes import LAYERS, is_operation_module

    module = item.get("module")
    if isinstance(module, str) and is_operation_module(module):
        return True
    if module is not None or not calls:
        return False
    config = item.get("config") or {}
    bare = set(config) - {"axis"} <= {"name"} if item.get("class_name") in _OPERATIONS else False
    unknown = item.get("class_name") not in LAYERS and "dtype" not in config
    return (bare or unknown) and "dtype" not in config and "trainable" not in config and (
        item.get("class_name") in _OPERATIONS or _operation_module(str(item["class_name"]))
        is not None
    )  # fmt: skip


def operation(item: Config) -> dict[str, Any]:
    """The operation's config with the module it is found in."""
    class_name = str(item["class_name"])
    module = item.get("module") or _operation_module(class_name)
    return {"module": module, "class_name": class_name, "config": item.get("config") or {},
            "registered_name": class_name}  # fmt: skip


def _operation_module(class_name: str) -> str | None:
    """Where Keras keeps the operation of that name, if it has it."""
    import importlib

    for module in ("numpy", "nn", "core", "math", "linalg"):
        found = getattr(importlib.import_module(f"keras.src.ops.{module}"), class_name, None)
        if isinstance(found, type):
            return f"keras.src.ops.{module}"
    return None
