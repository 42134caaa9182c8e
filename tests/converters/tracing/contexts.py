"""A model of several contexts, each computed with weights of its own, and its file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from edgeattn.runners import open_runner
from edgeattn.tensors import Array, Tensors
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface

# By name, a context and the weights that it multiplies data with.
Cases = dict[str, tuple[Callable[[Any], Any], Callable[[Array], Array]]]


class Context(layers.Layer):  # type: ignore[misc]
    def __init__(self, context: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._context = context

    def call(self, x: Any) -> Any:
        return self._context(x)

    def compute_output_spec(self, x: Any) -> Any:
        shape = self._context(ops.zeros((1, *x.shape[1:]))).shape
        return keras.KerasTensor((x.shape[0], *shape[1:]))


def model_of(cases: Cases, shape: Iterable[int]) -> keras.Model:
    """A model whose layers have the names of the cases."""
    inputs = keras.Input(tuple(shape), name="x")
    contexts = [
        layers.Flatten()(Context(context, name=name)(inputs))
        for name, (context, _) in cases.items()
    ]
    return keras.Model(inputs, layers.Concatenate(name="y")(contexts))


def run(model: Any, interface: Interface, format: str, x: Array, path: Path) -> Tensors:
    """The outputs and maps of the float32 file."""
    converter = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(model, interface, recipe_for("float32"), path)
    return open_runner(path, format, file.inputs, file.outputs).run({"x": x})
