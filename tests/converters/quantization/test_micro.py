"""Files for Lite Micro: integers only, and in its interpreter the outputs of the float32 file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from long_parameters import only
from quantized_models import (
    MODELS,
    Conversion,
    Conversions,
    ConversionsOf,
    integer_file,
    tflite_of,
)

from edgeattn.errors import ConversionError, SchemeError
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.metrics.limits import LIMITS
from edgeattn.metrics.pairwise import max_abs_error, snr_db
from edgeattn.runners import open_runner
from edgeattn.schemes import MICRO
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization import integer_lstm
from edgeattn_converters.quantization.float_only import float_only_operators
from edgeattn_converters.quantization.integer_only import (
    cure_of,
    float_operators,
    require_micro_operators,
    require_no_floats,
)
from edgeattn_converters.quantization.micro_rewrites import rewrite
from edgeattn_converters.quantization.negative_zeros import without_negative_zeros
from edgeattn_converters.quantization.quantized_model import QuantizedModel
from edgeattn_converters.quantization.step_ranges import share_step_ranges
from edgeattn_converters.quantization.tflite_micro import MicroQuantizer

pytest.importorskip("tflite_micro")
OPTIONS = {"runtime": MICRO, "integer_only": True}
FLOATS = {"FLOAT16", "FLOAT32", "FLOAT64"}


def dtypes(path: Path) -> set[str]:
    file = TFLiteFile(path.read_bytes())
    return {file.dtype(tensor) for graph in file.model.subgraphs for tensor in graph.tensors}


def assert_close(converted: Conversion, expected: Conversion, scheme: str) -> None:
    """Within the limits of ``scheme``; maps of int16x8 within those of int8, since its weights
    are int8."""
    limits = LIMITS[scheme]
    for name, want in expected.actual.items():
        got = converted.actual[name]
        if name in converted.maps:
            assert max_abs_error(want, got) <= LIMITS["int8"].attention_max_abs, name
        else:
            assert snr_db(want, got) >= min(limits.snr_db, LIMITS["int8"].snr_db), name


@pytest.mark.parametrize("conversions", only(sorted(MODELS), "lstm"), indirect=True)
def test_int16x8(conversions: Conversions) -> None:
    """Steps of LSTM, GRU and SimpleRNN, masks, convolutions, GELU and layer normalization."""
    expected = conversions.make("tflite", "float32")
    converted = conversions.make("tflite", "int16x8", **OPTIONS)
    assert not dtypes(converted.path) & FLOATS
    assert set(converted.achieved["computes_in"]) <= {"int16", "int8"}
    assert all("int" in spec.dtype for spec in (*converted.inputs, *converted.outputs))
    assert converted.achieved["flash_bytes"] == converted.path.stat().st_size
    assert_close(converted, expected, "int16x8")


@pytest.mark.long
def test_int8(conversions: Conversions) -> None:
    """What int8 would round too much is int16, and nothing is float32."""
    expected = conversions.make("tflite", "float32")
    converted = conversions.make("tflite", "int8", **OPTIONS)
    assert not dtypes(converted.path) & FLOATS
    assert "int8" in converted.achieved["computes_in"]
    assert_close(converted, expected, "int8")


@pytest.fixture(scope="module")
def lstm(conversions_of: ConversionsOf) -> Conversions:
    return conversions_of("lstm")


def test_real_inputs_and_outputs(lstm: Conversions) -> None:
    """Without --integer-only, the file itself quantizes its inputs."""
    converted = lstm.make("tflite", "int16x8", runtime=MICRO)
    assert {spec.dtype for spec in (*converted.inputs, *converted.outputs)} == {"float32"}
    assert converted.achieved["operators"]["QUANTIZE"] >= len(converted.inputs)
    integers = lstm.make("tflite", "int16x8", **OPTIONS)
    for name, want in integers.actual.items():
        np.testing.assert_allclose(converted.actual[name], want, atol=1e-6)


def test_integers_only_in_litert(conversions_of: ConversionsOf) -> None:
    """For accelerators: LiteRT runs it, and an int8 file has no int16 operator."""
    converted = conversions_of("convolutional").make("tflite", "int8", integer_only=True)
    assert not dtypes(converted.path) & {*FLOATS, "INT16"}
    assert set(converted.achieved["computes_in"]) == {"int8"}


def quotient(x: Any) -> Any:
    import tensorflow as tf

    return tf.exp(x) / (1.0 + tf.exp(x))


def test_operators_that_prevent_integers_are_named(lstm: Conversions) -> None:
    file = TFLiteFile(tflite_of(quotient, (1, 5)))
    kinds = [operator.kind for operator in float_operators(file)]
    assert kinds.count("EXP") >= 1
    assert kinds.count("DIV") == 1
    assert all("softmax" in item.cure for item in float_operators(file) if item.kind == "EXP")


def looped(x: Any) -> Any:
    import tensorflow as tf

    def step(k: Any, value: Any) -> Any:
        return k + 1, tf.sin(value) * value + x

    with tf.name_scope("steps/inner"):
        return tf.while_loop(lambda k, value: k < 3, step, (0, x))[1]


def test_a_loop_prevents_the_operators_in_it() -> None:
    """Those with an integer form are not listed, and loops of recurrent layers are written out."""
    content = tflite_of(looped, (1, 5))
    blockers = {item.kind: item.cure for item in float_operators(TFLiteFile(content))}
    assert set(blockers) == {"SIN", "WHILE"}
    # These files have no other lowering than the one in which steps are written out.
    assert "--lowering" not in blockers["WHILE"]
    assert float_only_operators(content) == ["SIN", "WHILE"]
    assert float_only_operators(content, ("steps",)) == ["SIN"]


def running_sum(x: Any) -> Any:
    import tensorflow as tf

    return tf.cumsum(x, axis=1)


def running_count(x: Any) -> Any:
    import tensorflow as tf

    return tf.cumsum(tf.cast(x > 0, "float32"), axis=1)


def test_running_sums_have_an_integer_form_if_they_count() -> None:
    assert float_only_operators(tflite_of(running_sum, (1, 5))) == ["CUMSUM"]
    assert float_only_operators(tflite_of(running_count, (1, 5))) == []
    assert float_only_operators(tflite_of(running_count, (1, 500))) == ["CUMSUM"]
    assert "triangular" in cure_of("CUMSUM")


def looked_up(tokens: Any) -> Any:
    import tensorflow as tf

    return tf.gather(np.eye(9, dtype=np.float32), tf.cast(tokens, "int32"))


def test_real_tokens_prevent_integers() -> None:
    """The default dtype of an input of Keras is float32, of tokens too."""
    content = tflite_of(looked_up, (1, 5))
    assert [item.kind for item in float_operators(TFLiteFile(content))][:1] == ["CAST"]
    assert float_only_operators(content) == ["CAST"]
    assert 'dtype="int32"' in cure_of("CAST")
    assert float_only_operators(tflite_of(looked_up, (1, 5), dtype="int32")) == []


def test_a_float_tensor_without_an_operator_prevents_integers() -> None:
    contents = read_tflite(tflite_of(lambda x: x, (1, 5)))
    with pytest.raises(ConversionError, match="a tensor stays float32: ") as error:
        require_no_floats(contents)
    assert error.value.exit_code == 3
    require_no_floats(read_tflite(tflite_of(lambda x: x + 1, (1, 5), dtype="int32")))


@pytest.mark.parametrize("kind", ["SOFTMAX", "BATCH_MATMUL", "GATHER"])
def test_cures_do_not_recommend_what_the_operator_is(kind: str) -> None:
    assert "replace the layer by one" not in cure_of(kind)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_small_activations_are_int16(activation: str, tmp_path: Path) -> None:
    """An int8 kernel with a fixed scale would have few levels for them."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    inputs = keras.Input((16,), name="x")
    hidden = layers.Dense(32, activation="relu")(inputs)
    small = keras.initializers.RandomNormal(stddev=0.01)
    bias = keras.initializers.Constant(-6.0 if activation == "sigmoid" else 0.05)
    rare = layers.Dense(
        1, activation=activation, kernel_initializer=small, bias_initializer=bias, name="rare"
    )
    model = keras.Model(inputs, rare(hidden))
    x = np.random.default_rng(5).normal(0, 1, (40, 16)).astype("float32")
    path = tmp_path / "m.tflite"
    converted = integer_file(model, {"x": x}, path, **OPTIONS)
    assert not dtypes(path) & FLOATS
    assert {"int8", "int16"} <= set(converted.achieved["computes_in"])
    runner = open_runner(
        path, "tflite", converted.inputs, converted.outputs, as_deployed=True, runtime=MICRO
    )
    actual = runner.run({"x": x})["rare"]
    assert snr_db(model.predict(x, verbose=0), actual) >= LIMITS["int8"].snr_db
    # Accelerators have no int16 operators, so that integers only are int8, whatever the error is.
    converted = integer_file(model, {"x": x}, path, integer_only=True)
    assert not dtypes(path) & {*FLOATS, "INT16"}
    assert set(converted.achieved["computes_in"]) == {"int8"}


