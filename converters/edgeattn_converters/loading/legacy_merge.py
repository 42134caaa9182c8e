"""``merge`` and ``Merge`` of Keras 1 in programs, also as the first layer of a Sequential."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from edgeattn_converters.loading.legacy_program import Program, generated_name
from edgeattn_converters.loading.migrate.removed_classes import merge_arguments

_BRANCHES = "_edgeattn_merge"


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
        self.layers = list(layers or ())
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
    """Return ``merge`` and ``Merge`` for a program."""

    def create(*arguments: Any, **named: Any) -> Merge:
        program.is_keras_1 = True
        return Merge(*arguments, **named)

    def merge(inputs: Sequence[Any], *arguments: Any, **named: Any) -> Any:
        return create(None, *arguments, **named)(inputs)

    return {"merge": merge, "Merge": create}


def adding(add: Callable[..., None]) -> Callable[..., None]:
    """Return ``Sequential.add`` that accepts a Merge of other models as the first layer."""

    def with_merge(model: Any, layer: Any, *arguments: Any, **named: Any) -> None:
        import keras

        if not isinstance(layer, Merge):
            add(model, layer, *arguments, **named)
            return
        if model.layers or not layer.layers:
            raise ValueError("Merge in a Sequential must be the first layer, with its branches.")
        shape = layer([branch.outputs[0] for branch in layer.layers]).shape
        setattr(model, _BRANCHES, layer)
        add(model, keras.layers.InputLayer(batch_shape=shape), *arguments, **named)

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


def stored(model: Any) -> dict[str, Any]:
    """Return the config of a model; a Merge contains its branches, as Keras 1 stores it."""
    config: dict[str, Any] = json.loads(model.to_json())
    first = merged(model)
    if first is not None:
        branches = [stored(branch) for branch in first.layers]
        item = {"class_name": "Merge", "config": {**first.config(), "layers": branches}}
        config["config"]["layers"] = [item, *config["config"]["layers"][1:]]
    return config
