"""Models of a user's function whose weights an older Keras saved: changes without a config."""

from collections.abc import Iterator, Mapping
from typing import Any

from edgeattn_converters.loading.config_inspection import Config
from edgeattn_converters.loading.custom_objects import is_own_class
from edgeattn_converters.loading.migrate.context import Context, era_of
from edgeattn_converters.loading.migrate.keras2 import HARD_SIGMOID_NOTE, legacy_layer

# Layers have computed the same since this version.
SAME_AS_CURRENT = (3, 10)
# Keras 2.3 changed the default from hard_sigmoid.
_SIGMOID_BY_DEFAULT = (2, 3)
_GATED = ("LSTM", "GRU", "LSTMCell", "GRUCell")


def default_notes(stored: Any, version: tuple[int, ...]) -> list[str]:
    """Return a note on each layer that may rely on a default that has changed since ``version``."""
    if not version or version >= _SIGMOID_BY_DEFAULT:
        return []
    return [_default_note(str(config.get("name"))) for config in _with_sigmoid_gates(stored)]


def _default_note(name: str) -> str:
    return (
        f"{name}: recurrent_activation is 'sigmoid', but its default was 'hard_sigmoid' before "
        "Keras 2.3. If the model was trained with the default, set it in the architecture."
    )


def _with_sigmoid_gates(stored: Any) -> Iterator[Config]:
    if isinstance(stored, list):
        for item in stored:
            yield from _with_sigmoid_gates(item)
    if not isinstance(stored, Mapping):
        return
    config = stored.get("config")
    gated = stored.get("class_name") in _GATED
    if isinstance(config, Mapping) and gated and config["recurrent_activation"] == "sigmoid":
        yield config
    for value in stored.values():
        yield from _with_sigmoid_gates(value)


def described(model: Any) -> dict[str, Any]:
    """Return names, classes and arguments of the layers of a built model as a stored config."""
    layers = [described(layer) if hasattr(layer, "layers") else _described_layer(layer)
              for layer in model.layers]  # fmt: skip
    config = {"name": model.name, "layers": layers, "input_layers": []}
    return {"class_name": "Functional", "name": model.name, "config": config}


def _described_layer(layer: Any) -> dict[str, Any]:
    config = {}
    if not is_own_class(type(layer)):
        config = layer.get_config()
    return {"class_name": type(layer).__name__, "name": layer.name, "config": config}


def adapt(model: Any, version: tuple[int, ...]) -> tuple[str, ...]:
    """Let the layers of a built model compute as in Keras ``version``, in place; return notes.

    Notes also list what cannot be changed in place.
    """
    import keras

    from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

    text = ".".join(map(str, version))
    layers = list(model._flatten_layers())
    notes = [f"The weights were saved by Keras {text}, and the model has layers of your own."]
    for layer in (*layers, *getattr(model, "operations", ())):
        for name, value in list(vars(layer).items()):
            if value is keras.activations.hard_sigmoid and era_of(version) != 3:
                setattr(layer, name, hard_sigmoid_keras2)
                notes.append(HARD_SIGMOID_NOTE)
        if type(layer).__name__ == "HardSigmoid" and era_of(version) != 3:
            layer.call = hard_sigmoid_keras2
            notes.append(HARD_SIGMOID_NOTE)
    masked = any(getattr(layer, "mask_zero", False) for layer in layers) or any(
        type(layer).__name__ == "Masking" for layer in layers
    )
    ctx = Context(3, version, lambda _name: None, {}, lambda _name: [], masked)
    for layer in layers:
        class_name = type(layer).__name__
        if legacy_layer(class_name, {"name": layer.name}, ctx) is not None:
            notes.append(f"{layer.name}: {class_name} treats masks as in Keras 3, not {text}.")
        gates = getattr(layer, "recurrent_activation", None) is keras.activations.sigmoid
        if gates and class_name in _GATED and version < _SIGMOID_BY_DEFAULT:
            notes.append(_default_note(layer.name))
    notes.append(f"Your own layers compute with the current Keras, not with Keras {text}.")
    return tuple(dict.fromkeys(notes))
