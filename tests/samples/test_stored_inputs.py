"""Errors about samples under the names of inputs ahead of removed layers, for a tiny bundle."""

from __future__ import annotations

import numpy as np
import pytest
from artifacts import edit_manifest, write_dense_bundle
from front_ends import COUNTS, add_front_end

import edgeattn
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import SampleError
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.samples.stored_inputs import replaced_inputs


def test_inputs_in_place_of_others():
    stored = {"lookup_1": "b", "lookup": "a", "lookup_2": "a", "num": "num"}
    assert replaced_inputs(stored) == (
        "'lookup' and 'lookup_2' are in place of the input 'a'; "
        "'lookup_1' is in place of the input 'b'"
    )
    assert replaced_inputs({"num": "num"}) == ""


@pytest.fixture
def bundle(tmp_path):
    return write_dense_bundle(tmp_path / "dense.edge")


@pytest.mark.parametrize(
    "read", [edgeattn.run, lambda path, file: open_dataset(file, Bundle.open(path))]
)
@pytest.mark.parametrize("values", [[[7]], [["dog"]]])
def test_raw_values_under_the_name_of_the_stored_input(read, values, bundle, tmp_path):
    add_front_end(bundle, COUNTS)
    edit_manifest(bundle.path, lambda data: data["model"].update(stored_inputs={"x": "code"}))
    np.savez(tmp_path / "raw.npz", code=values, y=[1])
    with pytest.raises(SampleError, match="has no array for input 'x'") as error:
        read(bundle.path, tmp_path / "raw.npz")
    hint = str(error.value.hint)
    assert hint.startswith("'x' is in place of the input 'code'. Raw ")
    assert hint.count("--raw-data to validate") == 1


def test_other_errors_remain(bundle, tmp_path):
    edit_manifest(bundle.path, lambda data: data["model"].update(stored_inputs={"x": "code"}))
    np.savez(tmp_path / "short.npz", x=np.zeros((2, 1), "float32"))
    np.savez(tmp_path / "other.npz", number=np.zeros((2, 1), "float32"))
    with pytest.raises(SampleError) as error:
        edgeattn.run(bundle.path, tmp_path / "short.npz")
    assert "code" not in str(error.value)
    with pytest.raises(SampleError) as error:
        edgeattn.run(bundle.path, tmp_path / "other.npz")
    # Without a front end, the device computes the input.
    assert error.value.hint == "'x' is in place of the input 'code'. Name the array 'x'."
