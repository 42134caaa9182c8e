"""Models of a user's function whose weights an older Keras saved: changes without a config."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgeattn.printable import keras_name
from edgeattn_converters.keras_classes import (
    creates_mask,
    derives_from,
    is_keras_class,
    operations_of,
)
from edgeattn_converters.loading.config_inspection import Config, registered_name
from edgeattn_converters.loading.eras import bilinear_positions
from edgeattn_converters.loading.eras.original_keras import OriginalKeras
from edgeattn_converters.loading.legacy.legacy_program import SIGMOID_BY_DEFAULT
from edgeattn_converters.loading.migrate.context import Context, era_of
from edgeattn_converters.loading.migrate.keras2 import HARD_SIGMOID_NOTE
from edgeattn_converters.loading.migrate.replaced_layers import (
    EMPTY_ROWS,
    MERGE_LAYERS,
    SOFTMAX,
    replacement,
)
from edgeattn_converters.loading.own_code import own_functions
from edgeattn_converters.loading.own_code.masks_of_classes import may_create_masks
from edgeattn_converters.loading.own_code.own_classes import is_own_class

# Layers that can pass on masks as in an older Keras after they are built.
_WITH_FORMER_MASKS = frozenset({"MultiHeadAttention", "Concatenate", *MERGE_LAYERS})
# Layers have computed the same since this version.
SAME_AS_CURRENT = (3, 10)
# The version of files that only the names of their groups show, which both of them write.
OF_GROUPS = (2, 16)


def era_notes(
    file: str, stored: Config, ctx: Context, undecided: Container[str] | None
) -> list[str]:
    """Return notes if the architecture is written by another Keras than the weights.

    ``undecided`` are layers as for :func:`default_notes`.
    """
    if ctx.era >= ctx.major:
        return []
    name = _saved_by(ctx.version, of_tensorflow=ctx.of_tensorflow)
    # Later versions are compared with tf_keras.
    end = ", which cannot be verified." if ctx.version < (2,) else "."
    built = f"the layers are built as in {name}{end}"
    note = f"{file} was saved by {name}: {built}"
    if undecided is None:
        note = (
            f"{file} was saved by {name} and the architecture is written for Keras {ctx.major}: "
            f"{built}"
        )
    return [note, *default_notes(stored, ctx.version, undecided)]


def _saved_by(version: tuple[int, ...], *, of_tensorflow: bool) -> str:
    if version == OF_GROUPS:
        return "Keras 2.15 or tf_keras"
    # As tf.keras wrote its version in files.
    suffix = "-tf" if of_tensorflow and version < (2, 4) else ""
    return keras_name(".".join(map(str, version)) + suffix)


def default_notes(
    stored: Any, version: tuple[int, ...], undecided: Container[str] | None = None
) -> list[str]:
    """Return a note on each layer that may rely on a default that has changed since ``version``.

    ``undecided`` are the layers of a program whose default is not known, None for all layers.
    """
    return [
        _default_note(str(config.get("name")), changed)
        for config, changed in _with_sigmoid_gates(stored)
        if version and version < changed and _is_undecided(str(config.get("name")), undecided)
    ]


def _is_undecided(name: str, undecided: Container[str] | None) -> bool:
    """Whether a layer is one of ``undecided``; Bidirectional calls it ``forward_name``."""
    return undecided is None or re.sub("^(forward|backward)_", "", name) in undecided


def _default_note(name: str, changed: tuple[int, ...], place: str = "the architecture") -> str:
    return (
        f"{name}: recurrent_activation is 'sigmoid', but its default was 'hard_sigmoid' before "
        f"Keras {'.'.join(map(str, changed))}. If the model was trained with the default, set it "
        f"in {place}."
    )


def _with_sigmoid_gates(stored: Any) -> Iterator[tuple[Config, tuple[int, ...]]]:
    """Layers with sigmoid gates, and the Keras since which those are the default."""
    if isinstance(stored, list):
        for item in stored:
            yield from _with_sigmoid_gates(item)
    if not isinstance(stored, Mapping):
        return
    config = stored.get("config")
    changed = SIGMOID_BY_DEFAULT.get(str(stored.get("class_name")))
    if isinstance(config, Mapping) and changed and config.get("recurrent_activation") == "sigmoid":
        yield config, changed
    for value in stored.values():
        yield from _with_sigmoid_gates(value)


def described(model: Any) -> dict[str, Any]:
    """Return names, classes and arguments of the layers of a built model as a stored config."""
    # A layer of the user may have an attribute "layers", too.
    layers = list(map(_described_layer, model.layers))
    config = {"name": model.name, "layers": layers, "input_layers": []}
    return {"class_name": "Functional", "name": model.name, "config": config}


def _described_layer(layer: Any) -> dict[str, Any]:
    import keras

    if isinstance(layer, keras.Model):
        return described(layer)
    config: dict[str, Any] = {}
    # What the user's layers inside others were created with need not be stored anywhere.
    if isinstance(layer, keras.layers.Wrapper):
        config = {"name": layer.name, "layer": _described_layer(layer.layer)}
    elif type(layer) is not keras.layers.RNN and not is_own_class(type(layer)):
        config = layer.get_config()
    class_name = type(layer).__name__
    if is_own_class(type(layer)) and not derives_from(layer, class_name):
        class_name = registered_name(class_name)  # that of Keras would show the layout of weights
    return {"class_name": class_name, "name": layer.name, "config": config}


def adapt(
    model: Any,
    original: OriginalKeras,
    undecided: Container[str] | None = None,
) -> tuple[str, ...]:
    """Let the layers of a built model compute as in ``original``, in place; return notes.

    Notes also list what cannot be changed in place, and layers of ``undecided``, see
    :func:`default_notes`.
    """
    import keras

    from edgeattn_converters.loading.migrate.legacy_upsampling import let_be_former
    from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

    version = original.version
    saved_by = _saved_by(version, of_tensorflow=original.of_tensorflow)
    layers = list(model._flatten_layers())
    classes = [type(layer) for layer in layers]
    has_own = any(is_own_class(cls) or cls.__name__ == "Lambda" for cls in classes)
    reason = "layers of your own" if has_own else "calls of TensorFlow with arrays"
    if not has_own and any(map(own_functions.has_own_activation, layers)):
        reason = "activations of your own"
    notes = [f"The weights were saved by {saved_by}, and the model has {reason}."]
    for layer in (*layers, *operations_of(model)):
        for name, value in list(vars(layer).items()):
            if value is keras.activations.hard_sigmoid and era_of(version) != 3:
                setattr(layer, name, hard_sigmoid_keras2)
                notes.append(HARD_SIGMOID_NOTE)
        if is_keras_class(layer, "HardSigmoid") and era_of(version) != 3:
            layer.call = hard_sigmoid_keras2
            notes.append(HARD_SIGMOID_NOTE)
    masked = any(creates_mask(layer) or may_create_masks(type(layer)) for layer in layers)
    ctx = Context(3, version, lambda _name: None, {}, lambda _name: [], masked)
    _let_softmaxes_be_former(layers, version)
    notes.extend(let_be_former(layers, bilinear_positions.of_saved(original)))
    for layer in layers:
        class_name = type(layer).__name__
        if _has_former_masks(layer):
            _let_masks_be_former(layer, ctx)
            continue
        if not derives_from(layer, class_name) and is_own_class(type(layer)):
            continue
        replaced = replacement(class_name, {"name": layer.name}, ctx)
        if replaced is not None and replaced[0] != SOFTMAX:  # that of an attention
            notes.append(f"{layer.name}: {class_name} treats masks as in Keras 3, not {saved_by}.")
        gates = getattr(layer, "recurrent_activation", None) is keras.activations.sigmoid
        changed = SIGMOID_BY_DEFAULT.get(class_name)
        if gates and changed and version < changed and _is_undecided(layer.name, undecided):
            notes.append(_default_note(layer.name, changed))
    notes.extend(ctx.notes)
    if has_own:
        notes.append(f"Your own layers compute with the current Keras, not with {saved_by}.")
    return tuple(dict.fromkeys(notes))


def adapt_inner(layers: Iterable[Any], ctx: Context) -> list[str]:
    """Let layers of Keras inside the user's compute as in the Keras of ``ctx``, in place.

    Returns notes on what was replaced and on defaults that have changed.
    """
    import keras

    from edgeattn_converters.loading.migrate.legacy_upsampling import let_be_former
    from edgeattn_converters.loading.migrate.registered_objects import hard_sigmoid_keras2

    layers = list(layers)
    _let_softmaxes_be_former(layers, ctx.version)
    notes = let_be_former(layers, ctx.positions)
    for layer in layers:
        class_name = type(layer).__name__
        if any(value is hard_sigmoid_keras2 for value in vars(layer).values()):
            notes.append(HARD_SIGMOID_NOTE)
        if _has_former_masks(layer):
            _let_masks_be_former(layer, ctx)
        gates = getattr(layer, "recurrent_activation", None) is keras.activations.sigmoid
        changed = SIGMOID_BY_DEFAULT.get(class_name)
        if gates and changed and ctx.version < changed:
            notes.append(_default_note(layer.name, changed, "your class"))
    return notes


def _let_softmaxes_be_former(layers: Sequence[Any], version: tuple[int, ...]) -> None:
    """Let built Softmax layers have the weights of ``version`` in rows that are masked throughout.

    That of a MultiHeadAttention is part of it.
    """
    import keras

    from edgeattn_converters.loading.migrate.legacy_mask_layers import LegacySoftmax

    if not version or version >= EMPTY_ROWS:
        return
    of_attention = {id(getattr(layer, "_softmax", None)) for layer in layers}
    for layer in layers:
        if type(layer) is keras.layers.Softmax and id(layer) not in of_attention:
            layer.__class__ = LegacySoftmax


def _has_former_masks(layer: Any) -> bool:
    import keras

    name = type(layer).__name__
    return name in _WITH_FORMER_MASKS and type(layer) is getattr(keras.layers, name)


def _let_masks_be_former(layer: Any, ctx: Context) -> None:
    """Let a built layer treat masks as in the Keras of ``ctx``; its weights have names already."""
    from edgeattn_converters.loading.migrate import legacy_mask_layers

    class_name = type(layer).__name__
    # With dropout, rows that are masked throughout differ, also those of a mask in the call.
    takes_mask = class_name == "MultiHeadAttention" and layer._dropout > 0
    replaced = replacement(class_name, {"name": layer.name}, ctx, takes_mask=takes_mask)
    if replaced is None:
        return
    if class_name == "MultiHeadAttention":
        layer.__class__ = legacy_mask_layers.LegacyMultiHeadAttention
        layer.masks = replaced[1]["masks"]
    elif class_name == "Concatenate":
        layer.__class__ = legacy_mask_layers.LegacyConcatenate
    else:
        layer.__class__, layer.operation = legacy_mask_layers.LegacyMerge, class_name
