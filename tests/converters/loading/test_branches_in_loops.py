"""Conditions, switches and loops inside ``tf.map_fn``, such as an expert for each sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from long_parameters import only

from edgeattn.runners import open_runner
from edgeattn_converters.formats import onnx, tflite
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

STEPS, FEATURES = 5, 4
GENERATOR = np.random.default_rng(11)
X = GENERATOR.normal(size=(8, STEPS, FEATURES)).astype("float32")
MODES = np.array([0, 1, 2, 2, 1, 0, 7, -1], "int32")


class Experts(tf.Module):
    def __init__(self, steps: int | None, compute: Callable[..., Any]) -> None:
        super().__init__()
        shape = (3, FEATURES, FEATURES)
        self.w = [tf.Variable(w) for w in GENERATOR.normal(size=shape).astype("float32")]
        spec = tf.TensorSpec((None, steps, FEATURES), name="x")
        self.serve = tf.function(
            lambda x, mode: {"y": compute(x, mode, self.w)},
            input_signature=[spec, tf.TensorSpec((None,), tf.int32, name="mode")],
        )


def mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of each sample, its mode and the weights."""

    def compute(x: Any, modes: Any, w: Any) -> Any:
        signature = tf.TensorSpec(x.shape[1:])
        return tf.map_fn(lambda pair: function(*pair, w), (x, modes), fn_output_signature=signature)

    return compute


def selected(x: Any, mode: Any, w: Any) -> Any:
    branches = [
        lambda: x @ w[0],
        lambda: tf.nn.relu(x @ w[1]),
        lambda: tf.reverse(x, [0]) @ w[2],
    ]
    return tf.switch_case(mode, branches)


def two_results(x: Any, mode: Any, w: Any) -> Any:
    one, two = tf.switch_case(
        mode, [lambda: (x, x * 2), lambda: (x * 3, -x), lambda: (x @ w[0], x)]
    )
    return one * two


def cases(x: Any, mode: Any, w: Any) -> Any:
    pairs = [(tf.equal(mode, 0), lambda: x @ w[0]), (tf.equal(mode, 1), lambda: x * 3)]
    return tf.case(pairs, default=lambda: tf.clip_by_value(x @ w[1], -1.0, 1.0))


def repeated(x: Any, mode: Any, w: Any) -> Any:
    return tf.while_loop(
        lambda k, value: k < mode, lambda k, value: (k + 1, tf.nn.relu(value @ w[0])), (0, x)
    )[1]


def rows(x: Any, mode: Any, w: Any) -> Any:
    """A condition for each row of each sample."""
    return tf.map_fn(
        lambda row: tf.cond(
            tf.reduce_sum(row) > 0, lambda: row * 2, lambda: tf.linalg.matvec(w[0], row)
        ),
        x,
    )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "switch_case": mapped(selected),
    "two results": mapped(two_results),
    "cond": mapped(lambda x, mode, w: tf.cond(mode > 0, lambda: tf.nn.relu(x @ w[0]), lambda: x)),
    "case": mapped(cases),
    "while_loop": mapped(repeated),
    "map_fn": mapped(rows),
    "vectorized_map": lambda x, modes, w: tf.vectorized_map(
        lambda pair: pair[0] @ tf.gather(tf.stack(w), tf.clip_by_value(pair[1], 0, 2)), (x, modes)
    ),
}


@pytest.mark.parametrize("steps", only([None, STEPS], None))
@pytest.mark.parametrize("name", only(FUNCTIONS, "switch_case"))
def test_branches_in_loops(name: str, steps: int | None, tmp_path: Path) -> None:
    """onnxruntime rejected the loop, and the converter of TFLite lost the ReLU in a branch."""
    module = Experts(steps, FUNCTIONS[name])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    model = load_model(audit_file(tmp_path / "m"), time_steps=None if steps else STEPS).model
    interface = interface_of(model)
    for format, converter in (("tflite", tflite), ("onnx", onnx)):
        path = tmp_path / f"m.{format}"
        file = converter.convert(model, interface, recipe_for("float32"), path)
        runner = open_runner(path, format, file.inputs, file.outputs)
        for k in range(len(X)):
            row = {"x": X[k : k + 1], "mode": MODES[k : k + 1]}
            expected = module.serve(**{key: tf.constant(value) for key, value in row.items()})
            np.testing.assert_allclose(
                runner.run(row)["y"], expected["y"], rtol=1e-5, atol=1e-5, err_msg=f"{format} {k}"
            )
