"""A folder with one bundle for each sequence length: the sample's length selects the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from artifacts import artifact, save_onnx, write_bundle, write_dense_bundle
from onnx import TensorProto, helper

import edgeattn
from edgeattn.bundle.lengths import bundles_by_length
from edgeattn.bundle.writer import check_new_bundle
from edgeattn.tensors import TensorSpec

FEATURES = 2


def write_sum(folder: Path, steps: int, *, free: bool = False) -> None:
    """``total = steps * sum of x over the steps``, which shows the model that was selected.

    With ``free``, there is a second artifact, in float16 by name, that accepts any length.
    """
    folder.mkdir(parents=True)
    path = folder / "sum.float32.onnx"
    save_onnx(
        path,
        [
            helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "steps"], ["total"]),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", steps, FEATURES])],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, ["n", FEATURES])],
        {"axis": np.array([1]), "steps": np.array(steps, np.float32)},
    )
    entry = artifact(
        path,
        inputs=(TensorSpec("x", (None, steps, FEATURES), "float32"),),
        outputs=(TensorSpec("total", (None, FEATURES), "float32"),),
    )
    entries = [entry]
    if free:
        copy = folder / "sum.float16.onnx"
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "steps"
        onnx.save(model, copy)
        other = artifact(copy, scheme="float16", inputs=entry.inputs, outputs=entry.outputs)
        entries.append(replace(other, free_axes={"x": (1,)}))
    x = np.ones((3, steps, FEATURES), np.float32)
    write_bundle(folder, entries, {"input/x": x, "output/total": steps * x.sum(axis=1)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for steps in (10, 4, 7):
        write_sum(tmp_path / "sum.edge" / f"steps-{steps}", steps)
    return tmp_path / "sum.edge"


def test_the_length_of_a_sample_selects_the_model(folder: Path) -> None:
    model = edgeattn.load(folder)
    for steps in (4, 10, 7, 4):
        x = np.random.default_rng(steps).normal(size=(steps, FEATURES)).astype("float32")
        for sample in (x, x[None], {"x": x}, x.tolist()):
            np.testing.assert_allclose(
                model(sample)["total"], steps * x.sum(axis=0)[None], rtol=1e-5
            )
    assert model.runtime.startswith("onnxruntime")


def test_a_batch_of_samples_of_one_length(folder: Path) -> None:
    model = edgeattn.load(folder)
    for steps in (4, 7):
        x = np.random.default_rng(steps).normal(size=(5, steps, FEATURES)).astype("float32")
        np.testing.assert_allclose(model.predict(x)["total"], steps * x.sum(axis=1), rtol=1e-5)


def test_the_recommended_artifact_of_every_length(folder: Path) -> None:
    model = edgeattn.load(folder, best=True)
    x = np.ones((7, FEATURES), np.float32)
    np.testing.assert_allclose(model(x)["total"], [[49, 49]])


def test_a_sample_of_another_length(folder: Path) -> None:
    model = edgeattn.load(folder)
    with pytest.raises(
        edgeattn.SampleError, match=r"shape \(5, 2\).* lengths are 4, 7, 10"
    ) as caught:
        model(np.zeros((5, FEATURES), np.float32))
    assert "--time-steps" in str(caught.value.hint)
    with pytest.raises(edgeattn.SampleError, match=r"Input x .* is missing"):
        model({"y": np.zeros((4, FEATURES), np.float32)})


def test_an_artifact_of_any_length_computes_other_lengths(tmp_path: Path) -> None:
    for steps in (4, 7):
        write_sum(tmp_path / f"steps-{steps}", steps, free=True)
    free = edgeattn.load(tmp_path, scheme="float16")
    for length, selected in ((4, 4), (7, 7), (1, 4), (5, 4), (12, 4)):
        x = np.random.default_rng(length).normal(size=(3, length, FEATURES)).astype("float32")
        expected = selected * x.sum(axis=1)
        for sample in (x[0], x[:1], {"x": x[0]}):
            np.testing.assert_allclose(free(sample)["total"], expected[:1], rtol=1e-5)
        np.testing.assert_allclose(free.predict(x)["total"], expected, rtol=1e-5)
    with pytest.raises(edgeattn.SampleError, match=r"\(any, 2\), received \(5, 3\)"):
        free(np.zeros((5, 3), np.float32))
    fixed = edgeattn.load(tmp_path, scheme="float32")
    with pytest.raises(edgeattn.SampleError, match="lengths are 4, 7") as caught:
        fixed(np.zeros((5, FEATURES), np.float32))
    assert "any length: onnx float16" in str(caught.value.hint)


def test_states_are_not_carried_between_lengths(folder: Path) -> None:
    with pytest.raises(edgeattn.BundleError, match="do not share states") as caught:
        edgeattn.load(folder, carry_states=True)
    assert str(caught.value.hint).endswith("steps-4")


def test_a_command_names_the_bundles(folder: Path) -> None:
    with pytest.raises(edgeattn.BundleError, match="sequence lengths 4, 7, 10") as caught:
        edgeattn.Bundle.open(folder)
    assert "steps-4." in str(caught.value.hint)
    assert edgeattn.Bundle.open(folder / "steps-7").manifest.artifacts[0].inputs[0].shape[1] == 7


def test_other_folders_have_no_lengths(folder: Path, tmp_path: Path) -> None:
    (folder / "steps-12").mkdir()  # not a bundle
    assert list(bundles_by_length(folder)) == [4, 7, 10]
    dense = write_dense_bundle(tmp_path / "dense.edge")
    write_sum(dense.path / "steps-3", 3)
    assert bundles_by_length(dense.path) == bundles_by_length(tmp_path / "none") == {}


def test_force_replaces_the_folder(folder: Path) -> None:
    with pytest.raises(edgeattn.OutputError, match="exists"):
        check_new_bundle(folder, force=False)
    check_new_bundle(folder, force=True)
