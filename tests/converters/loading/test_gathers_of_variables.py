"""Graphs that gather rows of a variable inside loops, conditions and functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
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

ROWS, WIDTH = 12, 6
TABLE = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype("float32")
TOKENS = np.array([3, 0, 11, 4], "int32")


@tf.function
def doubled_rows(table: Any, tokens: Any) -> Any:
    return 2.0 * tf.gather(table, tokens)


class Gathers(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(TABLE)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, name="t")])
    def serve(self, t: Any) -> Any:
        """Gather in loops, by two operations, in branches, in a function and along an axis."""
        table = self.table
        loop = tf.zeros((tf.shape(t)[0], WIDTH))
        pairs, function, nested, branches, columns = loop, loop, loop, loop, loop
        for i in tf.range(3):
            loop = tf.tanh(loop + tf.gather(table, t))
            pairs = tf.tanh(pairs + tf.gather_nd(table, t[:, tf.newaxis]))
            function = tf.tanh(function + doubled_rows(table, t))
            for k in tf.range(2):
                nested = tf.tanh(nested + tf.gather(table, (t + i + k) % ROWS))
            if i % 2 == 0:
                branches = branches + tf.gather(table, t)
            else:
                branches = branches * tf.gather_nd(table, t[:, tf.newaxis])
            same = tf.raw_ops.ResourceGather(
                resource=table.handle,
                indices=tf.tile(t[tf.newaxis] % WIDTH, [ROWS, 1]),
                dtype=tf.float32,
                batch_dims=1,
            )
            columns = tf.tanh(columns + tf.transpose(same)[:, :WIDTH])
        odd = t[0] % 2
        switch = tf.switch_case(odd, [lambda: tf.gather(table, t), lambda: -tf.gather(table, t)])
        names = ("loop", "pairs", "function", "nested", "branches", "columns", "switch")
        values = (loop, pairs, function + doubled_rows(table, t), nested, branches, columns, switch)
        return dict(zip(names, values, strict=True))


def expected(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of :class:`Gathers` for one token in NumPy."""
    rows = TABLE[tokens]
    loop = nested = branches = columns = function = np.zeros_like(rows)
    for i in range(3):
        loop = np.tanh(loop + rows)
        function = np.tanh(function + 2 * rows)
        for k in range(2):
            nested = np.tanh(nested + TABLE[(tokens + i + k) % ROWS])
        branches = branches + rows if i % 2 == 0 else branches * rows
        columns = np.tanh(columns + TABLE[:WIDTH, tokens % WIDTH].T)
    return {
        "loop": loop,
        "pairs": loop,
        "function": function + 2 * rows,
        "nested": nested,
        "branches": branches,
        "columns": columns,
        "switch": rows * (1 - 2 * (tokens[0] % 2)),
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_rows_of_a_variable_inside_control_flow(kind: str, tmp_path: Path) -> None:
    """TensorFlow turned the variable to a constant, but not the operation that reads it."""
    module = Gathers()
    kinds = {
        node.op
        for function in module.serve.get_concrete_function().graph.as_graph_def().library.function
        for node in function.node_def
    }
    assert {"ResourceGather", "ResourceGatherNd"} <= kinds
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    require_same_file(load_model(audit_file(tmp_path / "m")).model, kind, tmp_path)


@pytest.mark.parametrize("kind", only(["tflite", "onnx"], "tflite"))
def test_rows_of_a_variable_in_a_loop_of_a_layer(kind: str, tmp_path: Path) -> None:
    class Steps(keras.layers.Layer):
        def build(self, _: Any) -> None:
            self.table = self.add_weight(shape=TABLE.shape, name="table")

        def call(self, tokens: Any) -> Any:
            return tf.while_loop(
                lambda step, _: step < 3,
                lambda step, y: (step + 1, tf.tanh(y + tf.gather(self.table.value, tokens))),
                (0, tf.zeros((tf.shape(tokens)[0], WIDTH))),
            )[1]

    x = keras.Input((), name="t", dtype="int32")
    model = keras.Model(x, {"loop": Steps(name="loop")(x)})
    model.set_weights([TABLE])
    require_same_file(model, kind, tmp_path)


def require_same_file(model: Any, kind: str, folder: Path) -> None:
    """The file computes what NumPy computes, for one token after the other."""
    interface = interface_of(model)
    path = folder / f"m.{kind}"
    converter = {"tflite": tflite, "onnx": onnx}[kind]
    converter.convert(model, interface, recipe_for("float32"), path)
    runner = open_runner(path, kind, interface.inputs, interface.outputs)
    for k in range(len(TOKENS)):
        outputs = runner.run({"t": TOKENS[k : k + 1]})
        correct = expected(TOKENS[k : k + 1])
        assert outputs
        assert outputs.keys() <= correct.keys()
        for output, values in outputs.items():
            np.testing.assert_allclose(values, correct[output], atol=1e-5, err_msg=output)
