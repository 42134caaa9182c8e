"""Calibration samples: reading, checks, and the exclusion of samples in the reference."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.errors import SampleError
from edgeattn.tensors import TensorSpec
from edgeattn_converters import calibration
from edgeattn_converters.tracing.tokens import TokenLimits
from edgeattn_converters.tracing.trace import Interface

INTERFACE = Interface((TensorSpec("x", (None, 5, 3), "float32"),), (), ())


def _values(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 5, 3)).astype("float32")


def _invalid_late_value(value: float) -> np.ndarray:
    """Samples with one invalid value, in a sample that is not selected for calibration."""
    values = _values(1111)
    values[1010, 2, 1] = value
    return values


def _save(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "c.npy", values)
    return folder / "c.npy"


def test_file_formats(tmp_path: Path) -> None:
    values = _values(7)
    np.savez(tmp_path / "c.npz", x=values, y=np.zeros(7))
    np.savetxt(tmp_path / "c.csv", values.reshape(7, 15), delimiter=",", fmt="%.9g")
    for path in (_save(tmp_path, values), tmp_path / "c.npz", tmp_path / "c.csv"):
        np.testing.assert_array_equal(calibration.read(path, INTERFACE).inputs["x"], values)


def test_samples_in_the_reference_are_excluded(tmp_path: Path) -> None:
    values = _values(120)
    loaded = calibration.read(_save(tmp_path, values), INTERFACE, {"x": values[:7]})
    np.testing.assert_array_equal(loaded.inputs["x"], values[7:])
    assert loaded.notes == (
        "not used for calibration, because the reference contains them: 7 of 120 samples",
    )


@pytest.mark.parametrize("row", [1, 7, 513, 1009])
def test_samples_with_the_extremes_of_an_input_are_selected(row: int, tmp_path: Path) -> None:
    values = _values(1111)
    values[row, 4, 2], values[row + 1, 0, 1] = 9, -9
    loaded = calibration.read(_save(tmp_path, values), INTERFACE)
    assert len(loaded) == calibration.MAX_SAMPLES
    assert {float(loaded.inputs["x"].min()), float(loaded.inputs["x"].max())} == {-9, 9}
    assert [loaded.inputs["x"][i].max() for i in loaded.extremes[:1]] == [9]


def test_all_samples_are_in_the_reference(tmp_path: Path) -> None:
    values = _values(7)
    with pytest.raises(SampleError, match="is also in the reference"):
        calibration.read(_save(tmp_path, values), INTERFACE, {"x": values})


def test_note_for_few_samples(tmp_path: Path) -> None:
    (note,) = calibration.read(_save(tmp_path, _values(7)), INTERFACE).notes
    assert note == "only 7 calibration samples: at least 100 are recommended"


def test_note_for_few_different_samples(tmp_path: Path) -> None:
    values = np.tile(_values(3), (50, 1, 1))
    (note,) = calibration.read(_save(tmp_path, values), INTERFACE).notes
    assert note == "only 3 different calibration samples: at least 100 are recommended"


def test_equal_samples(tmp_path: Path) -> None:
    """Their values differ, but ranges would be those of a single sample."""
    values = np.tile(_values(1), (240, 1, 1))
    with pytest.raises(SampleError, match="The 240 samples that were selected") as error:
        calibration.read(_save(tmp_path, values), INTERFACE)
    assert error.value.exit_code == 2
    (note,) = calibration.read(_save(tmp_path, values[:1]), INTERFACE).notes
    assert note == "only 1 calibration sample: at least 100 are recommended"


def test_many_samples_are_sampled_evenly(tmp_path: Path) -> None:
    loaded = calibration.read(_save(tmp_path, _values(1111)), INTERFACE)
    assert len(loaded) == calibration.MAX_SAMPLES
    np.testing.assert_array_equal(loaded.inputs["x"][-1], _values(1111)[-1])


def test_note_for_an_outlier(tmp_path: Path) -> None:
    values = _values(700)
    values[3, 1, 1] = 1000.0
    values = values[:128]
    (note,) = calibration.read(_save(tmp_path, values), INTERFACE).notes
    assert "times the 99.9th percentile" in note


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((9, 5, 3), 0.5), "every value in c.npy is 0.5"),
        (np.full((9, 5, 3), np.nan), "NaN"),
        (_values(9) * 1e9, "values up to"),
        (np.zeros((0, 5, 3)), "has no samples"),
        (np.zeros((9, 4, 3)), "expected the shape (samples, 5, 3)"),
        (_invalid_late_value(np.nan), "the first at (1010, 2, 1)"),
        (_invalid_late_value(3e7), "values up to 3e+07"),
    ],
)
def test_invalid_samples(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as error:
        calibration.read(_save(tmp_path, values), INTERFACE)
    assert message in str(error.value)


TOKENS = Interface((TensorSpec("t", (None, 4), "int32"),), (), ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((9, 4), 3), "every value in c.npy is 3"),
        (
            np.arange(36).reshape(9, 4),
            "tokens in c.npy range from 0 to 35, but the model takes 0 to 34",
        ),
    ],
)
def test_invalid_tokens(values: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as error:
        calibration.read(
            _save(tmp_path, values),
            TOKENS,
            vocabulary={"t": TokenLimits(np.array([0]), np.array([35]))},
        )
    assert message in str(error.value)


def test_tokens(tmp_path: Path) -> None:
    values = np.arange(36).reshape(9, 4)
    loaded = calibration.read(
        _save(tmp_path, values),
        TOKENS,
        vocabulary={"t": TokenLimits(np.array([0]), np.array([36]))},
    )
    np.testing.assert_array_equal(loaded.inputs["t"], values)


PROGRAM = """
import resource, sys
from pathlib import Path
from edgeattn.tensors import TensorSpec
from edgeattn_converters import calibration
from edgeattn_converters.tracing.trace import Interface
interface = Interface((TensorSpec("x", (None, 64, 16), "float32"),), (), ())
now = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
limit = now * 1024 + 100 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(len(calibration.read(Path(sys.argv[1]), interface)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits need Linux")
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_file_larger_than_the_memory(kind: str, tmp_path: Path) -> None:
    """200 MB of samples with 100 MB of free memory."""
    block = np.random.default_rng(0).normal(size=(1000, 64, 16)).astype("float32")
    path = tmp_path / f"c.{kind}"
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if kind == "npz":
            archive = stack.enter_context(zipfile.ZipFile(file, "w"))
            file = stack.enter_context(archive.open("x.npy", "w", force_zip64=True))
        header = {"descr": "<f4", "fortran_order": False, "shape": (50_000, 64, 16)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(50):
            file.write(block.tobytes())
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=1200
    )
    assert (process.stdout.strip(), process.returncode) == ("512", 0), process.stderr[-500:]
