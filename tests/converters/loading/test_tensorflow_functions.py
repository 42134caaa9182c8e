"""Functional models of Keras 2 that call functions of TensorFlow, saved by tf_keras."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.python.util.tf_export import get_canonical_name_for_symbol
from tensorflow_calls import CALLS, INPUTS, samples

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.lambdas import expressions, signatures, tensorflow_functions
from edgeattn_converters.loading.lambdas.keras_operations import evaluate
from edgeattn_converters.loading.load import load_model

# tf_keras has them in Lambda layers only.
IN_LAMBDAS = {
    "einsum",
    "meshgrid",
    *(f"signal.{kind}{axes}" for kind in ("rfft", "irfft") for axes in ("", "2d", "3d")),
}
# Names that other versions of tf.keras store, and what they are in NumPy.
OTHER_VERSIONS = {"math.floordiv": np.floor_divide, "math.mod": np.mod, "math.divide": np.divide}


def _inputs() -> SimpleNamespace:
    return SimpleNamespace(
        **{
            name: tf_keras.Input(
                shape, dtype="int32" if isinstance(low, int) else "float32", name=name
            )
            for name, (shape, low, _) in INPUTS.items()
        }
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Any]:
    """A file with every call, the names of the calls by output, and the model of tf_keras."""
    inputs = _inputs()
    outputs, names = [], []
    for name, call in CALLS.items():
        results = tf.nest.flatten(call(inputs))
        outputs += results
        names += [name] * len(results)
    model = tf_keras.Model(list(vars(inputs).values()), outputs)
    path = tmp_path_factory.mktemp("functions") / "model.h5"
    model.save(path)
    return path, names, model


@pytest.mark.long
def test_every_function_computes_the_same(saved: tuple[Path, list[str], Any]) -> None:
    path, names, model = saved
    expected = model(list(samples().values()))
    actual = load_model(audit_file(path)).model(list(samples().values()))
    for name, value, result in zip(names, expected, actual, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)


def _functions(path: Path) -> set[str]:
    """The functions that a file names, without operators such as ``x + y``."""
    with h5py.File(path) as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    names = {
        str(layer["config"]["function"])
        for layer in layers
        if layer["class_name"] in ("TFOpLambda", "SlicingOpLambda")
    }
    return {name for name in names if not name.startswith("__operators__")}


@pytest.mark.long
def test_every_function_of_the_table_is_called(saved: tuple[Path, list[str], Any]) -> None:
    stored = {name.removeprefix("compat.v1.") for name in _functions(saved[0])}
    assert not stored & IN_LAMBDAS
    assert stored | set(OTHER_VERSIONS) | IN_LAMBDAS == set(tensorflow_functions.FUNCTIONS)


# Functions that a graph of Keras 2 may call, and that have no place in a converted model.
NOT_KNOWN = {
    "take Python functions": r"(map_fn|map_values|map_flat_values|fold[lr]|scan|case|cond|"
    r"while_loop|(.*\.)?\w*rnn|py_func\w*|\w+_function|nn\.with_space_to_batch|.*conjugate_gradient)",
    "draw random numbers": r"(random|image\.(random|stateless|sample)|nn\.fractional).*|"
    r"keras\.backend\.(random|dropout|truncated_normal).*|"
    r".*(dropout|sampled_softmax_loss|nce_loss|accidental_hits|candidate_sampler)",
    "read and write text, files and records": r"(strings|string_split|substr|io|audio|train|print|"
    r"decode_raw|Print|timestamp|fingerprint|edit_distance)(\..*)?|keras.*print_tensor|"
    r"image\.adjust_jpeg_quality|math\.sobol_sample",
    "have sparse or ragged tensors": r"(ragged|sets|sparse|setdiff1d)(\.|_|$).*|.*_sparse|"
    r"nn\.ctc.*|keras\.backend\.(ctc|to_dense).*|.*proposals",
    "check values": r"debugging\.(?!check_numerics).*|no_op|check_pinned",
    "have integers with a scale": r"quantize.*|nn\.quantized.*|"
    r"quantization\.((de)?quantize|quantized.*|quantize_and_dequantize)",
    "are gradients": r".*(backprop|_gradient|_grad)(_.*)?",
    "are losses": r"losses\..*|keras\.(losses|metrics|activations)\..*|keras.*(entropy|focal).*|"
    r"nn\.(compute_average|scale_regularization)_loss|keras.*(local_conv|in_top_k).*",
    "have no tensors as arguments": r"signal\.\w*(window|matrix)\w*|broadcast_static_shape|"
    r"keras\.backend\.(arange|batch_.et_value|constant|dtype|epsilon|eye|image_data_format|ones)",
    "are stored as their parts": r"linalg\.(matvec|logdet|eig\w*|lu_\w+)|math\.logical_xor|"
    r"nn\.(moments|conv_transpose|atrous_conv2d\w*|batch_norm\w*|normalize_moments|space_to_batch|"
    r"sufficient_statistics|depthwise_conv2d_native|softmax_cross_entropy_with_logits)|"
    r"image\.(image_gradients|sobel_edges|total_variation)|(batch_to_space|space_to_batch|tuple)|"
    r"to_\w+|clip_by_average_norm|keras\.backend\.(batch_normalization|switch|"
    r"bias_add|conv\w+|cumprod|\w+_conv2d|pool.d|resize_\w+|\w+_padding)",
    "are rare": r"approx_top_k|math\.approx_m.._k|parallel_stack|conv|i?r?fftnd|einsum|"
    r"nn\.isotonic_regression|broadcast_dynamic_shape|"
    r"image\.(non_max_suppression_(overlaps|padded)|resize_image_with_pad)",
}


def _dispatched() -> set[str]:
    """The functions of TensorFlow and tf_keras whose calls become layers of a model."""
    names = set()
    for name, module in list(sys.modules.items()):
        if not name.startswith(("tensorflow.python.", "tf_keras.src.")):
            continue
        for value in list(vars(module).values()):
            if not inspect.isfunction(value) or not hasattr(value, "_tf_fallback_dispatchers"):
                continue
            for package in ("tensorflow", "keras"):
                path = get_canonical_name_for_symbol(value, package, add_prefix_to_v1_names=True)
                names |= {path.removeprefix("compat.v1.")} if path else set()
    return names


def test_every_function_that_becomes_a_layer_is_known_or_has_a_reason() -> None:
    names = _dispatched()
    assert len(names) > 600
    unknown = {
        name
        for name in names
        if not name.startswith("__operators__.")
        and not tensorflow_functions.is_known(name)
        and signatures.find(f"tf.{name}") is None
    }
    reasons = {
        name: [why for why, pattern in NOT_KNOWN.items() if re.fullmatch(pattern, name)]
        for name in unknown
    }
    assert {name for name, why in reasons.items() if not why} == set()


def test_transforms_in_lambda_layers(tmp_path: Path) -> None:
    def magnitudes(x):
        return tf.abs(tf.signal.rfft(x))

    inputs = tf_keras.Input((4, 6), name="x")
    outputs = [
        tf_keras.layers.Lambda(magnitudes)(inputs),
        tf_keras.layers.Lambda(lambda x: tf.signal.irfft(tf.signal.rfft(x), [4]))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.math.real(tf.signal.rfft2d(x)))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.signal.irfft2d(tf.signal.rfft2d(x)))(inputs),
        tf_keras.layers.Lambda(lambda x: tf.abs(tf.signal.stft(x, 4, 2, pad_end=True)))(inputs),
    ]
    model = tf_keras.Model(inputs, outputs)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = load_model(audit_file(path))
    assert "tf.signal.rfft(x)" in " ".join(loaded.notes)
    x = samples()["x"]
    for value, result in zip(model(x), loaded.model(x), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


def test_other_names_in_lambda_layers(tmp_path: Path) -> None:
    """Only the names that a graph stores were known, such as ``norm`` for ``linalg.norm``."""
    inputs = tf_keras.Input((4, 6), name="x")
    layers = tf_keras.layers
    outputs = [
        layers.Lambda(lambda x: tf.einsum("bij,bkj->bik", x, x))(inputs),
        layers.Lambda(lambda t: tf.einsum("...ij,...kj->...ik", t[0], t[1]))([inputs, inputs]),
        layers.Lambda(lambda x: tf.linalg.einsum("bij->bji", x))(inputs),
        layers.Lambda(lambda x: tf.meshgrid(x[0, 0], x[0, :, 0])[1])(inputs),
        layers.Lambda(lambda x: tf.linalg.norm(x, axis=-1, keepdims=True))(inputs),
        layers.Lambda(lambda x: tf.nn.top_k(x, 2)[0])(inputs),
        layers.Lambda(lambda x: tf.add_n([x, tf.sinh(x), tf.atan2(x, x + 3.0)]))(inputs),
        layers.Lambda(lambda x: tf.linalg.trace(tf.linalg.tensordot(x, x, [[1], [1]])))(inputs),
        layers.Lambda(lambda x: tf.math.real(tf.complex(x, tf.math.floormod(x, 0.7))))(inputs),
        layers.Lambda(lambda x: tf.compat.v1.matrix_band_part(x, 1, 0))(inputs),
        layers.Lambda(lambda x: tf.compat.v1.space_to_depth(x[..., None], block_size=2))(inputs),
    ]
    model = tf_keras.Model(inputs, outputs)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = load_model(audit_file(path)).model
    x = samples()["x"]
    for value, result in zip(model(x), loaded(x), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5)


_MODULES = ("", "math", "math.special", "nn", "linalg", "image", "signal", "bitwise", "dtypes")


def _aliases() -> set[str]:
    """The names in ``tf.compat.v1`` of functions of the table that are not in it themselves."""
    names = set()
    for module in _MODULES:
        parts = module.split(".") if module else []
        for name, value in vars(functools.reduce(getattr, parts, tf.compat.v1)).items():
            path = f"{module}.{name}".lstrip(".")
            if not inspect.isfunction(getattr(value, "__wrapped__", value)):
                continue
            canonical = get_canonical_name_for_symbol(value, add_prefix_to_v1_names=True) or ""
            canonical = canonical.removeprefix("compat.v1.")
            is_own = path in tensorflow_functions.FUNCTIONS or signatures.find(f"tf.{path}")
            if canonical in tensorflow_functions.FUNCTIONS and not is_own:
                names.add(path)
    return names


def test_every_other_name_is_known() -> None:
    # TensorFlow 1 and 2 take its arguments in different orders.
    assert _aliases() - {"nn.in_top_k"} == tensorflow_functions.ALIASES


def test_a_window_that_the_file_does_not_define(tmp_path: Path) -> None:
    inputs = tf_keras.Input((64,))
    window = tf.signal.inverse_stft_window_fn(8)
    sound = tf.signal.inverse_stft(tf.signal.stft(inputs, 16, 8), 16, 8, window_fn=window)
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, sound).save(path)
    with pytest.raises(UnsupportedModelError, match=r"window_fn .* is not stored in the file"):
        load_model(audit_file(path))


@pytest.mark.parametrize("compare", [lambda x: x == 2.0, lambda x: x != 2.0])
def test_operands_that_tf_keras_does_not_store(compare: Any, tmp_path: Path) -> None:
    """The file has the tensor only, and tf_keras cannot load it either."""
    inputs = tf_keras.Input((3,))
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, compare(inputs)).save(path)
    with pytest.raises(UnsupportedModelError, match="does not contain both of its operands"):
        load_model(audit_file(path))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda x: tf.nn.dropout(x, 0.5), "draws random numbers, in inference too"),
        (lambda x: x + tf.random.normal(tf.shape(x)), "draws random numbers, in inference too"),
        (lambda x: tf_keras.backend.dropout(x, 0.5), "draws random numbers, in inference too"),
        (lambda x: tf.foldl(lambda a, b: a + b, x), "does not contain the Python function"),
    ],
)
def test_why_a_function_is_not_known(call: Any, reason: str, tmp_path: Path) -> None:
    inputs = tf_keras.Input((3,))
    path = tmp_path / "model.h5"
    tf_keras.Model(inputs, call(inputs)).save(path)
    with pytest.raises(UnsupportedModelError, match=reason):
        load_model(audit_file(path))


def test_squeeze_keeps_the_axis_of_the_samples() -> None:
    """Files have one sample in a batch, which is not an axis to remove."""
    call = expressions.function("tf.squeeze", [expressions.INPUT], {})
    assert evaluate(call, np.ones((1, 4, 1, 3, 1), "float32")).shape == (1, 4, 3)
    assert evaluate(call, np.ones((1, 4), "float32")).shape == (1, 4)
    first = expressions.function("tf.squeeze", [expressions.INPUT], {"axis": {"const": 0}})
    assert evaluate(first, np.ones((1, 4, 1), "float32")).shape == (4, 1)


def test_the_first_axis_is_the_default_of_tensorflow() -> None:
    """Keras flattens a tensor without an axis."""
    x = np.array([[3.0, 1.0], [2.0, 5.0]], "float32")
    for name in ("argmax", "argmin"):
        call = expressions.function(f"tf.{name}", [expressions.INPUT], {"axis": {"const": None}})
        np.testing.assert_array_equal(evaluate(call, x), getattr(np, name)(x, axis=0))
    call = expressions.function(
        "tf.gather", [expressions.INPUT, {"tuple": [{"const": 1}]}], {"axis": {"const": None}}
    )
    np.testing.assert_array_equal(evaluate(call, x), x[[1]])


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("math.unheard_of", UnsupportedModelError),
        ("random.normal", UnsupportedModelError),
        ("io.read_file", UnsafeModelError),
        ("numpy_function", UnsafeModelError),
    ],
)
def test_other_functions_are_named(function: str, error: type[Exception], tmp_path: Path) -> None:
    inputs = tf_keras.Input((3,))
    model = tf_keras.Model(inputs, tf.math.bessel_i0(inputs))
    path = tmp_path / "model.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        config = config.decode() if isinstance(config, bytes) else config
        file.attrs["model_config"] = config.replace("math.bessel_i0", function)
    with pytest.raises(error, match=function):
        load_model(audit_file(path))


def test_operands_that_the_file_does_not_contain(tmp_path: Path) -> None:
    """tf_keras stores the first argument of ``tf.einsum`` only, the equation."""

    def build() -> Any:
        inputs = tf_keras.Input((4, 6), name="x")
        products = tf.einsum("bij,bkj->bik", inputs, inputs)
        return tf_keras.Model(inputs, tf_keras.layers.Dense(2, name="y")(products))

    model, path = build(), tmp_path / "model.h5"
    model.save(path)
    with pytest.raises(UnsupportedModelError, match="does not contain its tensors") as error:
        load_model(audit_file(path))
    assert "model.load_weights(FILE); model.save('model')" in str(error.value.hint)
    again = build()
    again.load_weights(path)
    again.save(tmp_path / "model")
    x = np.random.default_rng(1).normal(size=(3, 4, 6)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "model")).model
    [output] = loaded({"x": x}).values()
    np.testing.assert_allclose(output, model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OTHER_VERSIONS)
def test_names_of_other_versions(name: str) -> None:
    values = np.array([-3.0, 2.5, 7.0], "float32")
    result = tensorflow_functions.call(name, [tf.constant(values), 2.0], {})
    np.testing.assert_allclose(result, OTHER_VERSIONS[name](values, 2.0), rtol=1e-6)


def test_check_numerics_is_its_argument(tmp_path: Path) -> None:
    """The screening refused it as a function that no model needs."""
    inputs = tf_keras.Input((3,))
    checked = tf.debugging.check_numerics(inputs * 2.0, "of the input", name="checked")
    by_name = tf.debugging.check_numerics(tensor=inputs, message="again")
    model = tf_keras.Model(inputs, [checked + 1.0, tf.exp(by_name)])
    path = tmp_path / "model.h5"
    model.save(path)
    assert "debugging.check_numerics" in _functions(path)
    x = np.array([[1.0, -2.0, 0.5]], "float32")
    loaded = load_model(audit_file(path)).model
    for value, result in zip(model(x), loaded(x), strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-6)


def _debugging(name: str, path: Path) -> None:
    """A file whose call of check_numerics has the name of another function."""
    inputs = tf_keras.Input((3,))
    tf_keras.Model(inputs, tf.debugging.check_numerics(inputs, "x")).save(path)
    with h5py.File(path, "a") as file:
        config = str(file.attrs["model_config"]).replace('"debugging.check_numerics"', f'"{name}"')
        file.attrs["model_config"] = config


@pytest.mark.parametrize(
    "name",
    [
        "debugging.enable_check_numerics",
        "debugging.experimental.enable_dump_debug_info",
        "debugging.check_numerics.x",
        "io.debugging.check_numerics",
    ],
)
def test_other_functions_for_debugging_are_refused(name: str, tmp_path: Path) -> None:
    _debugging(name, tmp_path / "model.h5")
    with pytest.raises(UnsafeModelError, match="it calls the TensorFlow function"):
        load_model(audit_file(tmp_path / "model.h5"))
