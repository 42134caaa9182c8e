"""``tf.TensorArray`` in graphs: lists that Python loops write, and what follows those of loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.errors import ConversionError
from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 5, 3
X = np.random.default_rng(5).normal(size=(4, STEPS, FEATURES)).astype("float32")
RAW = tf.raw_ops


def array(size: int = STEPS, **options: Any) -> Any:
    return tf.TensorArray(tf.float32, size, clear_after_read=False, **options)


def growing() -> Any:
    return array(0, dynamic_size=True, element_shape=(None, FEATURES))


def turned(x: Any) -> Any:
    """From (steps, batch, ...) to (batch, steps, ...), and back."""
    return tf.transpose(x, (1, 0, *range(2, x.shape.rank)))


def written(list_: Any, x: Any, positions: Any = range(STEPS)) -> Any:
    """States of a recurrence in Python, the k-th one at ``positions[k]``."""
    state = tf.zeros_like(x[:, 0])
    for step, position in enumerate(positions):
        state = tf.tanh(x[:, step] + state)
        list_ = list_.write(position, state)
    return list_


def previous(x: Any) -> Any:
    """Each element is computed from the one before."""
    list_ = array().write(0, x[:, 0])
    for step in range(1, STEPS):
        list_ = list_.write(step, list_.read(step - 1) * 0.5 + x[:, step])
    return turned(list_.stack())


def different_lengths(x: Any) -> Any:
    """Elements of other shapes, of two axes without one for the samples."""
    list_ = tf.TensorArray(tf.float32, 3, infer_shape=False, element_shape=(None, FEATURES))
    for step in range(3):
        list_ = list_.write(step, tf.reduce_sum(x, 0)[: step + 1])
    return x[:, :1] + tf.ensure_shape(list_.concat(), (6, FEATURES))[None]


def split(x: Any) -> Any:
    list_ = tf.TensorArray(tf.float32, 2, infer_shape=False, clear_after_read=False)
    list_ = list_.split(turned(x), [2, 3])
    last = tf.ensure_shape(list_.read(1), (3, None, FEATURES))
    return turned(last) - turned(tf.ensure_shape(list_.read(0), (2, None, FEATURES)))[:, :1]


def computed_position(x: Any) -> Any:
    first = tf.cast(tf.reduce_sum(X[0]) > 0, tf.int32) + tf.cast(tf.reduce_sum(x) > 1e9, tf.int32)
    list_ = array(element_shape=(None, FEATURES)).write(first, x[:, 0]).write(1 - first, x[:, 1])
    return turned(list_.write(2, list_.read(first) * 2.0).stack())


def in_branches(x: Any) -> Any:
    list_ = written(array(2), x, range(2))

    def branch(factor: float) -> Any:
        return turned(list_.write(1, list_.read(0) * factor).stack())

    return tf.cond(tf.reduce_sum(tf.abs(x)) > 1e9, lambda: branch(2.0), lambda: branch(-1.0))


def before_2_13(x: Any) -> Any:
    """How TensorFlow wrote to a list that grows before operations could do it at once."""
    list_ = RAW.TensorListReserve(element_shape=-1, num_elements=0, element_dtype=tf.float32)
    for step in range(3):
        length = RAW.TensorListLength(input_handle=list_)

        def longer(list_: Any = list_, step: int = step) -> Any:
            return RAW.TensorListResize(input_handle=list_, size=step + 1)

        list_ = tf.cond(tf.constant(step) >= length, longer, lambda list_=list_: list_)
        list_ = RAW.TensorListSetItem(input_handle=list_, index=step, item=x[:, step] * 2)
    stack = RAW.TensorListStack(input_handle=list_, element_shape=-1, element_dtype=tf.float32)
    return turned(tf.ensure_shape(stack, (None, None, FEATURES)))


def appended(x: Any) -> Any:
    list_ = RAW.EmptyTensorList(element_shape=-1, max_num_elements=-1, element_dtype=tf.float32)
    for step in range(3):
        list_ = RAW.TensorListPushBack(input_handle=list_, tensor=x[:, step])
    stack = RAW.TensorListStack(input_handle=list_, element_shape=-1, element_dtype=tf.float32)
    return turned(tf.ensure_shape(stack, (None, None, FEATURES)))


def truths(x: Any) -> Any:
    list_ = tf.TensorArray(tf.bool, STEPS)
    for step in range(STEPS):
        list_ = list_.write(step, x[:, step] > 0)
    return tf.cast(turned(list_.stack()), tf.float32)


def size(x: Any) -> Any:
    list_ = written(growing(), x, range(3))
    return turned(list_.stack()) * tf.cast(list_.size(), tf.float32)


def loop(list_: Any, x: Any, index: Callable[[Any], Any] = lambda step: step, **limits: int) -> Any:
    """States of a recurrence in a loop of TensorFlow."""
    start, stop = limits.get("start", 0), limits.get("stop", STEPS)

    def body(step: Any, state: Any, list_: Any) -> Any:
        state = tf.tanh(x[:, step] + state)
        return step + limits.get("step", 1), state, list_.write(index(step), state)

    first = (tf.constant(start), tf.zeros_like(x[:, 0]), list_)
    return tf.while_loop(lambda step, *_: step < stop, body, first)[2]


def continued(x: Any) -> Any:
    """A list that grows in a loop, which reads the element before."""
    _, list_ = tf.while_loop(
        lambda step, _: step < STEPS,
        lambda step, list_: (step + 1, list_.write(step, list_.read(step - 1) * 0.5 + x[:, step])),
        (1, growing().write(0, x[:, 0])),
    )
    return turned(list_.stack())


def stops_early(x: Any) -> Any:
    """Of a list that grows, as long as the values of the sample say."""
    _, total, list_ = tf.while_loop(
        lambda step, total, _: tf.logical_and(step < STEPS, total < 2.0),
        lambda step, total, list_: (
            step + 1,
            total + tf.reduce_max(tf.abs(x[:, step])),
            list_.write(step, x[:, step]),
        ),
        (0, 0.0, growing()),
    )
    return tf.reduce_sum(list_.stack(), 0) + total


def reads_in_loop(list_: Any, x: Any) -> Any:
    return tf.while_loop(
        lambda step, _: step < STEPS,
        lambda step, total: (step + 1, total * 0.5 + list_.read(STEPS - 1 - step)),
        (0, tf.zeros_like(x[:, 0])),
    )[1]


def shape_of_loop(x: Any) -> Any:
    stack = loop(array(), x, lambda step: STEPS - 1 - step).stack()
    return turned(stack) * tf.cast(tf.shape(stack)[0], tf.float32)


LISTS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "some of all": {
        "stack": lambda x: turned(written(array(), x).stack()),
        "previous": previous,
        "growing": lambda x: turned(loop(growing(), x).stack()),
    },
    "python": {
        "of size 0": lambda x: turned(written(growing(), x).stack()),
        "gather": lambda x: turned(written(array(), x).gather([4, 1, 1])),
        "from the end": lambda x: turned(written(growing(), x, (4, 2, 0)).stack()),
        "with gaps": lambda x: turned(written(array(), x, (3, 1)).stack()),
        "twice": lambda x: turned(written(array(2), x, (0, 1, 0)).stack()),
        "unstack": lambda x: sum(array().unstack(turned(x)).read(k) * (k + 1.0) for k in range(3)),
        "changed": lambda x: turned(array().unstack(turned(x)).write(2, x[:, 0]).stack()),
        "scatter": lambda x: turned(
            array(element_shape=(None, FEATURES)).scatter([4, 2, 1, 0, 3], turned(x)).stack()
        ),
        "concat": lambda x: tf.reshape(written(array(2), x, (0, 1)).concat(), (2, -1, FEATURES))[0],
        "different lengths": different_lengths,
        "split": split,
        "computed position": computed_position,
        "branches": in_branches,
        "before 2.13": before_2_13,
        "appended": appended,
        "truths": truths,
        "size": size,
    },
    "loops": {
        "two loops": lambda x: turned(
            loop(loop(array(2 * STEPS), x), x, lambda k: k + STEPS).stack()
        ),
        "growing, every other": lambda x: turned(loop(growing(), x, step=2).stack()),
        "growing, shifted": lambda x: turned(loop(growing(), x, lambda k: k + 2, stop=3).stack()),
        "continued": continued,
        "written before": lambda x: turned(
            loop(array(STEPS + 1).write(0, x[:, 0]), x, lambda k: k + 1).stack()
        ),
        "written behind": lambda x: turned(loop(array(STEPS + 1), x).write(5, x[:, 0]).stack()),
        "gathered": lambda x: turned(loop(array(), x).gather([1, 0, 4])),
        "joined": lambda x: tf.reshape(loop(array(), x).concat(), (STEPS, -1, FEATURES))[2],
        "read": lambda x: reads_in_loop(written(array(element_shape=(None, FEATURES)), x), x),
        "shape": shape_of_loop,
    },
}


def saved(compute: Callable[[Any], Mapping[str, Any]], folder: Path) -> Any:
    """The signature of a SavedModel in ``folder``."""
    module = tf.Module()
    spec = tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name="x")
    module.serve = tf.function(compute, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.serve)
    return module.serve


def outputs(model: Any, format: str, folder: Path, rows: int) -> dict[str, Any]:
    """What the float32 file computes for :data:`X`, ``rows`` samples at a time."""
    interface = interface_of(model)
    path = folder / f"m.{format}"
    converter: Any = {"tflite": tflite, "onnx": onnx}[format]
    file = converter.convert(model, interface, recipe_for("float32"), path)
    runner = open_runner(path, format, file.inputs, file.outputs)
    parts = [runner.run({"x": X[k : k + rows]}) for k in range(0, len(X), rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("kind", only(LISTS, "some of all"))
def test_lists_of_saved_models(kind: str, tmp_path: Path) -> None:
    names = {f"y{k}": name for k, name in enumerate(LISTS[kind])}
    serve = saved(lambda x: {key: LISTS[kind][names[key]](x) for key in names}, tmp_path / "m")
    loaded = load_model(audit_file(tmp_path / "m"))
    rows = [serve(tf.constant(X[k : k + 1])) for k in range(len(X))]
    for format in ("tflite", "onnx"):
        actual = outputs(loaded.model, format, tmp_path, 1)
        for key, name in names.items():
            expected = np.concatenate([row[key] for row in rows])
            np.testing.assert_allclose(
                actual[key], expected, rtol=1e-5, atol=1e-6, err_msg=f"{format} {name}"
            )


class Decoder(keras.layers.Layer):  # type: ignore[misc]
    """Attends in each step, in a Python loop; ``lists`` says how results of steps are joined."""

    def __init__(self, lists: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lists = lists
        self.dense = keras.layers.Dense(FEATURES, activation="tanh")

    def call(self, x: Any) -> Any:
        """Return the state of each step, and the weights of all steps times the inputs."""
        states, weights = array(4), array(4)
        plain: tuple[list[Any], list[Any]] = ([], [])
        state = tf.reduce_mean(x, 1)
        for step in range(4):
            attended = tf.nn.softmax(tf.einsum("btf,bf->bt", x, state))
            state = self.dense(tf.einsum("bt,btf->bf", attended, x) + state)
            states, weights = states.write(step, state), weights.write(step, attended)
            for list_, value in zip(plain, (state, attended), strict=True):
                list_.append(value)
        if not self.lists:
            return tf.stack(plain[0], 1), tf.matmul(tf.stack(plain[1], 1), x)
        return turned(states.stack()), tf.matmul(turned(weights.stack()), x)


@pytest.mark.parametrize("format", only(("tflite", "onnx"), "onnx"))
def test_lists_of_a_layer_have_the_maps_of_stacked_tensors(format: str, tmp_path: Path) -> None:
    x = keras.Input((STEPS, FEATURES), name="x")
    models = []
    for lists in (False, True):
        keras.utils.set_random_seed(2)
        states, attended = Decoder(lists, name="decoder")(x)
        models.append(keras.Model(x, {"states": states, "attended": attended}))
    specs = [interface_of(model).all_outputs for model in models]
    assert [spec.name for spec in specs[0]] == [spec.name for spec in specs[1]]
    assert len(specs[1]) > 2
    files = [outputs(model, format, tmp_path, 1) for model in models]
    expected = models[0].predict(X, verbose=0)
    for name, value in (files[0] | expected).items():
        np.testing.assert_allclose(files[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_list_that_stops_growing_early(tmp_path: Path) -> None:
    """tf2onnx returns as many elements as there are iterations, which TFLite cannot."""
    serve = saved(lambda x: {"y": stops_early(x)}, tmp_path / "m")
    loaded = load_model(audit_file(tmp_path / "m"))
    expected = np.concatenate([serve(tf.constant(X[k : k + 1]))["y"] for k in range(len(X))])
    actual = outputs(loaded.model, "onnx", tmp_path, 1)["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_list_that_grows_by_computed_positions(tmp_path: Path) -> None:
    def compute(x: Any) -> Any:
        last = tf.argmax(tf.reduce_max(x, (0, 2)), output_type=tf.int32)
        list_ = loop(growing(), x, lambda step: step + last)
        return {"y": tf.reduce_sum(list_.stack(), 0)}

    saved(compute, tmp_path / "m")
    loaded = load_model(audit_file(tmp_path / "m"))
    with pytest.raises(ConversionError, match="lists that grow"):
        outputs(loaded.model, "onnx", tmp_path, 1)
