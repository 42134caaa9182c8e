"""Hostile artifacts and samples of ``specimens/make_hostile.py`` are refused, others read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hostile_specimens
import pytest

from edgeattn.errors import EdgeattnError, SampleError
from edgeattn.inspection import inspect_artifact
from edgeattn.samples import files as samples
from edgeattn.tensors import TensorSpec

SPECIMENS = Path(__file__).parent / "specimens"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    pytest.importorskip("h5py", reason="the script also writes HDF5 files")
    sys.path.insert(0, str(SPECIMENS))
    try:
        import make_hostile
    finally:
        sys.path.remove(str(SPECIMENS))
    all_cases: list[dict[str, Any]] = make_hostile.make_all(tmp_path_factory.mktemp("hostile"))
    return all_cases


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_artifacts_are_refused_or_read(format: str, cases: list[dict[str, Any]]) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="reading ONNX files requires a runtime")
    of_format = [case for case in cases if case["path"].suffix == f".{format}"]
    assert len(of_format) >= 5
    for case in of_format:
        if case["expect"] == "accept":
            assert inspect_artifact(case["path"], format)["outputs"]
            continue
        with pytest.raises(EdgeattnError) as raised:
            inspect_artifact(case["path"], format)
        expected = 4 if "external data" in case["danger"] else 3
        assert raised.value.exit_code == expected, case["name"]


@pytest.mark.long
def test_the_page_has_the_numbers_of_specimens() -> None:
    pytest.importorskip("edgeattn_converters", reason="tests of Keras files are collected, too")
    page = hostile_specimens.PAGE.read_text("utf-8")
    assert hostile_specimens.table(hostile_specimens.counts()) in page


def test_pickled_samples_are_refused(cases: list[dict[str, Any]]) -> None:
    (case,) = (case for case in cases if case["name"] == "pickled_samples.npz")
    with pytest.raises(SampleError):
        samples.read_samples(case["path"], [TensorSpec("x", (None, 2), "float32")])
