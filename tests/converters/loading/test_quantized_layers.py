"""Models that ``model.quantize`` of Keras has quantized."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import layers
from long_parameters import only

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.safety import config_screening

TOKENS = np.random.default_rng(1).integers(0, 20, (5, 6))


def tagger() -> Any:
    # Other weights may be between two integers, and float32 decides.
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6,))
    words = layers.Embedding(20, 8)(inputs)
    words = layers.EinsumDense("abc,cde->abde", output_shape=(6, 2, 3), bias_axes="de")(words)
    hidden = layers.Dense(5, activation="tanh")(layers.Reshape((6, 6))(words))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Flatten()(hidden)))


def attending() -> Any:
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6,))
    words = layers.Embedding(20, 8)(inputs)
    attended = layers.MultiHeadAttention(2, 4)(words, words)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(words + attended)))


def rounded(value: Any, axis: int, largest: int) -> Any:
    """Symmetric rounding: the largest magnitude along an axis becomes ``largest``."""
    scale = np.abs(value).max(axis=axis, keepdims=True) / largest
    return np.rint(value / scale) * scale


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
def test_int8_weights_have_the_values_of_their_integers(suffix: str, tmp_path: Path) -> None:
    model = tagger()
    weights = {layer.name: [np.asarray(w) for w in layer.weights] for layer in model.layers}
    embedding, einsum, dense = (model.layers[index].name for index in (1, 2, 4))
    model.quantize("int8")
    model.save(tmp_path / f"m{suffix}")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"))
    found = {layer.name: [np.asarray(w) for w in layer.weights] for layer in loaded.model.layers}
    for name, axis in ((embedding, 1), (einsum, 0), (dense, 0)):
        expected = rounded(weights[name][0], axis, 127)
        np.testing.assert_allclose(found[name][0], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[dense][1], weights[dense][1])
    assert {w.dtype for w in loaded.model.weights} == {"float32"}
    [note] = [note for note in loaded.notes if "quantized layers" in note]
    assert "4 in int8" in note
    assert "on 32 generated inputs" in note
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), atol=0.02)


@pytest.mark.parametrize("mode", only(["int4", "float8"], "float8"))
def test_other_modes_compute_as_in_keras(mode: str, tmp_path: Path) -> None:
    model = tagger()
    model.quantize(mode)
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    # int4 leaves the activations alone, float8 rounds them to three bits.
    tolerance = 1e-5 if mode == "int4" else 0.05
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), atol=tolerance)


@pytest.mark.parametrize("mode", only(["int8", "int4", "float8"], "float8"))
def test_layers_inside_attention(mode: str, tmp_path: Path) -> None:
    """Keras itself cannot load this file: the config of the attention lacks the mode."""
    model = attending()
    model.quantize(mode)
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    tolerance = {"int8": 0.05, "int4": 1e-5, "float8": 0.1}[mode]
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), atol=tolerance)


@pytest.mark.parametrize("mode", only(["int8", "int4", "float8"], "float8"))
@pytest.mark.parametrize("grouped", only([False, True], False))
def test_layers_inside_attention_in_h5(grouped: bool, mode: str, tmp_path: Path) -> None:
    """Keras cannot load these either: the file lists the weights of all inner layers in a row."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6, 8))
    layer = layers.GroupQueryAttention(4, 4, 2) if grouped else layers.MultiHeadAttention(2, 4)
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs, inputs)))
    model.quantize(mode)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    x = np.random.default_rng(2).normal(size=(3, 6, 8)).astype("float32")
    tolerance = {"int8": 0.05, "int4": 1e-5, "float8": 0.2}[mode]
    np.testing.assert_allclose(loaded.model(x), model(x), atol=tolerance)


