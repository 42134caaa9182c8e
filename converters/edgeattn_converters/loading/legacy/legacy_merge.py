"""``merge`` and ``Merge`` of Keras 1 in programs, also as the first layer of a Sequential."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.legacy.legacy_program import Program, generated_name
from edgeattn_converters.loading.migrate.removed_classes import merge_arguments

_BRANCHES = "_edgeattn_merge"
# What the module ``merge`` of Keras 2, whose name is that of the function, contains.
_OF_MODULE = (
    *("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract"),
    *("add", "average", "concatenate", "dot", "maximum", "minimum", "multiply", "subtract"),
)


class Merge:
    """The layer ``Merge`` of Keras 1: called with tensors, or the first layer of a Sequential."""

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        mode: Any = "sum",
        concat_axis: int = -1,
        dot_axes: Any = -1,
        output_shape: Any = None,
        output_mask: Any = None,
        arguments: Any = None,
        name: str | None = None,
        **_: Any,
    ) -> None:
        self.layers = [_as_model(layer) for layer in layers or ()]
        self.layers_of_branches = [_layers(branch) for branch in self.layers]
        self.mode, self.concat_axis, self.dot_axes = mode, concat_axis, dot_axes
        self.output_shape, self.arguments, self.name = output_shape, arguments, name

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """Merge tensors with the layer that replaced the mode."""
        import keras

        if callable(self.mode):
            shape = {} if self.output_shape is None else {"output_shape": self.output_shape}
            layer = keras.layers.Lambda(
                self.mode, arguments=self.arguments, name=self.name, **shape
            )
            return layer(inputs)
        if self.mode == "cos" and len(inputs[0].shape) > 2:
            raise UnsupportedModelError(
                f"Merge(mode='cos') of tensors with {len(inputs[0].shape)} axes: Keras 1 does not "
                "compute their cosine.",
                hint="Merge tensors of shape (samples, features), or pass mode='dot'.",
            )
        class_name, arguments = merge_arguments(self.config())
        named = {} if self.name is None else {"name": self.name}
        merged = getattr(keras.layers, class_name)(**arguments, **named)(inputs)
        if self.mode == "cos":  # with an additional axis
            merged = keras.layers.Reshape((1, *merged.shape[1:]))(merged)
        return merged

    def config(self) -> dict[str, Any]:
        """The stored form, without the branches."""
        return {
            "name": self.name or generated_name("merge"),
            "mode": self.mode,
            "concat_axis": self.concat_axis,
            "dot_axes": self.dot_axes,
        }


def functions(program: Program) -> dict[str, Callable[..., Any]]:
    """Return ``merge`` and ``Merge`` for a program.

    ``merge`` has the attributes of the module of that name in Keras 2.
    """
    import keras

    def create(*arguments: Any, **named: Any) -> Merge:
        program.is_keras_1 = True
        return Merge(*arguments, **named)

    def merge(inputs: Sequence[Any], *arguments: Any, **named: Any) -> Any:
        return create(None, *arguments, **named)(inputs)

    vars(merge).update({name: getattr(keras.layers, name) for name in _OF_MODULE})
    vars(merge)["_Merge"] = keras.layers.Add.__base__
    return {"merge": merge, "Merge": create}


def adding(add: Callable[..., None]) -> Callable[..., None]:
    """Return ``Sequential.add`` that accepts a Merge of other models as the first layer."""

    def with_merge(model: Any, layer: Any, *arguments: Any, **named: Any) -> None:
        import keras

        if not isinstance(layer, Merge):
            _require_layer(layer)
            add(model, layer, *arguments, **named)
            return
        if _layers(model) or not layer.layers:
            raise ValueError("Merge in a Sequential must be the first layer, with its branches.")
        _require_unchanged(layer)
        merged_tensor = layer([_output(branch) for branch in layer.layers])
        setattr(model, _BRANCHES, layer)
        inputs = keras.layers.InputLayer(batch_shape=merged_tensor.shape, dtype=merged_tensor.dtype)
        add(model, inputs, *arguments, **named)

    return with_merge


def merged(model: Any) -> Merge | None:
    """Return the Merge that the first layer of a Sequential is, if there is one."""
    found: Merge | None = getattr(model, _BRANCHES, None)
    return found


def parts(model: Any) -> list[Any]:
    """Return the layers of a model, and of those that its first layer merges."""
    first = merged(model)
    branches = first.layers if first else ()
    return [*model._flatten_layers(), *(part for branch in branches for part in parts(branch))]


def has_function(model: Any) -> bool:
    """Return whether a Merge of a Sequential, or of its branches, has a function as its mode."""
    first = merged(model)
    return first is not None and (
        callable(first.mode) or any(has_function(branch) for branch in first.layers)
    )


def stored(model: Any) -> dict[str, Any]:
    """Return the config of a model; a Merge contains its branches, as Keras 1 stores it.

    Branches that start with the same layer have the same input, as in Keras 1.
    """
    return _stored(model, {})


def _stored(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the config; ``inputs`` are the input layers of branches by their first layer."""
    config: dict[str, Any] = json.loads(model.to_json())
    first = merged(model)
    if first is not None:
        _require_unchanged(first)
        branches = [_stored(branch, inputs) for branch in first.layers]
        for branch in branches:
            layers = branch["config"]["layers"]
            if len(layers) > 1 and layers[0]["class_name"] == "InputLayer":
                layers[0] = inputs.setdefault(layers[1]["config"]["name"], layers[0])
        item = {"class_name": "Merge", "config": {**first.config(), "layers": branches}}
        config["config"]["layers"] = [item, *config["config"]["layers"][1:]]
    return config


def _as_model(layer: Any) -> Any:
    """Return a branch of a Merge as a model: Keras 1 accepts layers with an input shape, too."""
    import keras

    return layer if isinstance(layer, keras.Model) else keras.Sequential([layer])


def _layers(model: Any) -> list[Any]:
    """Return the layers of a model, its input layers included."""
    return list(model._flatten_layers(include_self=False, recursive=False))


def _output(branch: Any) -> Any:
    """Return the output of a branch. In Keras 3, a Sequential with only an input has none."""
    layers = _layers(branch)
    return layers[0].output if len(layers) == 1 else branch.outputs[0]


def _require_unchanged(merge: Merge) -> None:
    """Raise UsageError if layers were added to a branch after the Merge: it has none of them."""
    for branch, layers in zip(merge.layers, merge.layers_of_branches, strict=True):
        if _layers(branch) != layers:
            raise UsageError(
                f"Layers were added to {branch.name!r} after it was merged. Keras 1 does not "
                "compute them.",
                hint="Add the layers of a branch before Merge.",
            )


def _require_layer(layer: Any) -> None:
    """Raise UsageError for a layer that is a Sequential that starts with a Merge."""
    if merged(layer) is not None:
        raise UsageError(
            f"{layer.name!r} starts with Merge and is a layer of another Sequential.",
            hint=f"Add the other layers to {layer.name!r} itself.",
        )
