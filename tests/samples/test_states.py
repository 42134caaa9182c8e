"""Artifacts with states as inputs and outputs: initially zero, or carried over."""

from __future__ import annotations

import io

import numpy as np
import pytest
from artifacts import artifact, save_onnx, write_bundle
from onnx import TensorProto, helper

import edgeattn
from edgeattn.inference.run import RunOptions, run_bundle, stream_bundle
from edgeattn.samples import files as sample_files
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.tensors import TensorSpec

X = TensorSpec("x", (None, 3), "float32")
INITIAL = TensorSpec("sum_initial", (None, 3), "float32", state="sum_final")
FINAL = TensorSpec("sum_final", (None, 3), "float32")
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
SUMS = np.cumsum(ROWS, axis=0)


@pytest.fixture(scope="module")
def summing(tmp_path_factory):
    """``sum_final = sum_initial + x``, in a bundle."""
    folder = tmp_path_factory.mktemp("summing.edge")
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])
        for name in ("x", "sum_initial", "sum_final")
    }
    save_onnx(
        folder / "model.float32.onnx",
        [helper.make_node("Add", ["x", "sum_initial"], ["sum_final"])],
        [values["x"], values["sum_initial"]],
        [values["sum_final"]],
        {},
    )
    entry = artifact(folder / "model.float32.onnx", inputs=(X, INITIAL), outputs=(FINAL,))
    reference = {"input/x": ROWS, "input/sum_initial": 0 * ROWS, "output/sum_final": ROWS}
    return write_bundle(folder, [entry], reference)


@pytest.fixture
def file(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    return tmp_path / "x.npy"


def test_the_manifest_marks_states(summing):
    (x, initial) = edgeattn.Bundle.open(summing.path).manifest.artifacts[0].inputs
    assert initial == INITIAL
    assert sample_inputs((x, initial)) == (x,)
    assert "state" not in x.to_json()


def test_missing_states_are_zero(file, tmp_path):
    read = sample_files.read_samples(file, (X, INITIAL))
    np.testing.assert_array_equal(read.inputs["sum_initial"], np.zeros((4, 3)))
    np.savez(tmp_path / "both.npz", x=ROWS, sum_initial=-ROWS)
    read = sample_files.read_samples(tmp_path / "both.npz", (X, INITIAL))
    np.testing.assert_array_equal(read.inputs["sum_initial"], -ROWS)
    # "x" names the only input that a sample must have.
    np.savez(tmp_path / "x.npz", x=ROWS)
    assert sample_files.read_samples(tmp_path / "x.npz", (X, INITIAL)).inputs.keys() == {
        "x",
        "sum_initial",
    }
    (tmp_path / "x.csv").write_text("1,2,3\n4,5,6\n")
    assert len(sample_files.read_samples(tmp_path / "x.csv", (X, INITIAL))) == 2
    assert with_initial_states({"x": ROWS[:2]}, (X, INITIAL))["sum_initial"].shape == (2, 3)


def test_run_resets_or_carries_states(summing, file, tmp_path):
    out = tmp_path / "out.npz"
    separate = run_bundle(summing.path, file, out)
    np.testing.assert_array_equal(separate.outputs["sum_final"], ROWS)
    carried = run_bundle(summing.path, file, out, RunOptions(carry_states=True), force=True)
    np.testing.assert_array_equal(carried.outputs["sum_final"], SUMS)


def test_streams_reset_or_carry_states(summing):
    lines = "".join(f"{row[0]} {row[1]} {row[2]}\n" for row in ROWS).encode()

    def streamed(**options):
        source = io.BufferedReader(io.BytesIO(lines))
        stream = stream_bundle(summing.path, source, RunOptions(**options))
        return np.concatenate([outputs["sum_final"] for outputs in stream])

    np.testing.assert_array_equal(streamed(), ROWS)
    np.testing.assert_array_equal(streamed(carry_states=True), SUMS)


def test_load_resets_or_carries_states(summing):
    model = edgeattn.load(summing.path)
    for row in ROWS:
        np.testing.assert_array_equal(model(row)["sum_final"][0], row)
    # The returned state can be passed on without a copy.
    outputs = model(ROWS[0])
    outputs = model({"x": ROWS[1], "sum_initial": outputs["sum_final"]})
    np.testing.assert_array_equal(outputs["sum_final"][0], SUMS[1])
    carrying = edgeattn.load(summing.path, carry_states=True)
    for _ in range(2):
        for row, total in zip(ROWS, SUMS, strict=True):
            np.testing.assert_array_equal(carrying(row)["sum_final"][0], total)
        carrying.reset()


def test_artifacts_without_states_have_none_to_carry(dense_bundle, tmp_path):
    with pytest.raises(edgeattn.BundleError, match="has no states to carry"):
        edgeattn.load(dense_bundle.path, carry_states=True)
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(edgeattn.UsageError, match="no states to carry"):
        run_bundle(
            dense_bundle.path, tmp_path / "x.npy", tmp_path / "o.npz", RunOptions(carry_states=True)
        )
    assert not (tmp_path / "o.npz").exists()
