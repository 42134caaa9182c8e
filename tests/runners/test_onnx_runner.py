"""ONNX files in onnxruntime: batches, dtypes, malformed files."""

import sys
from dataclasses import replace

import artifacts
import numpy as np
import onnx
import onnxruntime
import pytest
from artifacts import X, Y, dense, samples

from edgeattn.errors import ArtifactError, RuntimeUnavailableError
from edgeattn.runners import open_runner
from edgeattn.runners.onnx import ONNXRunner, session_options
from edgeattn.tensors import TensorSpec


@pytest.mark.parametrize("batch", [1, 3, 7, 11])
@pytest.mark.parametrize("as_deployed", [True, False])
def test_fixed_batch_sizes(tmp_path, batch, as_deployed):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", batch=batch)
    x, y = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (X, Y))
    runner = open_runner(tmp_path / "m.onnx", "onnx", (x,), (y,), as_deployed=as_deployed)
    np.testing.assert_array_equal(runner.run({"x": samples(7)})["score"], dense(samples(7)))


def sizes_of_calls(runner):
    """A list that receives the batch size of every call of the session."""
    session, sizes = runner._session, []

    class Counting:
        def run(self, names, feeds):
            sizes.append(len(feeds["x"]))
            return session.run(names, feeds)

    runner._session = Counting()
    return sizes


@pytest.mark.parametrize(("as_deployed", "calls"), [(True, [1] * 7), (False, [7])])
def test_deployed_artifacts_take_one_sequence_per_call(tmp_path, as_deployed, calls):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    runner = open_runner(tmp_path / "m.onnx", "onnx", (X,), (Y,), as_deployed=as_deployed)
    sizes = sizes_of_calls(runner)
    np.testing.assert_array_equal(runner.run({"x": samples(7)})["score"], dense(samples(7)))
    assert sizes == calls


@pytest.mark.parametrize(("batch", "calls"), [(None, [2, 3, 2]), (4, [4, 4])])
def test_requested_batch_sizes_apply_to_a_free_batch_axis(tmp_path, batch, calls):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", batch=batch)
    x, y = (replace(spec, shape=(batch, *spec.shape[1:])) for spec in (X, Y))
    runner = open_runner(tmp_path / "m.onnx", "onnx", (x,), (y,), as_deployed=True)
    sizes = sizes_of_calls(runner)
    scores = runner.run({"x": samples(7)}, (2, 3))["score"]
    np.testing.assert_array_equal(scores, dense(samples(7)))
    assert sizes == calls


def test_booleans_and_integers(tmp_path):
    artifacts.write_kinds_onnx(tmp_path / "m.onnx")
    outputs = (TensorSpec("best", (None,), "int64"), TensorSpec("sign", (None, 3), "bool"))
    x = samples(131)
    got = ONNXRunner(tmp_path / "m.onnx", (X,), outputs).run({"x": x})
    assert [(name, array.dtype.name) for name, array in got.items()] == [
        ("best", "int64"),
        ("sign", "bool"),
    ]
    np.testing.assert_array_equal(got["best"], x.argmax(1))
    np.testing.assert_array_equal(got["sign"], x > 0)


