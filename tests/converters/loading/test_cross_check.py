"""What is reported about a file that a stock loader opens too, and what was verified of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from long_parameters import only

import models
from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import ModelFile, audit_file
from edgeattn_converters.loading.config_inspection import has_masks
from edgeattn_converters.loading.cross_check import compare_with_stock_loader
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate import tensorflow_layers
from edgeattn_converters.loading.migrate.context import Context
from edgeattn_converters.loading.output_differences import Difference, difference
from edgeattn_converters.loading.with_tf_keras import configs_for_tf_keras

SPECIMENS = Path(__file__).parents[2] / "specimens"


def saved_by(version: str, folder: Path, model: Any) -> ModelFile:
    path = folder / "m.h5"
    model.save(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = version
    return audit_file(path)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_only_changes_that_explain_the_difference_are_said_to_do_so(
    policy: str, tmp_path: Path
) -> None:
    """MultiHeadAttention ignored masks in Keras 2.8; tf_keras opens the file but applies them."""
    import tf_keras

    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        inputs = tf_keras.Input((5,))
        words = tf_keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
        attended = tf_keras.layers.MultiHeadAttention(2, 3)(words, words)
        model = tf_keras.Model(inputs, tf_keras.layers.GlobalMaxPooling1D()(attended))
        generator = np.random.default_rng(17)
        model.set_weights([generator.normal(0, 0.5, v.shape) for v in model.get_weights()])
        file = saved_by("2.8.0", tmp_path, model)
    finally:
        tf_keras.mixed_precision.set_global_policy(None)
    *changes, last = load_model(file).notes
    assert "masks as in Keras 2.8.0" in " ".join(changes)
    assert "only because it does not make the changes listed here" in last
    assert last.endswith("which are those of Keras 2.8.0.")


@pytest.mark.parametrize("version", ["3.5.0", keras.__version__])
def test_a_model_in_half_precision_without_changes_is_not_reported(
    version: str, tmp_path: Path
) -> None:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((7, 3), name="x")
        states = keras.layers.LSTM(5, name="lstm")(inputs)
        model = models.filled(keras.Model(inputs, keras.layers.Dense(2, name="y")(states)))
        file = saved_by(version, tmp_path, model)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    (note,) = load_model(file).notes
    assert note.endswith("mixed_float16 and is computed in float32.")


@pytest.fixture
def loaded_wrongly(tmp_path: Path) -> tuple[ModelFile, keras.Model]:
    """A file, and a model with another weight than the file has."""
    model = models.filled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="y")]))
    file = saved_by("3.5.0", tmp_path, model)
    kernel, bias = model.get_weights()
    model.set_weights([kernel, bias + 1])
    return file, model


def context(version: tuple[int, ...], notes: list[str]) -> Context:
    return Context(*(3, version, lambda name: None, {}, lambda name: (), False), notes=list(notes))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ((3, 5, 0), "no change of edgeattn explains"),
        (tuple(map(int, keras.__version__.split(".")[:3])), "saved the file"),
    ],
)
def test_a_difference_that_nothing_explains_is_refused(
    version: tuple[int, ...], message: str, loaded_wrongly: tuple[ModelFile, keras.Model]
) -> None:
    file, model = loaded_wrongly
    with pytest.raises(UnsupportedModelError, match=message):
        compare_with_stock_loader(
            *(file, file.config, model, context(version, [])), lambda version: model
        )


def test_a_difference_with_other_reasons_is_not_called_explained(
    loaded_wrongly: tuple[ModelFile, keras.Model],
) -> None:
    file, model = loaded_wrongly
    ctx = context((3, 5, 0), ["y: a change."])
    (note,) = compare_with_stock_loader(file, file.config, model, ctx, lambda version: model)
    assert note.endswith("Whether only the changes listed here cause this was not verified.")
    stock = keras.saving.load_model(file.path, compile=False)
    (note,) = compare_with_stock_loader(file, file.config, model, ctx, lambda version: stock)
    assert note.endswith("the changes listed here, which are those of Keras 3.5.0.")
    # (x W + b + 1) - (x W + b) = 1, relative to the largest output
    x = np.zeros((1, 4), "float32")
    assert np.allclose(model(x) - stock(x), 1)


def test_moments_in_a_nested_model_of_a_file_that_keras_loads_wrongly(tmp_path: Path) -> None:
    """Keras 3 reads their variables from an .h5 file, and computes with those of a new layer."""
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(1).normal(3, 5, (50, 4)))
    inner = keras.Sequential([keras.Input((4,)), normalization], name="inner")
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(inner(inputs)))
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(2).normal(3, 5, (6, 4)).astype("float32")
    loaded = load_model(audit_file(tmp_path / "model.h5"))
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-5)
    assert not loaded.notes


@pytest.mark.parametrize("is_nested", [False, True])
def test_axes_that_keras_loses(is_nested: bool, tmp_path: Path) -> None:
    """For .h5 files, Keras loads layers with several axes with their default, the last axis."""
    x = keras.Input((4, 3))
    softmax = keras.layers.Softmax(axis=(1, 2))
    norm = keras.layers.UnitNormalization(axis=[1, 2])
    outputs = [softmax(x), norm(x)]
    if is_nested:
        outputs = [keras.Sequential([keras.Input((4, 3)), each])(x) for each in (softmax, norm)]
    keras.Model(x, outputs).save(tmp_path / "m.h5")
    loaded = load_model(audit_file(tmp_path / "m.h5"))
    sums, normed = loaded.model(np.random.default_rng(5).normal(size=(2, 4, 3)).astype("float32"))
    np.testing.assert_allclose(np.sum(sums, (1, 2)), [1, 1], rtol=1e-6)
    np.testing.assert_allclose(np.sum(np.square(normed), (1, 2)), [1, 1], rtol=1e-6)
    assert [note.split(" in this file")[0] for note in loaded.notes] == [
        f"load_model of Keras loses the axes [1, 2] of layer {layer.name!r}"
        for layer in (softmax, norm)
    ]


def test_samples_have_words_and_padding_in_every_step(tmp_path: Path) -> None:
    """The Embedding of the words of sentences failed on them, so nothing was compared."""
    layers = tf_keras.layers
    ids = tf_keras.Input((3, 8))
    words = layers.TimeDistributed(layers.Embedding(9, 4, mask_zero=True))(ids)
    model = tf_keras.Model(ids, layers.TimeDistributed(layers.GlobalAveragePooling1D())(words))
    model.save(tmp_path / "m.h5")
    stored = {"class_name": "Functional", "config": model.get_config()}
    assert has_masks(stored)
    x = keras.Input((3, 8))
    embedding = keras.layers.TimeDistributed(keras.layers.Embedding(9, 4))
    without_mask = keras.Model(x, keras.ops.mean(embedding(x), axis=2))
    without_mask.set_weights(model.get_weights())
    file = audit_file(tmp_path / "m.h5")
    ctx = Context(2, (2, 21, 0), lambda _: None, {}, lambda _: [], masked=True)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        compare_with_stock_loader(file, stored, without_mask, ctx, lambda _: without_mask)


def words(size: int) -> tuple[Any, Any]:
    ids = tf_keras.Input((size,))
    return ids, tf_keras.layers.Embedding(9, 4, mask_zero=True)(ids)


def behind_a_function() -> tuple[Any, Any]:
    """The mask ends at the function; in the other model it does not."""
    (a, q), (b, v) = words(5), words(7)
    results = [tf_keras.layers.Attention()([x, v]) for x in (tf.identity(q), q)]
    return tuple(tf_keras.Model([a, b], result) for result in results)


def of_two_inputs() -> tuple[Any, Any]:
    """A step of the sum is valid if it is in both inputs, and in the first of the other model."""
    (a, q), (b, v) = words(6), words(6)
    sums = (tf_keras.layers.Add()([q, y]) for y in (v, tf_keras.layers.Embedding(9, 4)(b)))
    pooled = [tf_keras.layers.GlobalAveragePooling1D()(x) for x in sums]
    return tuple(tf_keras.Model([a, b], result) for result in pooled)


def of_a_value() -> tuple[Any, Any]:
    """Steps of -1 are masked, and in the other model none."""
    x = tf_keras.Input((6, 3))
    sequences = (tf_keras.layers.Masking(-1.0)(x), tf_keras.layers.Masking(-2.0)(x))
    results = [tf_keras.layers.GlobalAveragePooling1D()(y) for y in sequences]
    return tuple(tf_keras.Model(x, result) for result in results)


def of_a_slice() -> tuple[Any, Any]:
    """tf_keras loads ``...`` as a mapping, which it cannot slice with."""
    x = tf_keras.Input((6, 3))
    return tuple(tf_keras.Model(x, y) for y in (x[..., :1], x[..., 1:2]))


def of_a_constant_mask() -> tuple[Any, Any]:
    """tf_keras loads the mask as a list, which has no shape."""
    x = tf_keras.Input((5, 3))
    masks = (np.tri(5, dtype=bool)[None], np.tri(5, dtype=bool).T[None])
    layers = (tf_keras.layers.MultiHeadAttention(2, 3) for _ in masks)
    results = [layer(x, x, attention_mask=mask) for layer, mask in zip(layers, masks, strict=True)]
    return tuple(tf_keras.Model(x, result) for result in results)


def of_a_table() -> tuple[Any, Any]:
    """tf_keras loads the table as a list, which are three tables."""
    x = tf_keras.Input((5,))
    tables = (np.arange(6.0, dtype="float32").reshape(3, 2), np.ones((3, 2), "float32"))
    ids = tf.cast(x > 0, "int32")
    return tuple(tf_keras.Model(x, tf.nn.embedding_lookup(table, ids)) for table in tables)


def of_categories() -> tuple[Any, Any]:
    """The layer accepts integers from 0 to 3."""
    x = tf_keras.Input((6,), dtype="int32")
    layers = [tf_keras.layers.CategoryEncoding(4, mode) for mode in ("count", "multi_hot")]
    return tuple(tf_keras.Model(x, layer(x)) for layer in layers)


def of_two_values() -> tuple[Any, Any]:
    """Steps of -1 of the first input are masked, and of -2 or, in the other model, 3 of another."""
    a, b = tf_keras.Input((6, 3)), tf_keras.Input((6, 3))
    pool, mask = tf_keras.layers.GlobalAveragePooling1D(), tf_keras.layers.Masking
    return tuple(
        tf_keras.Model([a, b], [pool(mask(-1.0)(a)), pool(mask(value)(b))]) for value in (-2.0, 3.0)
    )


def of_two_masks() -> tuple[Any, Any]:
    """The values -1 and -2 of one input; the other model masks the second nowhere."""
    x = tf_keras.Input((6, 3))
    pool, mask = tf_keras.layers.GlobalAveragePooling1D(), tf_keras.layers.Masking
    return tuple(
        tf_keras.Model(x, [pool(mask(-1.0)(x)), pool(mask(value)(x))]) for value in (-2.0, 9.0)
    )


def of_both_masks() -> tuple[Any, Any]:
    """A step of the sum is valid if it is in both inputs, which mask other values."""
    a, b = tf_keras.Input((6, 3)), tf_keras.Input((6, 3))
    pool, masking = tf_keras.layers.GlobalAveragePooling1D(), tf_keras.layers.Masking
    first, second = masking(-1.0)(a), masking(-2.0)(b)
    both = tf_keras.layers.Add()([first, second])
    return tuple(tf_keras.Model([a, b], pool(x)) for x in (both, first + second))


def of_logarithms() -> tuple[Any, Any]:
    """The states are NaN after the first negative number."""
    x = tf_keras.Input((6, 3))
    states = tf_keras.layers.LSTM(4)(tf.math.log(x))
    return tuple(tf_keras.Model(x, [y, x[:, 0]]) for y in (states, 2 * states))


PAIRS = (
    *(behind_a_function, of_two_inputs, of_a_value, of_a_constant_mask, of_a_table),
    *(of_two_values, of_two_masks, of_both_masks, of_logarithms),
    *(of_categories, of_a_slice),
)
# tf_keras cannot save the argument ... in this format.
ARCHIVES = [(models, ".keras") for models in PAIRS if models is not of_a_slice]
FILES = [(models, ".h5") for models in PAIRS]


@pytest.mark.parametrize(
    "case", only([*FILES, *ARCHIVES], *FILES), ids=lambda case: f"{case[0].__name__}{case[1]}"
)
def test_the_comparison_shows_another_model(
    case: tuple[Callable[[], tuple[Any, Any]], str], tmp_path: Path
) -> None:
    models, suffix = case
    loaded = []
    for index, model in enumerate(models()):
        generator = np.random.default_rng(2)
        model.set_weights([generator.normal(0, 1, x.shape) for x in model.get_weights()])
        path = tmp_path / f"{index}{suffix}"
        model.save(path)
        loaded.append(load_model(audit_file(path)))
    ctx = Context(2, (2, 21, 0), lambda _: None, {}, lambda _: (), masked=True)
    (first, second), file = loaded, loaded[0].file
    assert not any("opens this file too" in note for note in first.notes)
    arguments = (file, file.config, second.model, ctx, lambda _: second.model)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        compare_with_stock_loader(*arguments)


CALL, NODE = "TFOpLambda", "TensorFlowOpLayer"


@pytest.mark.parametrize(
    ("class_name", "config", "expected"),
    [
        (CALL, {"function": "identity"}, True),
        (CALL, {"function": "__operators__.add"}, True),
        (CALL, {"function": "compat.v1.transpose"}, True),
        (CALL, {"function": "io.write_file"}, False),
        (CALL, {"function": "io.write_file", "node_def": {"op": "Relu"}}, False),
        (CALL, {"function": "py_function"}, False),
        (CALL, {"function": ["identity"]}, False),
        (NODE, {"node_def": {"op": "Relu"}}, True),
        (NODE, {"node_def": {"op": "WriteFile"}}, False),
        (NODE, {"node_def": '{"op": "Relu"}'}, False),
        (NODE, {"function": "identity"}, False),
    ],
)
def test_only_functions_that_compute_are_called(
    class_name: str, config: dict[str, Any], expected: bool
) -> None:
    item = {"class_name": class_name, "config": config}
    assert tensorflow_layers.only_computes(item) == expected


def test_only_modules_of_keras_are_imported(tmp_path: Path) -> None:
    x = tf_keras.Input((3,))
    tf_keras.Model(x, tf_keras.layers.Dense(2)(x)).save(tmp_path / "m.keras")
    config = audit_file(tmp_path / "m.keras").config
    assert configs_for_tf_keras.has_only_its_modules(config)
    config["config"]["layers"][-1]["module"] = "another"
    assert not configs_for_tf_keras.has_only_its_modules(config)


def test_outputs_that_are_not_numbers_are_not_equal(tmp_path: Path) -> None:
    """The largest of 0 and NaN is 0 in Python, in that order."""
    layers = keras.layers
    x = keras.Input((3,))
    file = saved_by("3.5.0", tmp_path, keras.Model(x, [layers.ReLU()(x), layers.Softmax()(x)]))
    wrong = keras.Model(x, [layers.ReLU()(x), keras.ops.log(layers.Softmax()(x) - 2)])
    with pytest.raises(UnsupportedModelError, match="max error inf"):
        compare_with_stock_loader(
            *(file, file.config, wrong, context((3, 5, 0), [])), lambda version: wrong
        )


def nowhere_defined(x: Any) -> Any:
    return keras.ops.log(-1 - keras.ops.abs(x))


def test_outputs_that_are_never_numbers_are_not_compared(tmp_path: Path) -> None:
    x = keras.Input((3,))

    def model(bias: float) -> Any:
        named = {"a": nowhere_defined(x), "b": keras.ops.sin(x) + bias}
        outputs = [keras.layers.Identity(name=name)(y) for name, y in named.items()]
        return keras.Model(x, outputs)

    model(0).save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    assert loaded.notes == (
        f"The output 'a' was not compared with Keras {keras.__version__}: there are values that "
        "are NaN or infinite for all samples.",
    )
    file = loaded.file
    arguments = (file, file.config, model(1), context((3, 5, 0), []), lambda _: None)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        compare_with_stock_loader(*arguments)


@pytest.mark.parametrize("is_wrong_defined", [False, True])
def test_numbers_in_one_model_and_nan_in_the_other_are_a_difference(
    is_wrong_defined: bool, tmp_path: Path
) -> None:
    x = keras.Input((3,))
    models = [keras.Model(x, keras.ops.log(x)), keras.Model(x, keras.ops.log(keras.ops.abs(x)))]
    right, wrong = models if is_wrong_defined else models[::-1]
    right.save(tmp_path / "m.keras")
    file = audit_file(tmp_path / "m.keras")
    assert not load_model(file).notes
    with pytest.raises(UnsupportedModelError, match="max error inf"):
        compare_with_stock_loader(
            *(file, file.config, wrong, context((3, 5, 0), [])), lambda _: wrong
        )


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("actual", "expected", "error", "unknown"),
    [
        ([[1, 2]], [[1, 4]], 0.5, ()),
        ([[NAN, 2]], [[NAN, 4]], 0.5, (0,)),
        ([[NAN, 4], [4, NAN]], [[NAN, 4], [2, NAN]], 0.5, ()),
        ([[NAN, NAN]], [[NAN, NAN]], 0.0, (0,)),
        ([[NAN, 1]], [[1, 1]], INF, ()),
        ([[1, 1]], [[NAN, 1]], INF, (0,)),
        ([[-INF, 1]], [[-INF, 1]], 0.0, ()),
        ([[-INF, 1]], [[INF, 1]], INF, ()),
        ([[INF]], [[INF]], 0.0, (0,)),
        ([[1, 2, 3]], [[1, 2]], INF, ()),
    ],
)
def test_differences(actual: Any, expected: Any, error: float, unknown: tuple[int, ...]) -> None:
    pair = [[[np.asarray(values, "float64")]] for values in (actual, expected)]
    assert difference(*pair) == Difference(error, unknown)
    others = [[[np.ones((2, 2))]] * 2 for _ in pair]
    more = difference(*(a + b for a, b in zip(pair, others, strict=True)))
    assert more.error == error
    # Ones in another group of the same sizes are known.
    assert not more.unknown


def test_other_numbers_of_outputs_are_a_difference() -> None:
    one = np.ones((2, 2))
    assert difference([[one]], [[one, one]]).error == INF


def test_operations_of_keras_3_are_compared(tmp_path: Path) -> None:
    x = keras.Input((3,))
    keras.Model(x, keras.ops.sin(x) + x).save(tmp_path / "m.keras")
    loaded = load_model(audit_file(tmp_path / "m.keras"))
    wrong = keras.Model(x, keras.ops.cos(x) + x)
    arguments = (loaded.file, loaded.file.config, wrong, context((3, 5, 0), []), lambda _: wrong)
    with pytest.raises(UnsupportedModelError, match="would be loaded wrongly"):
        compare_with_stock_loader(*arguments)


def test_archives_of_former_versions_are_compared() -> None:
    """tf_keras may find other weights in them, so a difference is reported and not refused."""
    file = audit_file(SPECIMENS / "tf2.15" / "lstm_sequential.keras")
    loaded = load_model(file)
    assert not loaded.notes
    loaded.model.set_weights([2 * value for value in loaded.model.get_weights()])
    ctx = Context(2, (2, 15, 0), lambda _: None, {}, lambda _: (), masked=False)
    arguments = (file, file.config, loaded.model, ctx, lambda _: loaded.model)
    (note,) = compare_with_stock_loader(*arguments)
    assert note.endswith("Whether it finds the right weights was not verified.")
