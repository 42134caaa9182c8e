"""Integer artifacts that were compared on few real samples."""

import artifacts
import numpy as np
import pytest
from function_runner import FunctionRunner

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import CALIBRATION, SAMPLES, SYNTHETIC
from edgeattn.evaluation.file_dataset import open_dataset
from edgeattn.tensors import TensorSpec
from edgeattn.validation.few_samples import few_samples
from edgeattn.validation.validate import validate

SCORE = TensorSpec("score", (None, 1), "float32")


def right(tensors):
    return {"score": tensors["x"][:, :1] + 1}


def warnings(folder, scheme="int8", kind=CALIBRATION, count=12, on_data=0):
    """The warnings on an artifact that equals Keras, by kind and number of samples."""
    folder.mkdir()
    entries = artifacts.declared_artifacts(folder, (scheme,), (SCORE,))
    x = np.arange(3 * count, dtype=np.float32).reshape(-1, 3)
    bundle = artifacts.write_bundle(folder, entries, {"input/x": x, "output/score": x[:, :1] + 1})
    bundle.manifest.reference["kind"] = kind
    dataset = None
    if on_data:
        more = 3 * count + np.arange(3 * on_data, dtype=np.float32).reshape(-1, 3)
        np.savez(folder.with_suffix(".npz"), x=more)
        dataset = open_dataset(folder.with_suffix(".npz"), bundle).with_keras(right)
    report = validate(
        Bundle(bundle.path, bundle.manifest),
        bundle.manifest.artifacts,
        lambda a: FunctionRunner(right, a.inputs, a.outputs),
        dataset=dataset,
    )
    assert report.verdict == "pass"
    return [text for text in report.warnings if "were compared on" in text]


@pytest.mark.parametrize(
    ("count", "share"),
    [
        # 1 - 0.025 ** (1 / n)
        (1, "98%"),
        (4, "60%"),
        (12, "26%"),
        (35, "10%"),
    ],
)
def test_the_share_of_samples_that_may_be_worse_is_exact(tmp_path, count, share):
    (text,) = warnings(tmp_path / "b", count=count)
    assert f"compared on {count} sample" in text
    assert f"up to {share} of other samples" in text


def test_enough_samples_have_no_warning(tmp_path):
    # 1 - 0.025 ** (1 / 36) = 0.0974
    assert warnings(tmp_path / "b", count=36) == []


@pytest.mark.parametrize(
    ("scheme", "kind", "warned"),
    [
        ("int8", SAMPLES, True),
        ("int16x8", CALIBRATION, True),
        ("int8", SYNTHETIC, False),
        # Their activations are not clipped to measured ranges.
        ("dynamic_int8", CALIBRATION, False),
        ("float32", CALIBRATION, False),
    ],
)
def test_only_clipped_schemes_on_real_samples_have_one(tmp_path, scheme, kind, warned):
    assert bool(warnings(tmp_path / "b", scheme, kind)) == warned


@pytest.mark.parametrize(("on_data", "count"), [(40, None), (20, 20), (5, 12)])
def test_data_of_the_user_count(tmp_path, on_data, count):
    texts = warnings(tmp_path / "b", on_data=on_data)
    assert [f"compared on {count} samples" in text for text in texts] == ([True] if count else [])


def test_the_fewest_samples_of_all_integer_artifacts_count(tmp_path):
    int8, float32 = artifacts.declared_artifacts(tmp_path, ("int8", "float32"), (SCORE,))
    (text,) = few_samples([(int8, 30), (int8, 20), (float32, 2), (int8, None)])
    assert "compared on 20 samples" in text