def test_outputs_are_fetched_by_name(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx", outputs=("score", "other"))
    outputs = (replace(Y, name="other"), Y)
    got = ONNXRunner(tmp_path / "m.onnx", (X,), outputs).run({"x": samples()})
    np.testing.assert_array_equal(got["other"], -dense(samples()))
    np.testing.assert_array_equal(got["score"], dense(samples()))


def test_missing_tensors(tmp_path):
    artifacts.write_dense_onnx(tmp_path / "m.onnx")
    for inputs, outputs in [((replace(X, name="z"),), (Y,)), ((X,), (replace(Y, name="z"),))]:
        runner = ONNXRunner(tmp_path / "m.onnx", inputs, outputs)
        with pytest.raises(ArtifactError, match="failed during inference"):
            runner.run({"x": samples(), "z": samples()})


@pytest.mark.parametrize("content", [b"", b"garbage" * 999])
def test_malformed_files(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"(cannot load m\.onnx|m\.onnx was refused)"):
        ONNXRunner(tmp_path / "m.onnx", (X,), (Y,))


def test_a_missing_runtime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        ONNXRunner(tmp_path / "m.onnx", (X,), (Y,))
    assert "edgeattn[onnx]" in caught.value.hint


def quantized_products(nodes, constants, x, y):
    """An ONNX model of integer products, with weights of 127 and inputs of the largest integer."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, inputs, ["y"], **options) for kind, inputs, options in nodes],
        "products",
        [onnx.helper.make_tensor_value_info("x", *x)],
        [onnx.helper.make_tensor_value_info("y", *y)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_sums_of_integer_products_do_not_saturate(tmp_path):
    """The largest pairs of products exceed 16 bits, in which some processors add them."""
    weights = np.full((64, 8), 127, np.int8)
    model = quantized_products(
        [("MatMulInteger", ["x", "w"], {})], {"w": weights},
        (onnx.TensorProto.UINT8, [1, 64]), (onnx.TensorProto.INT32, [1, 8]),
    )  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    x, y = TensorSpec("x", (1, 64), "uint8"), TensorSpec("y", (1, 8), "int32")
    runner = ONNXRunner(tmp_path / "m.onnx", (x,), (y,))
    result = runner.run({"x": np.full((1, 64), 255, np.uint8)})["y"]
    np.testing.assert_array_equal(result, np.full((1, 8), 64 * 127 * 255))


def test_gates_of_a_dynamically_quantized_lstm_do_not_saturate(tmp_path):
    """All gates of one step are equal: h = s(g) tanh(s(g) tanh(g)), with s the sigmoid."""
    units, scale = 16, np.full(1, 1e-5, np.float32)
    constants = {
        "w": np.full((1, 64, 4 * units), 127, np.int8),
        "r": np.zeros((1, units, 4 * units), np.int8),
        "scale": scale,
        "zero": np.zeros(1, np.int8),
        "zero_r": np.zeros(1, np.int8),
    }
    names = ["x", "w", "r", "", "", "", "", "", "scale", "zero", "scale", "zero_r"]
    options = {"domain": "com.microsoft", "hidden_size": units}
    model = quantized_products(
        [("DynamicQuantizeLSTM", names, options)], constants,
        (onnx.TensorProto.FLOAT, [1, 1, 64]), (onnx.TensorProto.FLOAT, [1, 1, 1, units]),
    )  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    x, y = TensorSpec("x", (1, 1, 64), "float32"), TensorSpec("y", (1, 1, 1, units), "float32")
    runner = ONNXRunner(tmp_path / "m.onnx", (x,), (y,))
    gate = 64 * 127 * 1e-5
    sigmoid = 1 / (1 + np.exp(-gate))
    result = runner.run({"x": np.ones((1, 1, 64), np.float32)})["y"]
    np.testing.assert_allclose(result, sigmoid * np.tanh(sigmoid * np.tanh(gate)), rtol=1e-4)


def test_files_that_cannot_have_exact_sums_run_and_say_so(tmp_path):
    """onnxruntime cannot load two products with one zero point with exact sums."""
    names = [("MatMulInteger", ["x", w, "zero", "zero_w"], {}) for w in ("w", "v")]
    constants = {
        **{name: np.full((8, 8), 1, np.int8) for name in ("w", "v")},
        "zero": np.uint8(0),
        "zero_w": np.int8(0),
    }
    model = quantized_products(
        names[:1], {name: np.asarray(value) for name, value in constants.items()},
        (onnx.TensorProto.UINT8, [1, 8]), (onnx.TensorProto.INT32, [1, 8]),
    )  # fmt: skip
    second = onnx.helper.make_node("MatMulInteger", names[1][1], ["second"])
    model.graph.node[0].output[0] = "first"
    model.graph.node.extend([second, onnx.helper.make_node("Add", ["first", "second"], ["y"])])
    onnx.save(model, tmp_path / "m.onnx")
    x, y = TensorSpec("x", (1, 8), "uint8"), TensorSpec("y", (1, 8), "int32")
    runner = ONNXRunner(tmp_path / "m.onnx", (x,), (y,))
    result = runner.run({"x": np.full((1, 8), 3, np.uint8)})["y"]
    np.testing.assert_array_equal(result, np.full((1, 8), 2 * 8 * 3))
    # Only processors without VNNI need another form of the file for exact sums.
    try:
        onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), session_options())
        exact = True
    except Exception:
        exact = False
    assert ("saturate" in runner.runtime) is not exact
