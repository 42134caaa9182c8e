"""Models of many recurrent layers and their conversions, for the tests of this folder.

A conversion takes a second or more, so a model has many layers, each with its own outputs. The
sizes of axes are different primes, so that no two can be exchanged unnoticed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.runners.onnx import ONNXRunner
from edgeattn.runners.tflite import TFLiteRunner
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

FEATURES, UNITS, ROWS = 3, 5, 11
# The layers of tf_keras are lowered by the same functions, after other conversions of the file.
KERAS = ("keras", pytest.param("tf_keras", marks=pytest.mark.long))
KINDS = ("LSTM", "GRU", "SimpleRNN")
SATURATION = 20.0

Tensors = dict[str, np.ndarray]


class Converted:
    """A Keras model and its artifacts in runners that reset no state between sequences."""

    def __init__(self, model: Any, folder: Path, formats: tuple[str, ...], **options: Any) -> None:
        self.model = model
        self.interface: Interface = interface_of(model)
        self.runners: dict[str, Any] = {}
        self.achieved: dict[str, dict[str, Any]] = {}
        self.paths: dict[str, Path] = {}
        for format in formats:
            path = folder / f"{model.name}.{format}"
            converter = importlib.import_module(f"edgeattn_converters.formats.{format}")
            inputs, outputs, _, self.achieved[format] = converter.convert(
                model,
                self.interface,
                recipe_for("float32"),
                path,
                options=ConversionOptions(**options),
            )
            self.paths[format] = path
            self.runners[format] = (
                TFLiteRunner(path, inputs, outputs, reset=False)
                if format == "tflite"
                else ONNXRunner(path, inputs, outputs)
            )

    def keras(self, tensors: Tensors) -> Tensors:
        """The outputs of ``model.predict`` by name."""
        inputs = [tensors[spec.name] for spec in self.interface.inputs]
        predicted = self.model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
        values = predicted if isinstance(predicted, list | tuple) else [predicted]
        names = [spec.name for spec in self.interface.outputs]
        return dict(zip(names, map(np.asarray, values), strict=True))

    def errors(self, tensors: Tensors) -> list[str]:
        """A line for each output of an artifact that differs from Keras.

        Saturated gates add hundreds of terms, whose rounding error is a hundred times larger.
        """
        expected = self.keras(tensors)
        errors = []
        for format, runner in self.runners.items():
            got = runner.run(tensors)
            for name, value in expected.items():
                atol = 1e-3 if "saturated" in name else 1e-5
                if not np.allclose(got[name], value, rtol=1e-4, atol=atol):
                    error = float(np.abs(got[name] - value).max())
                    rows = np.abs(got[name] - value).reshape(len(value), -1).max(axis=1) > atol
                    errors.append(f"{format} {name}: {error:.3g} in rows {np.flatnonzero(rows)}")
        return errors


def masks(time: int) -> np.ndarray:
    """(ROWS, time): all real; right, left and ragged padding; holes; and no real step."""
    steps = np.arange(time)
    rows = [np.ones(time, bool), np.zeros(time, bool)]
    rows += [steps < max(1, time // 2), steps < 1, steps < time - 1]
    rows += [steps >= time // 2, steps >= time - 1, steps >= 1]
    generator = np.random.default_rng(11)
    rows += list(generator.random((ROWS - len(rows) - 1, time)) < 0.5)
    rows.append((steps < 1) | (steps >= time - 1))
    return np.stack(rows)


def sequences(time: int, seed: int = 5) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((ROWS, time, FEATURES))
    return values.astype(np.float32)


def randomise(model: Any, seed: int = 7) -> Any:
    """Give every weight a random value, including biases, whose zeros would hide mistakes."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        scale = SATURATION if "saturated" in layer.name else 1.0
        weights = []
        for w in layer.get_weights():
            fan_in = w.size / max(w.shape[-1:] or (1,))
            weights.append(scale * generator.standard_normal(w.shape) / np.sqrt(fan_in + 1))
        layer.set_weights([w.astype(np.float32) for w in weights])
    return model


class Builder:
    """Builds a model of layers over one input, with named outputs."""

    def __init__(self, keras: Any, time: int, *, masked: bool) -> None:
        self.keras = keras
        self.layers = keras.layers
        self.x = keras.Input((time, FEATURES), name="x")
        self.mask = keras.Input((time,), dtype="bool", name="mask") if masked else None
        self.states = [keras.Input((UNITS,), name=name) for name in ("state_h", "state_c")]
        self.outputs: dict[str, Any] = {}

    def add(self, name: str, layer: Any, *, initial: list[Any] | None = None) -> None:
        options: dict[str, Any] = {}
        if self.mask is not None:
            options["mask"] = self.mask
        if initial is not None:
            options["initial_state"] = initial if len(initial) > 1 else initial[0]
        self.add_outputs(name, layer(self.x, **options))

    def add_outputs(self, name: str, result: Any) -> None:
        values = result if isinstance(result, list | tuple) else [result]
        for index, value in enumerate(values):
            # Outputs get the name of the layer that computes them: an identity.
            key = f"{name}_{index}"
            self.outputs[key] = self.layers.Activation("linear", name=key)(value)

    def build(self, name: str) -> Any:
        inputs = [self.x, *([] if self.mask is None else [self.mask]), *self.states]
        model = self.keras.Model(inputs, list(self.outputs.values()), name=name)
        return randomise(model)


def feed(converted: Converted, time: int, seed: int = 5) -> Tensors:
    generator = np.random.default_rng(seed + 1)
    tensors = {
        "x": sequences(time, seed),
        "mask": masks(time),
        "state_h": generator.standard_normal((ROWS, UNITS)).astype(np.float32),
        "state_c": generator.standard_normal((ROWS, UNITS)).astype(np.float32),
    }
    return {spec.name: tensors[spec.name] for spec in converted.interface.inputs}


def variants(keras: Any, kind: str) -> Iterator[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Name, class and options of every variant of a layer of this kind."""
    layer = getattr(keras.layers, kind)
    yield "last", layer, {}
    yield "sequences", layer, {"return_sequences": True}
    yield "backwards", layer, {"go_backwards": True}
    yield "backwards_sequences", layer, {"go_backwards": True, "return_sequences": True}
    yield "state", layer, {"return_state": True}
    yield "sequences_state", layer, {"return_sequences": True, "return_state": True}
    yield (
        "backwards_all",
        layer,
        {"return_sequences": True, "return_state": True, "go_backwards": True},
    )
    yield "saturated", layer, {"return_sequences": True, "return_state": True}
    yield "no_bias", layer, {"use_bias": False}
    if kind == "GRU":
        yield "reset_before", layer, {"reset_after": False, "return_sequences": True}
        yield "reset_before_no_bias", layer, {"reset_after": False, "use_bias": False}
        yield "saturated_reset_before", layer, {"reset_after": False}
