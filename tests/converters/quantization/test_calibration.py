"""Calibration samples: read, screened, and kept apart from the evaluation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.tensors import TensorSpec
from edgeattn_converters import calibration
from edgeattn_converters.tracing import Interface

INTERFACE = Interface((TensorSpec("x", (None, 5, 3), "float32"),), (), ())


def _values(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 5, 3)).astype("float32")


def _saved(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "c.npy", values)
    return folder / "c.npy"


def test_every_kind_of_file(tmp_path: Path) -> None:
    values = _values(7)
    np.savez(tmp_path / "c.npz", x=values, y=np.zeros(7))
    np.savetxt(tmp_path / "c.csv", values.reshape(7, 15), delimiter=",", fmt="%.9g")
    for path in (_saved(tmp_path, values), tmp_path / "c.npz", tmp_path / "c.csv"):
        np.testing.assert_array_equal(calibration.read(path, INTERFACE).inputs["x"], values)


def test_samples_that_are_judged_on_are_left_out(tmp_path: Path) -> None:
    values = _values(120)
    found = calibration.read(_saved(tmp_path, values), INTERFACE, {"x": values[:7]})
    np.testing.assert_array_equal(found.inputs["x"], values[7:])
    assert found.notes == ("7 of 120 calibration samples left out: the result is judged on them",)


def test_nothing_but_what_is_judged_on(tmp_path: Path) -> None:
    values = _values(7)
    with pytest.raises(SampleError, match="is also one that the result is judged on"):
        calibration.read(_saved(tmp_path, values), INTERFACE, {"x": values})


def test_few_samples_say_how_many_to_aim_for(tmp_path: Path) -> None:
    (note,) = calibration.read(_saved(tmp_path, _values(7)), INTERFACE).notes
    assert note == "7 calibration samples are few: aim for 100 or more"


def test_many_samples_are_a_cross_section(tmp_path: Path) -> None:
    found = calibration.read(_saved(tmp_path, _values(1111)), INTERFACE)
    assert len(found) == calibration.MOST
    np.testing.assert_array_equal(found.inputs["x"][-1], _values(1111)[-1])


def test_an_outlier_is_told(tmp_path: Path) -> None:
    values = _values(700)
    values[3, 1, 1] = 1000.0
    values = values[:128]
    (note,) = calibration.read(_saved(tmp_path, values), INTERFACE).notes
    assert "times the 99.9th percentile" in note


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((9, 5, 3), 0.5), "every value in c.npy is 0.5"),
        (np.full((9, 5, 3), np.nan), "NaN"),
        (_values(9) * 1e9, "values up to"),
        (np.zeros((0, 5, 3)), "holds no samples"),
        (np.zeros((9, 4, 3)), "(samples, 5, 3) expected"),
    ],
)
def test_bad_samples(values: np.ndarray, told: str, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        calibration.read(_saved(tmp_path, values), INTERFACE)
    assert told in str(caught.value)
