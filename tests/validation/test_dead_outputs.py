"""Outputs that are the same for every sample of the reference, in reports and on the terminal."""

import artifacts
import numpy as np
import pytest
from artifacts import dense, samples

from edgeattn.validation.constant_outputs import constant_outputs

ROWS = 7


def bundle_of(folder, score, x=None):
    """A bundle with the outputs ``score`` of Keras and two edge cases after the samples."""
    folder.mkdir(exist_ok=True)
    artifacts.write_dense_onnx(folder / "m.onnx")
    x = samples(ROWS + 2) if x is None else x
    entries = [artifacts.artifact(folder / "m.onnx")]
    artifacts.write_bundle(folder, entries, {"input/x": x, "output/score": score})
    rows = {"samples": ROWS, "edge_cases": 2, "ordinary_edge_cases": 0}
    artifacts.edit_manifest(folder, lambda manifest: manifest["reference"].update(rows))
    return artifacts.Bundle.open(folder), {"x": x}


CHANGING = dense(samples(ROWS + 2))
DEAD = np.zeros_like(CHANGING)
# The edge cases do not count: they reach values that no sample reaches.
DEAD_ON_SAMPLES = np.where(np.arange(ROWS + 2)[:, None] < ROWS, 0.0, CHANGING)


@pytest.mark.parametrize(
    ("expected", "actual", "warning"),
    [
        (CHANGING, CHANGING, None),
        (DEAD, DEAD, "output 'score' of Keras is the same for all 7 samples (by hand)"),
        (DEAD_ON_SAMPLES, CHANGING, "output 'score' of Keras is the same for all 7 samples"),
        (CHANGING, DEAD, "output 'score' of onnx float32 is the same for all 7 samples"),
        (CHANGING, CHANGING + 1e-9, None),
    ],
)
def test_warnings(tmp_path, expected, actual, warning):
    bundle, inputs = bundle_of(tmp_path / "b.edge", expected)
    (artifact,) = bundle.manifest.artifacts
    texts = list(constant_outputs(bundle, artifact, inputs, {"score": expected}, {"score": actual}))
    assert len(texts) == (warning is not None)
    assert all(text.startswith(warning) for text in texts)


@pytest.mark.parametrize(
    ("scale", "warned"),
    [
        (1e-7, True),  # within the tolerance of float32
        (1e-3, False),  # a check fails
    ],
)
def test_values_that_change_too_little_for_a_limit(tmp_path, scale, warned):
    expected = np.concatenate([scale * CHANGING, 1e3 * CHANGING], axis=1)
    bundle, inputs = bundle_of(tmp_path / "b.edge", expected)
    (artifact,) = bundle.manifest.artifacts
    outputs = [{"score": expected}, {"score": np.rint(expected)}]
    texts = list(constant_outputs(bundle, artifact, inputs, *outputs))
    assert len(texts) == warned
    width = CHANGING.shape[1]
    start = f"{width} values of output 'score' of onnx float32 (index 0, 1) never changed on 7"
    assert all(text.startswith(start) for text in texts)


def test_equal_samples_say_nothing(tmp_path):
    x = np.repeat(samples(1), ROWS + 2, axis=0)
    bundle, inputs = bundle_of(tmp_path / "b.edge", DEAD, x)
    (artifact,) = bundle.manifest.artifacts
    outputs = {"score": DEAD}
    assert list(constant_outputs(bundle, artifact, inputs, outputs, outputs)) == []


def test_the_command_prints_the_warning(edgeattn, tmp_path):
    bundle, _ = bundle_of(tmp_path / "b.edge", DEAD)

    def synthetic(manifest):
        manifest["reference"]["kind"] = "synthetic"

    artifacts.edit_manifest(bundle.path, synthetic)
    warning = "output 'score' of Keras is the same for all 7 samples (synthetic)"
    assert f"warning: {warning}\n" in edgeattn("validate", bundle.path).out
    assert edgeattn("validate", bundle.path, "--json").document["warnings"] == [warning]