def test_a_model_with_such_operators(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inputs = keras.Input((32,), name="x")
    wide = layers.Dense(32, activation="squareplus", name="grows")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="answer")(wide))
    samples = {"x": np.random.default_rng(5).normal(0, 0.1, (40, 32)).astype("float32")}
    with pytest.raises(ConversionError) as error:
        integer_file(model, samples, tmp_path / "m.tflite", "int16x8", **OPTIONS)
    assert "1 operator prevents it. SQRT (" in error.value.message
    assert "grows" in error.value.message
    assert error.value.exit_code == 3
    assert not (tmp_path / "m.tflite").exists()


def outputs(content: bytes, *arrays: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    for item, array in zip(interpreter.get_input_details(), arrays, strict=True):
        interpreter.set_tensor(item["index"], array)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def last(x: Any) -> Any:
    import tensorflow as tf

    return tf.gather(x, 3, axis=1)


def any_positive(x: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_any(x > 0, axis=2)


def masked(x: Any) -> Any:
    import tensorflow as tf

    mask = tf.reduce_any(x > 0, axis=2, keepdims=True)
    return tf.where(mask, x, 2.0) + tf.where(tf.reduce_any(x > 1, axis=2, keepdims=True), 1.0, x)


def wrapped(x: Any) -> Any:
    import tensorflow as tf

    return tf.where(x < 0, x + 7, x)


def unstacked(x: Any) -> Any:
    import tensorflow as tf

    first, *others = tf.unstack(x > 0, axis=1)
    return tf.logical_and(first, others[-1])


def gelu(x: Any) -> Any:
    import tensorflow as tf

    return tf.nn.gelu(x)


def joined(x: Any) -> Any:
    import tensorflow as tf

    return tf.concat([tf.tanh(x[:, k % 5] * k) for k in range(111)], axis=-1)


@pytest.mark.long
def test_many_values_are_joined_by_parts() -> None:
    """Lite Micro joins at most ten."""
    x = np.random.default_rng(7).normal(0, 3, (1, 5, 3)).astype("float32")
    content = tflite_of(joined, x.shape)
    file = TFLiteFile(rewrite(content))
    joins = [item for item in file.main.operators if file.kind(item) == "CONCATENATION"]
    assert [len(item.inputs) for item in joins] == [*[10] * 11, 1, 10, 2, 2]
    np.testing.assert_array_equal(outputs(file.to_bytes(), x), outputs(content, x))


def softplus(x: Any) -> Any:
    """As edgeattn lowers it, also in a mish."""
    import tensorflow as tf

    return tf.maximum(x, 0.0) + tf.math.log(tf.exp(-tf.abs(x)) + 1.0)


def squared(x: Any) -> Any:
    import tensorflow as tf

    return tf.square(x)


def negative(x: Any) -> Any:
    return -x


def repeated(x: Any) -> Any:
    """As RepeatVector does: one copy of a row for each step."""
    import tensorflow as tf

    return tf.tile(x[:, 1:2], (1, 4, 1))


def gate(x: Any, kernels: Any, block: tuple[int, ...], pads: Any, crops: Any) -> Any:
    """Two dilated convolutions of the same steps, which are moved into the batch once."""
    import tensorflow as tf

    moved = tf.space_to_batch(x, block, pads)
    convolve = tf.nn.conv1d if len(block) == 1 else tf.nn.conv2d
    results = [
        tf.batch_to_space(convolve(moved, kernel, 1, "VALID"), block, crops) for kernel in kernels
    ]
    return tf.tanh(results[0] + 0.5) * tf.sigmoid(results[1])


def gated(x: Any) -> Any:
    """Causal, and one step more to make their number a multiple of the dilation."""
    kernels = np.random.default_rng(3).normal(0, 1, (2, 2, 3, 4)).astype("float32")
    return gate(x, kernels, (2,), [[2, 1]], [[0, 1]])


def gated_evenly(x: Any) -> Any:
    kernels = np.random.default_rng(4).normal(0, 1, (2, 3, 3, 4)).astype("float32")
    return gate(x[:, :4], kernels, (2,), [[2, 2]], [[0, 0]])


def gated_images(x: Any) -> Any:
    kernels = np.random.default_rng(5).normal(0, 1, (2, 2, 2, 1, 4)).astype("float32")
    return gate(x[..., None], kernels, (2, 1), [[2, 1], [1, 0]], [[0, 1], [0, 0]])


def repeated_twice(x: Any) -> Any:
    """Along an axis of one element, and along two others."""
    import tensorflow as tf

    return tf.tile(x, (2, 3, 2))


def average(x: Any) -> Any:
    """As GlobalAveragePooling1D computes it for masked sequences."""
    import tensorflow as tf

    mask = tf.cast(tf.reduce_any(x > 0, axis=2, keepdims=True), "float32")
    return tf.reduce_sum(x * mask, axis=1) / tf.reduce_sum(mask, axis=1)


def safe_average(x: Any) -> Any:
    """With a denominator that cannot be zero, as models for sentences have it."""
    import tensorflow as tf

    mask = tf.cast(x[:, :, 0] > 50, "float32")
    return tf.reduce_sum(x * mask[:, :, None], axis=1) / (
        tf.reduce_sum(mask, axis=1, keepdims=True) + 1e-9
    )


def limited_average(x: Any) -> Any:
    import tensorflow as tf

    mask = tf.cast(x[:, :, 0] > 0, "float32")
    count = tf.maximum(tf.reduce_sum(mask, axis=1, keepdims=True), 1.0)
    return tf.reduce_sum(x * mask[:, :, None], axis=1) / count


@pytest.mark.parametrize(
    ("function", "dtype", "gone", "atol"),
    [
        (last, "float32", "GATHER", 0),
        (any_positive, "float32", "REDUCE_ANY", 0),
        (masked, "float32", "REDUCE_ANY", 0),
        (wrapped, "int32", "SELECT", 0),
        (unstacked, "float32", "UNPACK", 0),
        (gelu, "float32", "GELU", 5e-4),
        ("elu", "float32", "ELU", 1e-6),
        ("selu", "float32", "EXP", 1e-5),
        ("celu", "float32", "EXP", 1e-6),
        ("exponential", "float32", "EXP", 1e-2),  # of up to 4000
        (softplus, "float32", "LOG", 5e-6),
        ("softsign", "float32", "DIV", 1e-6),
        ("hard_silu", "float32", "HARD_SWISH", 5e-6),
        (squared, "float32", "SQUARE", 0),
        (negative, "float32", "NEG", 0),
        (repeated, "float32", "TILE", 0),
        (repeated_twice, "float32", "TILE", 0),
        (repeated, "int32", "TILE", 0),
        (gated, "float32", "BATCH_TO_SPACE_ND", 1e-6),
        (gated, "float32", "SPACE_TO_BATCH_ND", 1e-6),
        (gated_evenly, "float32", "BATCH_TO_SPACE_ND", 1e-6),
        (gated_images, "float32", "BATCH_TO_SPACE_ND", 1e-6),
        (average, "float32", "DIV", 1e-6),
        (safe_average, "float32", "DIV", 1e-6),
        (limited_average, "float32", "DIV", 1e-6),
    ],
)
def test_rewritten_operators_compute_the_same(
    function: Callable[..., Any] | str, dtype: str, gone: str, atol: float
) -> None:
    """Strings are activation functions of Keras."""
    if isinstance(function, str):
        function = keras.activations.get(function)
    x = np.random.default_rng(7).normal(0, 3, (1, 5, 3)).astype(dtype)
    content = tflite_of(function, x.shape, dtype=dtype)
    rewritten = rewrite(content)
    kinds = {kind for _, _, kind in TFLiteFile(rewritten).operators()}
    assert gone in {kind for _, _, kind in TFLiteFile(content).operators()}
    assert gone not in kinds
    want = outputs(content, x).astype(np.float64)
    np.testing.assert_allclose(outputs(rewritten, x).astype(np.float64), want, rtol=0, atol=atol)


def test_a_slope_for_each_feature_computes_the_same() -> None:
    """A PReLU, as an operator in place of that of another activation function."""
    x = np.random.default_rng(7).normal(0, 3, (1, 5, 3)).astype("float32")
    file = TFLiteFile(tflite_of(keras.activations.tanh, x.shape))
    slope = file.add_constant(file.main, np.array([0.1, 0.2, -0.3], np.float32))
    source, output = map(int, (file.main.inputs[0], file.main.outputs[0]))
    file.main.operators = [file.new_operator("PRELU", [source, slope], [output])]
    content = file.to_bytes()
    rewritten = rewrite(content)
    assert "PRELU" not in {kind for _, _, kind in TFLiteFile(rewritten).operators()}
    np.testing.assert_allclose(outputs(rewritten, x), outputs(content, x), rtol=1e-6)


def largest(x: Any) -> Any:
    """keras.ops.argmax as edgeattn lowers it: -0.0 is less than 0.0."""
    import tensorflow as tf

    is_negative_zero = tf.logical_and(x == 0, tf.logical_or(x < 0, 1 / x < 0))
    return tf.argmax(tf.where(is_negative_zero, -np.finfo("float32").tiny, x), axis=-1)


def test_negative_zeros_are_no_quotients() -> None:
    """keras.ops.argmax finds them by their reciprocals, which integers do not have."""
    x = np.random.default_rng(7).normal(0, 3, (1, 5, 3)).astype("float32")
    content = tflite_of(largest, x.shape)
    assert "DIV" in {kind for _, _, kind in TFLiteFile(content).operators()}
    rewritten = without_negative_zeros(content)
    assert {kind for _, _, kind in TFLiteFile(rewritten).operators()} == {"ARG_MAX"}
    np.testing.assert_array_equal(outputs(rewritten, x), outputs(content, x))


def test_the_largest_output_of_attention(tmp_path: Path) -> None:
    """int16 has an integer form for all but the position, and int8 for accelerators for all."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 4), name="x")
    shares = keras.layers.Softmax(axis=1)(keras.layers.Dense(1)(inputs))
    context = keras.layers.Flatten()(keras.layers.Dot((1, 1))([shares, inputs]))
    scores = keras.layers.Dense(3, "softmax", name="scores")(context)
    model = keras.Model(inputs, [scores, keras.ops.argmax(scores, axis=-1)])
    x = np.random.default_rng(1).normal(0, 1, (60, 9, 4)).astype("float32")
    path = tmp_path / "m.tflite"
    converted = integer_file(model, {"x": x}, path, "int8", integer_only=True)
    assert not dtypes(path) & FLOATS
    with pytest.raises(ConversionError) as error:
        integer_file(model, {"x": x}, path, "int16x8", **OPTIONS)
    assert "1 operator prevents it. ARG_MAX" in error.value.message
    assert "find the largest outside" in error.value.message
    with pytest.raises(SchemeError, match="All operators compute in int16"):
        integer_file(model, {"x": x}, path, "int8", runtime=MICRO)
    converted = integer_file(model, {"x": x}, path, "int16x8", runtime=MICRO)
    runner = open_runner(
        path, "tflite", converted.inputs, converted.outputs, as_deployed=True, runtime=MICRO
    )
    found = next(value for value in runner.run({"x": x}).values() if value.dtype.kind == "i")
    np.testing.assert_array_equal(found, model.predict(x, verbose=0)[1])


def shares(x: Any) -> Any:
    import tensorflow as tf

    return x / tf.reduce_sum(tf.abs(x), axis=1, keepdims=True)


def per_truth(x: Any) -> Any:
    import tensorflow as tf

    return x / (tf.reduce_sum(tf.cast(x > 0, "float32"), axis=1, keepdims=True) + 0.5)


@pytest.mark.parametrize("function", [shares, per_truth])
def test_other_quotients_stay(function: Callable[..., Any]) -> None:
    """Denominators that are no counts can be small, and 0.5 is no protection against zero."""
    content = tflite_of(function, (1, 5, 3))
    assert "DIV" in {kind for _, _, kind in TFLiteFile(rewrite(content)).operators()}


def power(x: Any) -> Any:
    import tensorflow as tf

    with tf.name_scope("growth"):
        return tf.pow(tf.nn.relu(x), 1.7) + tf.one_hot(tf.argmax(x, axis=1), 3)


def test_operators_that_lite_micro_lacks_are_named() -> None:
    with pytest.raises(ConversionError) as error:
        require_micro_operators(TFLiteFile(tflite_of(power, (1, 3))))
    message = error.value.message
    assert message.startswith("tflite-micro lacks 2 operators of the model. ")
    assert "POW (growth/Pow): replace powers by products" in message
    assert "ONE_HOT (" in message


def test_masked_inputs_of_projections(tmp_path: Path) -> None:
    """Selections by a mask, in int16 with the projections of attention, keep their ranges."""
    import keras
    from keras import layers

    from edgeattn.layers import Attention

    keras.utils.set_random_seed(3)
    inputs = keras.Input((10, 3), name="x")
    queries = layers.Dense(24)(layers.Masking(0.0)(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="answer")(Attention(16)(queries)))
    x = np.random.default_rng(5).normal(0, 1, (40, 10, 3)).astype("float32")
    x[np.arange(10) >= np.random.default_rng(6).integers(4, 11, (40, 1))] = 0
    path = tmp_path / "m.tflite"
    converted = integer_file(model, {"x": x}, path, **OPTIONS)
    assert not dtypes(path) & FLOATS
    assert "SELECT_V2" in converted.achieved["operators"]
    runner = open_runner(
        path, "tflite", converted.inputs, converted.outputs, as_deployed=True, runtime=MICRO
    )
    actual = runner.run({"x": x})["answer"]
    assert snr_db(model.predict(x, verbose=0), actual) >= LIMITS["int8"].snr_db


def test_files_are_selected_by_size() -> None:
    """The cost model counts LiteRT's kernels, in which int16 takes thirty times as long."""
    quantizer = MicroQuantizer.__new__(MicroQuantizer)
    assert quantizer.expense(QuantizedModel(b"12345", (), ())) == 5


def test_consecutive_sequences_are_independent(lstm: Conversions) -> None:
    converted = lstm.make("tflite", "int16x8", **OPTIONS)
    runner = open_runner(
        converted.path, "tflite", converted.inputs, converted.outputs, runtime=MICRO,
        as_deployed=True,
    )  # fmt: skip
    reverse = {name: array[::-1] for name, array in lstm.inputs.items()}
    for name, array in runner.run(reverse).items():
        np.testing.assert_array_equal(array[::-1], converted.actual[name])


def test_fused_lstm(lstm: Conversions) -> None:
    converted = lstm.make("tflite", "int16x8", lowering="fused", **OPTIONS)
    assert converted.achieved["operators"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert not dtypes(converted.path) & FLOATS
    assert_close(converted, lstm.make("tflite", "float32"), "int8")


def test_fused_lstms_need_int16(lstm: Conversions) -> None:
    with pytest.raises(SchemeError, match="int8 does not support fused LSTMs") as error:
        lstm.make("tflite", "int8", lowering="fused", **OPTIONS)
    assert "int16x8" in str(error.value.hint)


UNITS, STEPS = 8, 24


@pytest.fixture(scope="module")
def saturating() -> tuple[Any, dict[str, np.ndarray]]:
    """A model whose gates stay open, so that every step adds the sign of the input to the cell, and
    small samples, on which the cell stays small."""
    import keras
    from keras import layers

    inputs = keras.Input((STEPS, 2), name="x")
    model = keras.Model(inputs, layers.LSTM(UNITS, return_sequences=True, name="steps")(inputs))
    generator = np.random.default_rng(3)
    kernel = np.zeros((2, 4 * UNITS), np.float32)
    kernel[:, 2 * UNITS : 3 * UNITS] = generator.normal(0, 3, (2, UNITS))
    bias = np.full(4 * UNITS, 6.0, np.float32)
    bias[2 * UNITS : 3 * UNITS] = 0
    recurrent = generator.normal(0, 0.3, (UNITS, 4 * UNITS)).astype("float32")
    model.get_layer("steps").set_weights([kernel, recurrent, bias])
    samples = {"x": generator.normal(0, 0.05, (32, STEPS, 2)).astype("float32")}
    return model, samples


def saturated_outputs(saturating: tuple[Any, dict[str, np.ndarray]], path: Path) -> Any:
    """Outputs of a sequence alone, and after each of several that saturate every cell."""
    from edgeattn_converters.formats import tflite
    from edgeattn_converters.options import ConversionOptions, QuantizationOptions
    from edgeattn_converters.recipes import recipe_for
    from edgeattn_converters.tracing.trace import interface_of

    model, samples = saturating
    file = tflite.convert(
        model, interface_of(model), recipe_for("int16x8"), path, samples=samples,
        options=ConversionOptions(lowering="fused"), quantization=QuantizationOptions(**OPTIONS),
    )  # fmt: skip

    def run(*sequences: np.ndarray) -> np.ndarray:
        runner = open_runner(
            path, "tflite", file.inputs, file.outputs, as_deployed=True, runtime=MICRO
        )
        (outputs,) = runner.run({"x": np.stack(sequences)}).values()
        return np.asarray(outputs[-1])

    sequence = samples["x"][0]
    large = [np.full((STEPS, 2), value, np.float32) for value in (1e3, -1e3)]
    large.append(np.tile(np.array([1e3, -1e3], np.float32), (STEPS, 1)))
    return run(sequence), [run(other, sequence) for other in (*large, samples["x"][1])]


def test_saturated_cells_leave_nothing(
    saturating: tuple[Any, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    alone, after = saturated_outputs(saturating, tmp_path / "m.tflite")
    for outputs in after:
        np.testing.assert_array_equal(outputs, alone)


def test_one_step_does_not_clear_saturated_cells(
    saturating: tuple[Any, dict[str, np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversion compares sequences in both orders, and detects it on ordinary samples."""
    monkeypatch.setattr(integer_lstm, "clearing_steps", lambda *_: 1)
    with pytest.raises(SchemeError, match="not cleared between sequences"):
        saturated_outputs(saturating, tmp_path / "m.tflite")


def test_clearing_steps() -> None:
    """By hand: without recurrent weights, h is zero after a step, and c forgotten after two."""
    zero = np.zeros((3, 12), np.float32)
    assert integer_lstm.clearing_steps(zero, 3, 2.0**-12) == 2
    # A sum of recurrent weights that can hold the gates open for ever.
    assert integer_lstm.clearing_steps(np.full((30, 120), 9.0), 30, 2.0**-12) is None


def test_cells_as_keras_computes_them(saturating: tuple[Any, dict[str, np.ndarray]]) -> None:
    import keras

    model, samples = saturating
    layer = model.get_layer("steps")
    weights = integer_lstm.LSTMWeights(*layer.get_weights())
    # Keras returns the last cell; the largest one is among those of all prefixes.
    stateful = keras.layers.LSTM(UNITS, return_state=True)
    stateful.build((None, STEPS, 2))
    stateful.set_weights(layer.get_weights())
    x = samples["x"][:, :5]
    cells = [np.abs(stateful(x[:, : k + 1])[2]).max() for k in range(5)]
    assert weights.largest_cell(x) == pytest.approx(max(cells), rel=1e-5)


def test_steps_share_their_ranges(lstm: Conversions) -> None:
    """The first steps of most sequences are quiet; a loud one must not be clipped."""
    from edgeattn_converters.formats.tflite_float import float_file

    _, content = float_file(lstm.model, lstm.interface, True, "unrolled", 1)
    file = TFLiteFile(content)
    # A range of its own for every tensor.
    own = {index: (-1.0 - index, 2.0 + index) for index in range(len(file.main.tensors))}
    shared = share_step_ranges(file, own, ("steps",))
    steps: dict[int, list[int]] = {}
    for operator in file.main.operators:
        if file.kind(operator) == "FULLY_CONNECTED":
            steps.setdefault(int(operator.inputs[1]), []).append(int(operator.outputs[0]))
    (recurrent,) = (indices for indices in steps.values() if len(indices) > 1)
    # The first step has no state to multiply.
    assert len(recurrent) == 19 - 1
    assert {shared[index] for index in recurrent} == {(-1.0 - max(recurrent), 2.0 + max(recurrent))}
    for index in (i for indices in steps.values() if len(indices) == 1 for i in indices):
        assert shared[index] == own[index]
    assert share_step_ranges(file, own, ()) == own


def test_masked_steps_share_their_ranges() -> None:
    """Also the step after the first one, whose state is selected beside zeros: calibration may have
    nothing but padding there."""
    import keras
    from keras import layers

    from edgeattn_converters.formats.tflite_float import float_file
    from edgeattn_converters.quantization.layer_weights import recurrent_layers
    from edgeattn_converters.tracing.trace import interface_of

    inputs = keras.Input((5, 3), name="x")
    states = layers.LSTM(4, name="steps")(layers.Masking()(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="answer")(states))
    _, content = float_file(model, interface_of(model), True, "unrolled", 1)
    file = TFLiteFile(content)
    makers = {int(i): item for item in file.main.operators for i in item.outputs}

    def reads_state(operator: Any) -> bool:
        states = [
            int(i) for i in operator.inputs if list(file.main.tensors[int(i)].shape) == [1, 4]
        ]
        return any(i in makers and file.kind(makers[i]) == "SELECT_V2" for i in states)

    own = {index: (-1.0 - index, 2.0 + index) for index in range(len(file.main.tensors))}
    shared = share_step_ranges(file, own, recurrent_layers(model))
    for kind in ("FULLY_CONNECTED", "MUL"):  # the product of the state, and that of the cell
        steps = [
            int(item.outputs[0])
            for item in file.main.operators
            if file.kind(item) == kind and reads_state(item)
            if "steps" in file.name(file.main.tensors[int(item.outputs[0])])
        ]
        assert len(steps) == 5 - 1, kind
        assert {shared[index] for index in steps} == {(-1.0 - max(steps), 2.0 + max(steps))}


def test_steps_of_both_directions_share_their_ranges() -> None:
    """Each direction of a Bidirectional is a recurrence of its own."""
    import keras
    from keras import layers

    from edgeattn_converters.formats.tflite_float import float_file
    from edgeattn_converters.quantization.float_operators import recurrent_operators
    from edgeattn_converters.quantization.layer_weights import recurrent_layers
    from edgeattn_converters.quantization.state_updates import step_products
    from edgeattn_converters.tracing.trace import interface_of

    inputs = keras.Input((4, 3), name="x")
    both = layers.Bidirectional(layers.LSTM(5, name="steps"))
    model = keras.Model(inputs, layers.Dense(2, name="answer")(both(inputs)))
    _, content = float_file(model, interface_of(model), True, "unrolled", 1)
    file, names = TFLiteFile(content), recurrent_layers(model)
    outputs = [
        int(operator.outputs[0])
        for operator in file.main.operators
        if file.kind(operator) == "FULLY_CONNECTED"
    ]
    products = step_products(file, names)
    steps = [i for i in outputs if file.name(file.main.tensors[i]) in products]
    # The first step has no state to multiply.
    assert len(steps) == 2 * (4 - 1)
    assert products <= recurrent_operators(file, names)
    assert "answer" not in recurrent_operators(file, names)
    own = {index: (-1.0 - index, 2.0 + index) for index in range(len(file.main.tensors))}
    shared = share_step_ranges(file, own, names)
    assert len({shared[index] for index in steps}) == 2
