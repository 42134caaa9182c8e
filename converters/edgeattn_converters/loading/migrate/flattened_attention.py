"""A chain of layers that was a graph: the package ``attention`` within a Sequential.

Up to 3.0, and later in debug mode, calling its layer made ordinary layers. A Sequential kept them
in the order of their depth, without who calls whom. Their names are fixed, and so is the graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.migrate.config_summary import input_of
from edgeattn_converters.loading.migrate.context import Config

_STATES = "what the layer was called with"
_LAST = "last_hidden_state"
_END = "attention_vector"
# Which parts each part is called with; of several ways, the one whose parts are there.
_CALLED_WITH: Mapping[str, Sequence[tuple[str, ...]]] = {
    _LAST: [(_STATES,)],
    "attention_score_vec": [(_STATES,)],
    "luong_w": [(_STATES,)],
    "attention_score": [(_LAST, "attention_score_vec"), (_LAST, "luong_w")],
    "bahdanau_w1": [(_LAST,)],
    "repeat_vector": [("bahdanau_w1",)],
    "bahdanau_w2": [(_STATES,)],
    "add": [("repeat_vector", "bahdanau_w2")],
    "bahdanau_tanh": [("add",)],
    "bahdanau_v": [("bahdanau_tanh",)],
    "tf.compat.v1.squeeze": [("bahdanau_v",)],
    "attention_weight": [("attention_score",), ("tf.compat.v1.squeeze",)],
    "context_vector": [(_STATES, "attention_weight")],
    "attention_output": [("context_vector", _LAST)],
    _END: [("attention_output",)],
}
_ALWAYS = (_LAST, "attention_weight", "context_vector", "attention_output", _END)


def holds_attention(stored: Config) -> bool:
    """Whether the model is a chain that holds the parts of such an attention."""
    config = stored.get("config")
    if stored.get("class_name") != "Sequential" or not isinstance(config, Mapping):
        return False
    return set(_ALWAYS) <= {_name(item) for item in config.get("layers") or ()}


def as_graph(stored: Config) -> dict[str, Any]:
    """The chain with its calls. Requires a model that :func:`holds_attention`.

    Raises:
        UnsupportedModelError: parts that are missing, or not where they belong.
    """
    items = list(stored["config"]["layers"])
    items = [*input_of(items[0]), *items] if items[0]["class_name"] != "InputLayer" else items
    names = [_name(item) for item in items]
    start = next(index for index, name in enumerate(names) if _part(name) in _CALLED_WITH)
    end = names.index(_END) + 1
    inside = {_part(name): name for name in names[start:end]}
    if start == 0 or len(inside) != end - start:
        raise _unknown(names)
    layers = []
    for index, item in enumerate(items):
        sources = [names[index - 1]] if index else []
        if start <= index < end:
            inside[_STATES] = names[start - 1]
            sources = [inside[part] for part in _sources(item, inside)]
        layers.append({**item, "name": names[index], "inbound_nodes": _calls(item, sources)})
    return {
        "class_name": "Functional",
        "config": {"name": stored["config"].get("name"), "layers": layers,
                   "input_layers": [[names[0], 0, 0]], "output_layers": [[names[-1], 0, 0]]},
    }  # fmt: skip


def _name(item: Config) -> str:
    config = item.get("config")
    return str(config.get("name")) if isinstance(config, Mapping) else ""


def _part(name: str) -> str:
    """Keras numbers the layers that were given no name: ``repeat_vector_1``."""
    return name if name in _CALLED_WITH else re.sub(r"_\d+$", "", name)


def _sources(item: Config, inside: Mapping[str, str]) -> Sequence[str]:
    for parts in _CALLED_WITH.get(_part(_name(item)), ()):
        if all(part in inside for part in parts):
            # The query has no time axis: axes (2, 1) say that it came second.
            return parts[::-1] if item["config"].get("axes") == [2, 1] else parts
    raise _unknown([_name(item)])


def _calls(item: Config, sources: Sequence[str]) -> list[Any]:
    if not sources:
        return []
    arguments = {"axis": [-1]} if item["class_name"] == "TFOpLambda" else {}
    call = [[source, 0, 0, arguments] for source in sources]
    return call if item["class_name"] == "TFOpLambda" else [call]


def _unknown(names: Sequence[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        "the parts of an attention stand in this Sequential in an order that is not known here: "
        f"{', '.join(names)}",
        hint="Rebuild the model with the functional API and load its weights.",
    )