def repeated(layer: Any, mode: str) -> Any:
    keras.utils.set_random_seed(7)
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.TimeDistributed(layer, name="steps")(inputs))
    model.quantize(mode)
    return model


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("mode", only(["int8", "int4"], "int8"))
def test_time_distributed_layers_that_keras_computes_with_integers(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    model = repeated(layers.Dense(4, name="projection"), mode)
    x = np.random.default_rng(2).normal(size=(3, 6, 8)).astype("float32")
    weights = model.get_layer("steps").layer
    # If Keras computes with the scale one day, these models can be loaded.
    assert np.abs(model(x)).max() > 4 * np.abs(weights(x)).max()
    model.save(tmp_path / f"m{suffix}")
    message = rf"'projection' inside 'steps' was quantized as '{mode}'"
    with pytest.raises(UnsupportedModelError, match=message) as refused:
        load_model(audit_file(tmp_path / f"m{suffix}"))
    assert "Convert the model that was quantized" in str(refused.value.hint)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("mode", only(["int8", "float8"], "float8"))
def test_time_distributed_layers_that_keras_computes_right(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    """The float8 layer in ``.h5`` was refused because of the order of its variables."""
    dense = layers.Dense(4, name="projection")
    inner = keras.Sequential([dense]) if mode == "int8" else dense
    model = repeated(inner, mode)
    model.save(tmp_path / f"m{suffix}")
    x = np.random.default_rng(2).normal(size=(3, 6, 8)).astype("float32")
    loaded = load_model(audit_file(tmp_path / f"m{suffix}"))
    np.testing.assert_allclose(loaded.model(x), model(x), atol=0.1)


def low_rank(mode: str | None) -> Any:
    """A model with an update of low rank (LoRA), which Keras adds to the weights as it saves."""
    keras.utils.set_random_seed(7)
    words = keras.Input((6,))
    hidden = layers.Embedding(20, 8, name="embedding")(words)
    hidden = layers.EinsumDense("abc,cd->abd", (6, 4), name="einsum")(hidden)
    hidden = layers.Dense(8, use_bias=False, name="dense")(layers.Flatten()(hidden))
    model = keras.Model(words, layers.Dense(3, name="plain")(hidden))
    if mode is not None:
        model.quantize(mode, filters=lambda layer: layer.name != "plain")
    for name in ("embedding", "einsum", "dense", "plain"):
        layer = model.get_layer(name)
        layer.enable_lora(2)
        update = layer.lora_embeddings_b if name == "embedding" else layer.lora_kernel_b
        update.assign(np.random.default_rng(1).normal(0, 0.3, update.shape))
    return model


@pytest.mark.parametrize("suffix", only([".keras", ".h5"], ".keras"))
@pytest.mark.parametrize("mode", only(["int8", "int4", None], None))
def test_updates_of_low_rank(mode: str | None, suffix: str, tmp_path: Path) -> None:
    model = low_rank(mode)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    # In .keras files, Keras rounds the sums again.
    expected = keras.models.load_model(path, compile=False) if suffix == ".keras" else model
    tolerance = 0.1 if mode == "int8" else 1e-5
    actual = load_model(audit_file(path)).model
    np.testing.assert_allclose(actual(TOKENS), expected(TOKENS), rtol=1e-4, atol=tolerance)


DENSE = """
import keras


def build():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="dense")])
"""


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_zero_points_that_keras_does_not_save(mode: str, suffix: str, tmp_path: Path) -> None:
    inputs = keras.Input((6,))
    dense = layers.Dense(4, dtype=f"{mode}/4/2_from_float32", name="dense")
    model = keras.Model(inputs, dense(inputs))
    setattr(dense, f"is_{mode}_calibrated", True)
    path, program, architecture = tmp_path / f"m{suffix}", tmp_path / "architecture.py", None
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
        program.write_text(DENSE)
        architecture = f"{program}:build"
    with pytest.raises(UnsupportedModelError, match=f"'dense' was quantized as '{mode}'") as error:
        load_model(audit_file(path), architecture=architecture)
    assert "Convert the model that was quantized" in str(error.value.hint)


def test_float8_in_h5(tmp_path: Path) -> None:
    """Keras stores the variables in another order than it creates them from the config."""
    model = tagger()
    model.quantize("float8")
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    np.testing.assert_allclose(loaded.model(TOKENS), model(TOKENS), atol=0.05)


def test_int4_per_channel(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((7,)), layers.Dense(5)])
    kernel = np.asarray(model.layers[0].kernel)
    config = keras.quantizers.Int4QuantizationConfig(block_size=None)
    model.quantize("int4", config=config)
    model.save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    scale = np.abs(kernel).max(axis=0) / 7
    expected = np.clip(np.rint(kernel / scale), -8, 7) * scale
    np.testing.assert_allclose(loaded.model.layers[0].kernel, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_groups_with_zero_points(mode: str, tmp_path: Path) -> None:
    """The dequantized kernel is what the layer multiplies by; AWQ divides it by scales of inputs.

    Keras 3.15 leaves the zero points out of ``.keras`` files, which neither it nor we can load.
    """
    inputs = keras.Input((6,))
    dense = layers.Dense(4, dtype=f"{mode}/4/2_from_float32", name="dense")
    model = keras.Model(inputs, dense(inputs))
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 16, (4, 6))
    scale, zero = generator.uniform(0.1, 0.3, (4, 3)), generator.integers(4, 12, (4, 3))
    groups = np.repeat(np.arange(3), 2)
    packed = levels[0::2] | (levels[1::2] << 4)
    setattr(dense, f"is_{mode}_calibrated", True)
    dense.quantized_kernel.assign(packed.astype("uint8"))
    dense.kernel_scale.assign(scale)
    dense.kernel_zero.assign(zero.astype("uint8"))
    dense.g_idx.assign(groups)
    divisors = np.ones(6)
    if mode == "awq":
        divisors = generator.uniform(0.5, 2, 6)
        dense.awq_scales.assign(divisors)
    model.save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    expected = ((levels - zero[:, groups]) * scale[:, groups]).T / divisors[:, None]
    np.testing.assert_allclose(loaded.model.get_layer("dense").kernel, expected, atol=1e-5)


class Tagger(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = layers.Embedding(20, 8)
        self.scores = layers.Dense(3)

    def call(self, tokens: Any) -> Any:
        return self.scores(self.words(tokens))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_model_of_an_own_class(mode: str, tmp_path: Path) -> None:
    """The config lacks the quantization of its layers. It ended with a fault of edgeattn."""
    keras.utils.set_random_seed(7)
    model = Tagger()
    model(TOKENS)
    expected = np.asarray(model(TOKENS))
    model.quantize(mode)
    model.save(tmp_path / "m.keras")
    classes = tmp_path / "classes.py"
    classes.write_text("import keras\nfrom keras import layers\nfrom typing import Any\n\n\n"
                       + inspect.getsource(Tagger))  # fmt: skip
    loaded = load_model(audit_file(tmp_path / "m.keras"), custom_objects=classes)
    tolerance = 0.01 if mode == "int8" else 0.1
    np.testing.assert_allclose(loaded.model(TOKENS), expected, atol=tolerance)
    assert f"2 in {mode}" in loaded.notes[0]


FUNCTIONS = """
import keras
from keras import layers


def build():
    inputs = keras.Input((6,))
    words = layers.Embedding(20, 8)(inputs)
    attended = layers.MultiHeadAttention(2, 4)(words, words)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(words + attended)))


def quantized():
    model = build()
    model.quantize("MODE")
    return model
"""


@pytest.mark.long
@pytest.mark.parametrize("function", ["build", "quantized"])
@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_weights_only(mode: str, function: str, tmp_path: Path) -> None:
    """Keras loads these into a quantized model only, which converts to ONNX with integers."""
    model = attending()
    expected = np.asarray(model(TOKENS))
    model.quantize(mode)
    model.save_weights(tmp_path / "m.weights.h5")
    path = tmp_path / "architecture.py"
    path.write_text(FUNCTIONS.replace("MODE", mode))
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{path}:{function}")
    assert {weight.dtype for weight in loaded.model.trainable_weights} == {"float32"}
    assert f"in {mode}" in loaded.notes[0]
    tolerance = {"int8": 0.02, "int4": 0.3, "float8": 0.1}[mode]
    np.testing.assert_allclose(loaded.model(TOKENS), expected, atol=tolerance)


def test_weights_only_in_float8(tmp_path: Path) -> None:
    """They are float32, unlike those of int8; the function was refused unless it quantizes."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    kernel = np.asarray(model.layers[0].kernel)
    model.quantize("float8")
    model.save_weights(tmp_path / "m.weights.h5")
    path = tmp_path / "architecture.py"
    path.write_text(DENSE)
    loaded = load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{path}:build")
    assert "1 in float8" in loaded.notes[0]
    expected = kernel.astype(ml_dtypes.float8_e4m3fn).astype("float32")
    assert np.abs(expected - kernel).max() > 0.001
    np.testing.assert_array_equal(loaded.model.layers[0].kernel, expected)


@pytest.mark.parametrize("quantize", only(["", "    model.quantize('int8')\n"], ""))
def test_weights_of_a_model_with_own_layers(quantize: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Lambda(abs)])
    model.quantize("int8")
    model.save_weights(tmp_path / "m.weights.h5")
    path = tmp_path / "architecture.py"
    path.write_text(
        "import keras\nfrom keras import layers\n\n\ndef build():\n    model = keras.Sequential("
        f"[keras.Input((6,)), layers.Dense(4), layers.Lambda(abs)])\n{quantize}    return model\n"
    )
    with pytest.raises(UnsupportedModelError, match="Keras had quantized the layers") as error:
        load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{path}:build")
    assert "Save the whole model" in str(error.value.hint)


def test_only_keras_own_quantizers_are_allowed() -> None:
    config = {
        "class_name": "Dense",
        "config": {"name": "d", "quantization_config": {
            "module": "subprocess", "class_name": "Int8QuantizationConfig", "config": {}}},
    }  # fmt: skip
    with pytest.raises(UnsafeModelError):
        config_screening.screen(config, hint="", trusted=False)
