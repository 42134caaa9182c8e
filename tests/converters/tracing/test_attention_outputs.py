"""Attention that no layer calls by that name: found in the graph, told by both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import attentive
import models
from attentive import FOUND, KERAS, OTHERS, T
from edgeattn.errors import ConversionError, UsageError
from edgeattn.runners import open_runner
from edgeattn.tensors import Array
from edgeattn_converters import convert
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.formats.attention_output_effect import compare_without_maps
from edgeattn_converters.options import ConversionOptions
from edgeattn_converters.quantization.model import ModelIO
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import Interface, interface_of

CONVERTERS = {"tflite": tflite, "onnx": onnx}
ROWS = 7


@pytest.fixture(autouse=True)
def names_from_the_start() -> None:
    """Keras numbers the operations that have no name over all models."""
    keras.backend.clear_session()


def samples() -> dict[str, Array]:
    return {"sensor": np.random.default_rng(3).normal(0, 2, (ROWS, T, 3)).astype("float32")}


def names(interface: Interface) -> dict[str, tuple[Any, ...]]:
    return {spec.name: spec.shape[1:] for spec in interface.attention}


def softmax(scores: Array, axis: int = -1) -> Array:
    raised = np.exp(scores - scores.max(axis, keepdims=True))
    return raised / raised.sum(axis, keepdims=True)


def truth(kind: str, model: Any, x: Array) -> Array:
    """The weights, of Keras' own layer by that name, or by hand out of the states."""
    by_name = {part.name: part for part in model.operations}
    states = keras.Model(model.inputs, by_name["memory"].output).predict(x, verbose=0)
    if kind == "own_heads":
        split = np.stack([states, -states, 2 * states], 1)  # (rows, heads, steps, features)
        return softmax(split @ split.transpose(0, 1, 3, 2))
    if kind in ("own_pooling", "own_exponential"):
        kernel = np.asarray(by_name["own"].kernel).reshape(-1)
        return softmax(np.tanh(states @ kernel))
    part = next(
        by_name[n] for n in ("vec", "weights", "attention_weight", "softmax") if n in by_name
    )
    return keras.Model(model.inputs, part.output).predict(x, verbose=0)


@pytest.mark.parametrize("kind", FOUND)
def test_found_and_told_by_both_formats(kind: str, tmp_path: Path) -> None:
    build, expected = FOUND[kind]
    model = models.filled(build())
    interface = interface_of(model)
    assert names(interface) == expected
    assert interface.doubtful == ()
    x = samples()
    (name,) = expected
    weights = truth(kind, model, x["sensor"]).reshape(ROWS, *expected[name])
    for format, converter in CONVERTERS.items():
        path = tmp_path / f"model.{format}"
        inputs, outputs, attention, _ = converter.convert(
            model, interface, recipe_for("float32"), path
        )
        assert attention == (name,)
        actual = open_runner(path, format, inputs, outputs, as_deployed=True).run(x)
        np.testing.assert_allclose(actual[name], weights, atol=1e-5, err_msg=format)
        np.testing.assert_allclose(
            actual["answer"], model.predict(x["sensor"], verbose=0), atol=1e-5, err_msg=format
        )


@pytest.mark.parametrize("kind", KERAS)
def test_layers_of_keras_by_their_own_scores(kind: str) -> None:
    build, shape = KERAS[kind]
    model = models.filled(build())
    interface = interface_of(model)
    assert names(interface) == {"attention/look": shape}


@pytest.mark.parametrize("kind", OTHERS)
def test_others_are_not_taken_for_attention(kind: str) -> None:
    build, doubtful = OTHERS[kind]
    interface = interface_of(models.filled(build()))
    assert interface.attention == ()
    assert tuple(item.layer for item in interface.doubtful) == doubtful
    assert all(item.reason for item in interface.doubtful)


def test_a_doubtful_one_is_told_when_it_is_named() -> None:
    model = models.filled(attentive.experts())
    assert names(interface_of(model, attention=("gate",))) == {"attention/gate": (3,)}
    # So is a classifier's: who names it wants it.
    assert names(interface_of(model, attention=("answer",))) == {"attention/answer": (2,)}


def test_a_name_that_leads_to_no_map_is_refused_with_those_that_do() -> None:
    model = models.filled(attentive.scored())
    with pytest.raises(UsageError, match="Did you mean weights") as unknown:
        interface_of(model, attention=("weigths",))
    assert "weights" in str(unknown.value.hint)
    with pytest.raises(UsageError, match="no map to export"):
        interface_of(model, attention=("memory",))
    with pytest.raises(UsageError, match="no map to export"):
        interface_of(models.filled(attentive.custom(attentive.Folded)), attention=("own",))


def test_a_softmax_of_a_cell_is_its_activation() -> None:
    inputs = keras.Input((5, 3), name="x")
    states = keras.layers.SimpleRNN(4, activation="softmax", unroll=True)(inputs)
    interface = interface_of(keras.Model(inputs, states))
    assert interface.attention == ()
    assert interface.doubtful == ()


def test_a_map_that_changes_the_answer_is_refused(tmp_path: Path) -> None:
    """Planted: the file without its map computes something else."""
    model, other = models.filled(attentive.scored()), models.filled(attentive.scored(), scale=0.4)
    interface = interface_of(model)
    path = tmp_path / "model.onnx"
    inputs, outputs, maps, _ = onnx.convert(model, interface, recipe_for("float32"), path)
    ends = ModelIO(inputs, outputs, maps)

    def without(of: Any) -> Any:
        return lambda target: onnx.convert(
            of,
            interface_of(of),
            recipe_for("float32"),
            target,
            options=ConversionOptions(attention=False),
        )

    for sound in (without(model), None):
        assert compare_without_maps(path, "onnx", "float32", ends, samples(), sound) < 1e-5
    with pytest.raises(ConversionError, match="Exporting attention maps changes output"):
        compare_without_maps(path, "onnx", "float32", ends, samples(), without(other))


def test_a_named_layer_goes_all_the_way(tmp_path: Path) -> None:
    """Into the bundle's reference and its artifacts; unnamed it is in the notes, and in no file."""
    model = models.filled(attentive.experts())
    path = tmp_path / "experts.keras"
    model.save(path)
    options = ConversionOptions(formats=("onnx",), schemes=("float32", "float16"))
    conversion = convert(path, options=replace(options, attention_layers=("gate",)))
    assert conversion.exit_code == 0
    reference = conversion.bundle.reference()
    part = next(item for item in model.operations if item.name == "gate")
    gate = keras.Model(model.inputs, part.output).predict(reference["input/sensor"], verbose=0)
    np.testing.assert_allclose(reference["attention/gate"], gate, atol=1e-6)
    for artifact in conversion.bundle.manifest.artifacts:
        assert artifact.attention == ("attention/gate",)
        assert artifact.achieved["difference_by_maps"] <= 1e-5
    for attention in (True, False):
        plain = convert(
            path,
            tmp_path / "plain.edge",
            options=replace(options, attention=attention),
            force=True,
        )
        assert [item.attention for item in plain.bundle.manifest.artifacts] == [(), ()]
        assert not [name for name in plain.bundle.reference() if name.startswith("attention/")]
        notes = " ".join(plain.bundle.manifest.model["notes"])
        assert ("pass --attention gate" in notes) == attention
    with pytest.raises(UsageError, match="contradict"):
        convert(path, options=ConversionOptions(attention=False, attention_layers=("gate",)))
