"""The interface that all runners share."""

import artifacts
import numpy as np
import pytest
from artifacts import X, Y, dense, samples
from function_runner import FunctionRunner

from edgeattn.errors import ArtifactError, SampleError, UsageError
from edgeattn.runners import open_artifact, open_runner
from edgeattn.runners.batching import batches, count_samples, join_batches
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.tensors import TensorSpec


@pytest.fixture(params=["function", "tflite", "onnx", "isolated tflite", "isolated onnx"])
def runner(request, tmp_path, worker):
    """A dense layer in each of the runners."""
    if request.param == "function":
        yield FunctionRunner(lambda tensors: {"score": dense(tensors["x"])}, (X,), (Y,))
        return
    format = request.param.split()[-1]
    bundle = artifacts.write_dense_bundle(tmp_path, formats=(format,))
    (entry,) = bundle.manifest.artifacts
    if request.param.startswith("isolated"):
        opened = IsolatedRunner(tmp_path, entry, worker)
    else:
        opened = open_artifact(tmp_path, entry)
    yield opened
    opened.close()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 131])
def test_any_number_of_samples(runner, count):
    x = samples(count)
    got = runner.run({"x": x})
    assert list(got) == ["score"]
    assert got["score"].dtype == np.float32
    np.testing.assert_array_equal(got["score"], dense(x))


def test_arrays_of_any_layout(runner):
    x = samples(7)
    for array in (np.asfortranarray(x), x[::-1][::-1], x.astype(">f4"), x.astype(np.float64)):
        np.testing.assert_array_equal(runner.run({"x": array})["score"], dense(x))


def test_arguments_are_not_modified(runner):
    x = samples(7)
    x.flags.writeable = False
    tensors = {"x": x, "more": np.zeros(3)}
    runner.run(tensors)
    assert list(tensors) == ["x", "more"]


def test_results_are_not_overwritten(runner):
    first = runner.run({"x": samples(7)})["score"]
    copy = first.copy()
    runner.run({"x": samples(7) + 1})
    np.testing.assert_array_equal(first, copy)
    first[...] = 0


def test_missing_inputs_and_missing_samples(runner):
    with pytest.raises(SampleError, match=r"Input x \(.*\) float32 is missing\..*: 'z'"):
        runner.run({"z": samples()})
    with pytest.raises(SampleError, match="no samples"):
        runner.run({"x": samples(7)[:0]})
    with pytest.raises(SampleError, match="no samples"):
        runner.run({"x": np.float32(1)[()] * np.ones(())})


def test_wrong_shapes(runner):
    if isinstance(runner, FunctionRunner):
        return  # a function accepts any shape
    for x in (np.zeros((7, 5)), np.zeros((7, 3, 1)), np.zeros(7)):
        with pytest.raises(ArtifactError, match="failed during inference"):
            runner.run({"x": x.astype(np.float32)})
    np.testing.assert_array_equal(runner.run({"x": samples()})["score"], dense(samples()))


def test_unknown_format(tmp_path):
    with pytest.raises(UsageError, match="'exe'"):
        open_runner(tmp_path / "m.exe", "exe", (X,), (Y,))


# Batches


def test_different_numbers_of_samples():
    specs = (X, TensorSpec("ids", (None, 3), "int32"))
    arrays = {"x": samples(7), "ids": np.zeros((5, 3), np.int32)}
    with pytest.raises(SampleError, match=r"\(x: 7, ids: 5\)"):
        count_samples(arrays, specs)
    with pytest.raises(SampleError, match="different numbers"):
        list(batches(arrays, specs, (2,), fixed=False))


def test_incomplete_last_batches():
    x = samples(7)
    free = list(batches({"x": x}, (X,), (3,), fixed=False))
    assert [(len(feeds["x"]), rows) for feeds, rows in free] == [(3, 3), (3, 3), (1, 1)]
    fixed = list(batches({"x": x}, (X,), (3,), fixed=True))
    assert [(len(feeds["x"]), rows) for feeds, rows in fixed] == [(3, 3), (3, 3), (3, 1)]
    np.testing.assert_array_equal(fixed[2][0]["x"], x[[6, 6, 6]])


def test_batch_sizes_take_turns():
    x = samples(10)
    calls = list(batches({"x": x}, (X,), (1, 2, 4), fixed=False))
    assert [rows for _, rows in calls] == [1, 2, 4, 1, 2]
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds, _ in calls]), x)


def test_batches_are_quantized():
    (call,) = batches({"x": np.array([[1.0, 2.5, 1e9]])}, (artifacts.INT8_X,), (1,), fixed=True)
    assert call[0]["x"].tolist() == [[-1, 2, 127]]
    assert call[0]["x"].dtype == np.int8


def test_join_batches():
    parts = [np.array([[-3]], np.int8), np.array([[7]], np.int8)]
    assert join_batches(parts, artifacts.INT8_Y).tolist() == [[0.0], [5.0]]
    for wrong in (
        [np.float32(1)],
        [np.zeros((1, 2)), np.zeros((1, 3))],
        [np.zeros(1), np.ones(())],
    ):
        with pytest.raises(ArtifactError, match=r"[Oo]utput score"):
            join_batches([np.asarray(part) for part in wrong], Y)
