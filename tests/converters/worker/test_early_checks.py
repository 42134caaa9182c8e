"""Mistakes that are found before TensorFlow is imported, in this process and in its worker.

Empty packages stand in for TensorFlow and Keras; importing one of them ends the command with
another message.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "sample_models" / "digits"
IMPORTED = "TensorFlow was imported"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("tensorflow", "keras", "tf_keras"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(
            f"from edgeattn.errors import ConversionError\nraise ConversionError({IMPORTED!r})\n"
        )
    return folder


@pytest.fixture
def without_tensorflow(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts find the empty packages."""
    monkeypatch.setenv("PYTHONPATH", str(packages))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with a fixed sequence length, one with a free one, and files of samples."""
    shutil.copy(DIGITS / "model.h5", tmp_path / "model.h5")
    _write_free_model(tmp_path / "free.keras")
    _write_free_model(tmp_path / "pooled.keras", "MaxPooling1D")
    generator = np.random.default_rng(0)
    x = generator.random((9, 8, 8), np.float32)
    np.save(tmp_path / "right.npy", x)
    np.save(tmp_path / "shape.npy", x[:, :7])
    np.save(tmp_path / "nan.npy", np.where(x == x[3, 2, 1], np.nan, x))
    np.save(tmp_path / "constant.npy", np.full_like(x, 0.5))
    np.savez(tmp_path / "labels.npz", x=x, y=np.arange(9))
    np.savez(tmp_path / "letters.npz", x=x, y=np.array(list("abcdefghi")))
    np.savez(tmp_path / "nan_labels.npz", x=x, y=np.full(9, np.nan))
    np.savez(tmp_path / "unlabeled.npz", x=x)
    (tmp_path / "broken.py").write_text("import keras\ndef build(:\n")
    (tmp_path / "architecture.json").write_text("{}")
    return tmp_path


def _write_free_model(path: Path, *ahead: str) -> None:
    """A .keras archive with a free time axis, as Keras 3 stores it; its weights are not read.

    ``ahead`` are classes of layers between the input and the LSTM.
    """
    import io
    import zipfile

    import h5py

    def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
        return {
            "module": "keras.layers",
            "class_name": class_name,
            "config": {"name": name, **config},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [],
        }

    layers = [
        layer("InputLayer", "sensor", batch_shape=[None, None, 3], dtype="float32"),
        *(layer(kind, kind.lower()) for kind in ahead),
        layer("LSTM", "memory", units=5),
    ]
    config = {"name": "free", "layers": layers, "trainable": True}
    model = {"module": "keras", "class_name": "Sequential", "config": config}
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/memory/cell/vars/0"] = np.zeros((3, 20), np.float32)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.10.0"}))
        archive.writestr("model.weights.h5", weights.getvalue())


CONVERT = [
    (("model.h5", "--calibration", "missing.npz"), "no such file: missing.npz"),
    (("model.h5", "--samples", "missing.npz"), "no such file: missing.npz"),
    (("model.h5", "--no-such-flag"), "No such option"),
    (("model.h5", "--samples", "shape.npy"), "the shape (samples, 8, 8), found (9, 7, 8)"),
    (("model.h5", "--samples", "nan.npy"), "NaN"),
    (("model.h5", "--samples", "letters.npz"), "not numbers"),
    (("model.h5", "--calibration", "shape.npy"), "the shape (samples, 8, 8), found (9, 7, 8)"),
    (("model.h5", "--calibration", "nan.npy"), "NaN"),
    (("model.h5", "--calibration", "constant.npy"), "every value"),
    (("model.h5", "--attention", "lok"), "no layer with this name"),
    (("model.h5", "--time-steps", "1000000000"), "between 1 and 100,000"),
    (("model.h5", "--time-steps", "9"), "fixed sequence length"),
    (("free.keras",), "--time-steps"),
    (("free.keras", "--time-steps", "50000"), "at most 10,000 steps"),
    (("model.h5", "--architecture", "architecture.json"), "has its own architecture"),
    (("model.h5", "--custom-objects", "missing.py"), "no such file: missing.py"),
    (("model.h5", "--custom-objects", "broken.py"), "broken.py, line 2 is not valid Python"),
    (("model.h5", "-o", "right.npy"), "exists and is not a folder"),
    (("model.h5", "-o", "closed/out.edge"), "Cannot write"),
]
TUNE = [
    (("model.h5", "--data", "missing.npz"), "no such file: missing.npz"),
    (("model.h5", "--data", "letters.npz"), "not numbers"),
    (("model.h5", "--data", "nan_labels.npz"), "NaN"),
    (("model.h5", "--data", "unlabeled.npz"), "no labels"),
    (("model.h5", "--data", "shape.npy"), "the shape (samples, 8, 8)"),
    (("model.h5", "--data", "labels.npz", "--calibration", "nan.npy"), "NaN"),
    (("model.h5", "--data", "labels.npz", "--time-steps", "9"), "fixed sequence length"),
    (("model.h5", "--data", "labels.npz", "-o", "closed/out.edge"), "Cannot write"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((command, *arguments), message, marks=[pytest.mark.long] if k % 3 else [])
        for command, mistakes in (("convert", CONVERT), ("tune", TUNE))
        for k, (arguments, message) in enumerate(mistakes)
    ],
)
def test_a_mistake_is_reported_before_tensorflow_is_imported(
    arguments: tuple[str, ...],
    message: str,
    folder: Path,
    without_tensorflow: None,
    edgeattn: Callable,
) -> None:
    if any(argument.startswith("closed/") for argument in arguments):
        # A file in the place of the folder: the superuser may write to any folder.
        (folder / "closed").touch()
    before = sorted(folder.iterdir())
    result = edgeattn(*arguments)
    assert message in result.err
    assert IMPORTED not in result.err
    assert result.code == 2
    assert sorted(folder.iterdir()) == before


def test_the_command_itself_imports_no_tensorflow(
    folder: Path, packages: Path, edgeattn_process: Callable
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    result = edgeattn_process("convert", "model.h5", "--samples", "nan.npy", env=environment)
    assert "NaN" in result.err
    assert result.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("convert", "model.h5"), marks=pytest.mark.long),
        ("convert", "model.h5", "--samples", "right.npy", "--calibration", "right.npy"),
        pytest.param(
            ("convert", "free.keras", "--time-steps", "7", "--states", "--lowering", "chunked"),
            marks=pytest.mark.long,
        ),
        ("tune", "model.h5", "--data", "labels.npz", "--calibration", "right.npy"),
        # The sequence of the LSTM is shorter than that of the input.
        ("convert", "pooled.keras", "--time-steps", "16000"),
    ],
)
def test_without_a_mistake_tensorflow_is_imported(
    arguments: tuple[str, ...], folder: Path, without_tensorflow: None, edgeattn: Callable
) -> None:
    result = edgeattn(*arguments)
    assert IMPORTED in result.err
