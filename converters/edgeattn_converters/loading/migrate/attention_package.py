"""Models of the PyPI package ``attention``, read as :class:`edgeattn.layers.Attention`.

From 4.1 the package has a layer class ``Attention``, the name of Keras' own layer. Up to 3.0, and
later in debug mode, calling its layer creates ordinary Keras layers instead. The package ignores
masks, and so does the layer that replaces it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.config_inspection import Config, unqualified
from edgeattn_converters.loading.migrate.input_layers import input_layer

REGISTERED = "edgeattn>Attention"
# Attributes of edgeattn's layer for the inner layers of version 4.
ATTRIBUTES = {"attention_score_vec": "luong_w", "attention_vector": "w_c"}
_LAYER_ARGUMENTS = frozenset(
    {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "dynamic"}
)


def is_package_layer(class_name: str, config: Config) -> bool:
    """Return whether the layer is that of the package: ``units``, maybe ``score``, nothing else.

    Keras' own Attention has ``use_scale`` and no ``units``.
    """
    arguments = set(config) - _LAYER_ARGUMENTS
    return (
        unqualified(class_name) == "Attention"
        and arguments in ({"units"}, {"units", "score"})
        and config.get("score", "luong") in ("luong", "bahdanau")
    )


def edgeattn_config(config: Config) -> dict[str, Any]:
    """Return the config of the edgeattn layer that computes the same."""
    return {
        "name": config.get("name", "attention"),
        "trainable": config.get("trainable", True),
        "units": config["units"],
        "score": config.get("score", "luong"),
        "use_mask": False,
    }


# A Sequential stores the expanded layers in the order of their depth, without their connections.
# The names are fixed, and with them the connections.
_INPUTS = "inputs of the layer"
_QUERY = "last_hidden_state"
_OUTPUT = "attention_vector"
# The inputs of each expanded layer; of several alternatives, the one whose layers exist.
_CONNECTIONS: Mapping[str, Sequence[tuple[str, ...]]] = {
    _QUERY: [(_INPUTS,)],
    "attention_score_vec": [(_INPUTS,)],
    "luong_w": [(_INPUTS,)],
    "attention_score": [(_QUERY, "attention_score_vec"), (_QUERY, "luong_w")],
    "bahdanau_w1": [(_QUERY,)],
    "repeat_vector": [("bahdanau_w1",)],
    "bahdanau_w2": [(_INPUTS,)],
    "add": [("repeat_vector", "bahdanau_w2")],
    "bahdanau_tanh": [("add",)],
    "bahdanau_v": [("bahdanau_tanh",)],
    "tf.compat.v1.squeeze": [("bahdanau_v",)],
    "attention_weight": [("attention_score",), ("tf.compat.v1.squeeze",)],
    "context_vector": [(_INPUTS, "attention_weight")],
    "attention_output": [("context_vector", _QUERY)],
    _OUTPUT: [("attention_output",)],
}
_ALWAYS_PRESENT = {_QUERY, "attention_weight", "context_vector", "attention_output", _OUTPUT}


def is_expanded_in_sequential(stored: Config) -> bool:
    """Return whether a Sequential contains the expanded layers of the package."""
    config = stored.get("config")
    if stored.get("class_name") != "Sequential" or not isinstance(config, Mapping):
        return False
    return {_name(item) for item in config.get("layers") or ()} >= _ALWAYS_PRESENT


def as_functional(stored: Config) -> dict[str, Any]:
    """Return the Sequential as a functional model, with the connections of the expanded layers.

    Raises :class:`UnsupportedModelError` if expanded layers are missing or in an unknown order.
    """
    items = list(stored["config"]["layers"])
    items = [*input_layer(items[0]), *items] if items[0]["class_name"] != "InputLayer" else items
    names = [_name(item) for item in items]
    start = next(index for index, name in enumerate(names) if _role(name) in _CONNECTIONS)
    end = names.index(_OUTPUT) + 1
    by_role = {_role(name): name for name in names[start:end]}
    if start == 0 or len(by_role) != end - start:
        raise _unknown_layout(names)
    by_role[_INPUTS] = names[start - 1]
    layers = []
    for index, item in enumerate(items):
        sources = [names[index - 1]] if index else []
        if start <= index < end:
            sources = [by_role[role] for role in _source_roles(item, by_role)]
        layers.append({**item, "name": names[index], "inbound_nodes": _inbound(item, sources)})
    return {
        "class_name": "Functional",
        "config": {"name": stored["config"].get("name"), "layers": layers,
                   "input_layers": [[names[0], 0, 0]], "output_layers": [[names[-1], 0, 0]]},
    }  # fmt: skip


def _name(item: Config) -> str:
    config = item.get("config")
    return str(config.get("name")) if isinstance(config, Mapping) else ""


def _role(name: str) -> str:
    """Return the name without the number that Keras appends: ``repeat_vector_1``."""
    return name if name in _CONNECTIONS else re.sub(r"_\d+$", "", name)


def _source_roles(item: Config, by_role: Mapping[str, str]) -> Sequence[str]:
    for roles in _CONNECTIONS.get(_role(_name(item)), ()):
        if all(role in by_role for role in roles):
            # The query has no time axis, so axes (2, 1) mean that it is the second input.
            return roles[::-1] if item["config"].get("axes") == [2, 1] else roles
    raise _unknown_layout([_name(item)])


def _inbound(item: Config, sources: Sequence[str]) -> list[Any]:
    if not sources:
        return []
    arguments = {"axis": [-1]} if item["class_name"] == "TFOpLambda" else {}
    call = [[source, 0, 0, arguments] for source in sources]
    return call if item["class_name"] == "TFOpLambda" else [call]


def _unknown_layout(names: Sequence[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        "The Sequential contains layers of the package 'attention' in an unknown order: "
        f"{', '.join(names)}.",
        hint="Rebuild the model with the functional API and load its weights.",
    )
