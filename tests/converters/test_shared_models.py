"""Real trained files of many Keras versions, all the way to both formats.

The truth is what a Keras of the file's own time said, where ``../shared/models`` has it; for the
others the outputs of Keras 3 and tf_keras as they are installed here, which load them unrepaired.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeattn.runners import open_artifact
from edgeattn_converters import Conversion, convert
from edgeattn_converters.options import ConversionOptions

MODELS = Path(__file__).parents[3] / "shared" / "models"
pytestmark = pytest.mark.skipif(
    not MODELS.is_dir(), reason="the real model files of ../shared/models are not here"
)
TRUTHS = {
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


OWN: dict[str, Callable[[Path, Any], Any]] = {
    "A13_vsl_lstm_mha.h5": keras3,
    "A21_authai_mha.keras": keras3,
    "R10_masked_lstm.keras": keras3,
    "R08_ethnicolr.h5": tf_keras,
}


def converted(name: str, folder: Path) -> Conversion:
    made = convert(
        MODELS / name, folder / "model.edge", options=ConversionOptions(schemes=("float32",))
    )
    assert made.exit_code == 0, [report.failed for report in made.report.artifacts]
    assert [item.label for item in made.bundle.manifest.artifacts] == [
        "tflite float32",
        "onnx float32",
    ]
    return made


def answers(made: Conversion, x: Any) -> dict[str, Any]:
    """The first output of each artifact for these inputs."""
    found = {}
    for artifact in made.bundle.manifest.artifacts:
        runner = open_artifact(made.bundle.path, artifact)
        x = np.asarray(x, artifact.inputs[0].dtype)
        found[artifact.format] = runner.run({artifact.inputs[0].name: x})[artifact.outputs[0].name]
        runner.close()
    return found


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_the_truth_of_their_time(name: str, tmp_path: Path) -> None:
    file, key = TRUTHS[name]
    with np.load(MODELS / file) as truth:
        x, expected = truth["x"], truth[key]
    for format, actual in answers(converted(name, tmp_path), x).items():
        np.testing.assert_allclose(
            actual.reshape(expected.shape), expected, atol=1e-5, rtol=1e-4, err_msg=format
        )


@pytest.mark.parametrize("name", sorted(OWN))
def test_their_own_keras(name: str, tmp_path: Path) -> None:
    made = converted(name, tmp_path)
    spec = made.bundle.manifest.artifacts[0].inputs[0]
    generator = np.random.default_rng(3)
    shape = (5, *(axis or 1 for axis in spec.shape[1:]))
    if name.startswith("R08"):  # tokens, padded in front as its authors did
        x = generator.integers(1, 100, shape).astype(spec.dtype)
        x[:, :7] = 0
    else:
        x = generator.normal(size=shape).astype(spec.dtype)
        x[2, 30:] = 0  # what R10 masks
    expected = OWN[name](MODELS / name, x)
    for format, actual in answers(made, x).items():
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-4, err_msg=format)
