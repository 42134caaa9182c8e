"""Layers that a model calls with ``training=True``, as in Monte Carlo dropout.

``predict`` of Keras 3 overrides this argument, and so does a conversion; calling the model and
``predict`` of Keras 2 do not.
"""

from typing import Any

_RATES = ("rate", "stddev", "dropout", "recurrent_dropout", "_dropout")
_COMPARED = (
    "The artifacts compute, and are compared with, the model in inference mode, as predict of "
    "Keras 3."
)


def training_notes(model: Any) -> tuple[str, ...]:
    """Return a note on each layer that computes something else in training mode."""
    notes = []
    for layer in model._flatten_layers(include_self=False):
        if not any(
            node.arguments.kwargs.get("training") is True
            for node in getattr(layer, "_inbound_nodes", ())
        ):
            continue
        inner = layer._flatten_layers()
        if any(map(_is_random, inner)):
            notes.append(
                f"{layer.name}: called with training=True, so the model's own outputs are random "
                f"(Keras' model(x), and predict of Keras 2). {_COMPARED}"
            )
        elif any(type(item).__name__ == "BatchNormalization" for item in inner):
            notes.append(
                f"{layer.name}: called with training=True, so the model's own outputs depend on "
                f"the other samples of a batch (Keras' model(x), and predict of Keras 2). "
                f"{_COMPARED}"
            )
    return tuple(notes)


def _is_random(layer: Any) -> bool:
    """Return whether a layer draws random numbers in training mode."""
    import keras

    values = [getattr(layer, name, None) for name in _RATES]
    if any(isinstance(value, int | float) and value > 0 for value in values):
        return True
    cell = hasattr(layer, "recurrent_dropout") or hasattr(layer, "cell")
    generators = any(isinstance(v, keras.random.SeedGenerator) for v in vars(layer).values())
    return generators and not cell and not hasattr(layer, "rate")
