"""The order of the states of ``StackedRNNCells``, those of the last cell first before Keras 2.2.3.

See ``StackedRNNCells.state_size`` in keras/layers/recurrent.py of Keras 2.2.2 and 2.2.3.
TensorFlow 1.9 to 1.12 call their Keras 2.1.6-tf; 1.11 is the first one with the states of the first
cell first.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.eras.original_keras import OriginalKeras

_OF_SEVERAL_TENSORFLOWS = (2, 1, 6)
_LAST_FIRST = (
    "initial and returned states are those of the last cell first, as in Keras before 2.2.3."
)
_UNKNOWN = (
    "the states of the first cell are first, as in TensorFlow 1.11. The file does not show whether "
    "TensorFlow 1.9 or 1.10 saved it, which have those of the last cell first; then the outputs "
    "are wrong: load the model there, and save it from a later TensorFlow."
)


def are_last_first(original: OriginalKeras) -> bool:
    """Return whether the states of the last cell are the first ones."""
    return original.is_before((2, 2, 3), _OF_SEVERAL_TENSORFLOWS)


def is_stack(layer: Any) -> bool:
    """Return whether a layer is recurrent and has several cells."""
    import keras

    cell = getattr(layer, "cell", None)
    is_recurrent = isinstance(layer, keras.layers.RNN)
    return is_recurrent and isinstance(cell, keras.layers.StackedRNNCells) and len(cell.cells) > 1


def has_states(node: Any) -> bool:
    """Return whether a call of a recurrent layer, a node of a model, has initial states."""
    arguments = node.arguments
    in_place = arguments.args[1] if len(arguments.args) > 1 else None
    return arguments.kwargs.get("initial_state", in_place) is not None


def let_be_former(layers: Iterable[Any], original: OriginalKeras) -> list[str]:
    """Let built layers with several cells have the order of their states of ``original``, in place.

    Returns notes on those that get or return states. Raises :class:`UnsupportedModelError` if such
    cells have states of several sizes.
    """
    notes = []
    is_unknown = original.of_tensorflow and original.version == _OF_SEVERAL_TENSORFLOWS
    for layer in filter(is_stack, layers):
        are_used = layer.return_state or any(map(has_states, layer._inbound_nodes))
        if is_unknown and are_used:
            notes.append(f"{layer.name}: {_UNKNOWN}")
        if not are_last_first(original):
            continue
        if are_used:
            _require_one_size(layer)
            notes.append(f"{layer.name}: {_LAST_FIRST}")
        layer.call = _call_of(layer)
    return notes


def _require_one_size(layer: Any) -> None:
    import keras

    sizes = keras.tree.flatten(layer.cell.state_size)
    if len(set(sizes)) > 1:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} has cells with states of the sizes {sizes}, which Keras before "
            "2.2.3 gets and returns in another order.",
            hint="Build the model in the current Keras, with the states of the first cell first, "
            "set its weights, and save it.",
        )


def _call_of(layer: Any) -> Callable[..., Any]:
    original = layer.call
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(*args: Any, **named: Any) -> Any:
        bound = signature.bind(*args, **named)
        if bound.arguments.get("initial_state") is not None:
            states = _in_present_order(layer.cell.cells, bound.arguments["initial_state"])
            bound.arguments["initial_state"] = states
        result = original(*bound.args, **bound.kwargs)
        if not layer.return_state:
            return result
        output, *states = result
        return (output, *states[::-1])

    return call


def _in_present_order(cells: Sequence[Any], states: Any) -> list[Any]:
    """Return the states of each cell, of which ``states`` has those of the last cell first."""
    import keras

    remaining = keras.tree.flatten(states)
    found: list[Any] = []
    for cell in cells[::-1]:
        count = len(keras.tree.flatten(cell.state_size))
        first, remaining = remaining[:count], remaining[count:]
        found.append(first if isinstance(cell.state_size, list | tuple) else first[0])
    return found[::-1]
