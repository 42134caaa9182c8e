"""Shapes of Bidirectional layers whose two layers have different sizes."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from edgeattn_converters.loading.legacy import layer_shapes


@contextlib.contextmanager
def shapes_of_both_directions() -> Iterator[None]:
    """Let ``Bidirectional`` infer its shapes from both layers.

    Keras 3 computes with both layers, but takes the shape of the backward layer to be that of the
    forward layer, so that it builds the next layer with a wrong number of features.
    """
    import keras

    output_shape = layer_shapes.as_in_context(_output_shape)
    with mock.patch.object(keras.layers.Bidirectional, "compute_output_shape", output_shape):
        yield


def _output_shape(layer: Any, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
    """The shapes of the output, or of both, and of the states; the states have no effect."""
    del initial_state_shape
    both = [layer.forward_layer, layer.backward_layer]
    shapes = [one.compute_output_shape(sequences_shape) for one in both]
    states: tuple[Any, ...] = ()
    if layer.return_state:
        states = tuple(state for _, *rest in shapes for state in rest)
        shapes = [output for output, *_ in shapes]
    forward, backward = map(tuple, shapes)
    if layer.merge_mode is None:
        return (forward, backward, *states)
    if layer.merge_mode == "concat":
        forward = (*forward[:-1], forward[-1] + backward[-1])
    return (forward, *states) if states else forward


def without_shapes_inside(config: Any) -> Any:
    """Return a config without the shapes for which Keras builds layers inside Bidirectional.

    Keras creates three such layers, of which it keeps two, and builds each at once if it has a
    shape. Without them, Bidirectional builds the two.
    """
    return _without_shapes(config, inside=False)


def _without_shapes(value: Any, *, inside: bool) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_without_shapes(item, inside=inside) for item in value)
    if not isinstance(value, Mapping):
        return value
    within = inside or value.get("class_name") == "Bidirectional"
    return {
        key: _without_shapes(item, inside=within)
        for key, item in value.items()
        if not (inside and key == "build_config")
    }
