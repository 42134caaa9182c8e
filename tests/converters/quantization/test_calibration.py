"""Calibration samples: read, screened, and kept apart from the evaluation's."""

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
from edgeattn_converters.quantization.tflite_ranges import range_spread_notes
from edgeattn_converters.tracing.trace import Interface

INTERFACE = Interface((TensorSpec("x", (None, 5, 3), "float32"),), (), ())


def _values(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 5, 3)).astype("float32")


def _late(value: float) -> np.ndarray:
    """Samples of which only one that is not measured on holds a value that must not be there."""
    values = _values(1111)
    values[1010, 2, 1] = value
    return values


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
    assert found.notes == ("7 of 120 calibration samples are not used: they are in the reference",)


def test_nothing_but_what_is_judged_on(tmp_path: Path) -> None:
    values = _values(7)
    with pytest.raises(SampleError, match="is also in the reference"):
        calibration.read(_saved(tmp_path, values), INTERFACE, {"x": values})


def test_few_samples_say_how_many_to_aim_for(tmp_path: Path) -> None:
    (note,) = calibration.read(_saved(tmp_path, _values(7)), INTERFACE).notes
    assert note == "only 7 calibration samples: at least 100 are recommended"


def test_many_samples_are_a_cross_section(tmp_path: Path) -> None:
    found = calibration.read(_saved(tmp_path, _values(1111)), INTERFACE)
    assert len(found) == calibration.MAX_SAMPLES
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
        (_late(np.nan), "the first at (1010, 2, 1)"),
        (_late(3e7), "values up to 3e+07"),
    ],
)
def test_bad_samples(values: np.ndarray, told: str, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        calibration.read(_saved(tmp_path, values), INTERFACE)
    assert told in str(caught.value)


TOKENS = Interface((TensorSpec("t", (None, 4), "int32"),), (), ())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((9, 4), 3), "every value in c.npy is 3"),
        (
            np.arange(36).reshape(9, 4),
            "tokens in c.npy range from 0 to 35, but the embedding has 35",
        ),
    ],
)
def test_bad_tokens(values: np.ndarray, told: str, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        calibration.read(_saved(tmp_path, values), TOKENS, vocabulary={"t": 35})
    assert told in str(caught.value)


def test_tokens(tmp_path: Path) -> None:
    values = np.arange(36).reshape(9, 4)
    found = calibration.read(_saved(tmp_path, values), TOKENS, vocabulary={"t": 36})
    np.testing.assert_array_equal(found.inputs["t"], values)


CHILD = """
import resource, sys
from pathlib import Path
from edgeattn.tensors import TensorSpec
from edgeattn_converters import calibration
from edgeattn_converters.quantization.tflite_ranges import range_spread_notes
from edgeattn_converters.tracing.trace import Interface
interface = Interface((TensorSpec("x", (None, 64, 16), "float32"),), (), ())
now = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
limit = now * 1024 + 100 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
print(len(calibration.read(Path(sys.argv[1]), interface)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_file_larger_than_the_memory(kind: str, tmp_path: Path) -> None:
    """200 MB of samples where 100 MB are left."""
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
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=100
    )
    assert (done.stdout.strip(), done.returncode) == ("512", 0), done.stderr[-500:]


def test_the_spread_between_subsets() -> None:
    # Widths 2, 4 and 3 of a range of -1 to 3, and no difference: 50% and 0%, 25% in the middle.
    parts = [{"a": (0.0, 2.0), "b": (0.0, 1.0)}, {"a": (-1.0, 3.0), "b": (0.0, 1.0)}]
    (note,) = range_spread_notes([*parts, {"a": (0.0, 3.0), "b": (0.0, 1.0)}])
    assert note.startswith("ranges differ by 25% (median) between 3 subsets")
