"""Trained models of many Keras versions, converted to both formats.

Expected outputs are those of the model's own Keras version, if ``../shared/models`` contains them,
and otherwise those of the installed Keras 3 or tf_keras, which load these files directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.runners import open_artifact
from edgeattn_converters import Conversion, convert
from edgeattn_converters.options import ConversionOptions

MODELS = Path(__file__).parents[3] / "shared" / "models"
pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="needs the model files of ../shared/models"
)
RECORDED = {
    "R02_countnet_rnn.h5": ("countnet_rnn.npz", "prob"),
    "R03_cmapss_lstm_bin.h5": ("cmapss_bin.npz", "pred"),
    "R05_pems_gru.h5": ("pems_gru.npz", "pred"),
}


def keras3(path: Path, x: Any) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True).predict(x, verbose=0)


def tf_keras(path: Path, x: Any) -> Any:
    import tf_keras as keras

    return keras.models.load_model(path, compile=False).predict(x, verbose=0)


# Large models, and models of kinds that others have too.
LARGE = (
    *("R02_countnet_rnn.h5", "R03_cmapss_lstm_bin.h5", "A13_vsl_lstm_mha.h5"),
    "R08_ethnicolr.h5",
)
SIMILAR = ("R05_pems_gru.h5", "R10_masked_lstm.keras")
REFERENCES: dict[str, Callable[[Path, Any], Any]] = {
    "A13_vsl_lstm_mha.h5": keras3,
    "A21_authai_mha.keras": keras3,
    "R10_masked_lstm.keras": keras3,
    "R08_ethnicolr.h5": tf_keras,
}


def some_are_long(names: Iterable[str]) -> list[Any]:
    long = pytest.mark.long
    return [
        pytest.param(name, marks=long) if name in LARGE + SIMILAR else name
        for name in sorted(names)
    ]


def converted(name: str, folder: Path) -> Conversion:
    conversion = convert(
        MODELS / name, folder / "model.edge", options=ConversionOptions(schemes=("float32",))
    )
    assert conversion.exit_code == 0, [report.failed for report in conversion.report.artifacts]
    assert [item.label for item in conversion.bundle.manifest.artifacts] == [
        "tflite float32",
        "onnx float32",
    ]
    return conversion


def first_outputs(conversion: Conversion, x: Any) -> dict[str, Any]:
    """The first output of each artifact for these inputs."""
    outputs = {}
    for artifact in conversion.bundle.manifest.artifacts:
        runner = open_artifact(conversion.bundle.path, artifact)
        x = np.asarray(x, artifact.inputs[0].dtype)
        outputs[artifact.format] = runner.run({artifact.inputs[0].name: x})[
            artifact.outputs[0].name
        ]
        runner.close()
    return outputs


@pytest.mark.parametrize("name", some_are_long(RECORDED))
def test_recorded_outputs(name: str, tmp_path: Path) -> None:
    file, key = RECORDED[name]
    with np.load(MODELS / file) as data:
        x, expected = data["x"], data[key]
    for format, actual in first_outputs(converted(name, tmp_path), x).items():
        np.testing.assert_allclose(
            actual.reshape(expected.shape), expected, atol=1e-5, rtol=1e-4, err_msg=format
        )


@pytest.mark.parametrize("name", some_are_long(REFERENCES))
def test_outputs_of_the_installed_keras(name: str, tmp_path: Path) -> None:
    conversion = converted(name, tmp_path)
    spec = conversion.bundle.manifest.artifacts[0].inputs[0]
    generator = np.random.default_rng(3)
    shape = (5, *(axis or 1 for axis in spec.shape[1:]))
    if name.startswith("R08"):  # tokens, padded at the front as in training
        x = generator.integers(1, 100, shape).astype(spec.dtype)
        x[:, :7] = 0
    else:
        x = generator.normal(size=shape).astype(spec.dtype)
        x[2, 30:] = 0  # masked by R10
    expected = REFERENCES[name](MODELS / name, x)
    for format, actual in first_outputs(conversion, x).items():
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-4, err_msg=format)
