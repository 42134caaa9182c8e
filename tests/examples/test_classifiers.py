"""Activity, gestures and vowels with ``--quick``, on random data."""

import keras
import numpy as np
import pytest

import edgeattn.layers  # noqa: F401  registers the layer of the files
from example_results import read_result
from fake_data import write_gestures, write_har_subset, write_vowels

pytestmark = pytest.mark.long


def test_vowels_from_data_to_report(tmp_path, run_example):
    write_vowels(tmp_path)
    folder = run_example("vowels", "--data", tmp_path)
    result = read_result(folder, samples=36)
    assert (folder / "attention.png").stat().st_size > 0
    model = keras.saving.load_model(folder / "model.h5")
    with np.load(folder / "test.npz") as test:
        correct = model.predict(test["x"], verbose=0).argmax(axis=1) == test["y"]
    assert result["keras"]["score"] == pytest.approx(correct.mean())


@pytest.mark.parametrize(
    ("name", "write", "file", "shape"),
    [
        ("activity", write_har_subset, "uci_har_subset.npz", (128, 9)),
        ("gestures", write_gestures, "point_history.csv", (16, 2)),
    ],
)
def test_training_without_conversion(name, write, file, shape, tmp_path, run_example):
    write(tmp_path / file)
    folder = run_example(name, "--data", tmp_path / file, "--no-convert")
    assert (folder / "attention.png").stat().st_size > 0
    assert not (folder / "model.edge").exists()
    assert keras.saving.load_model(folder / "model.h5").input_shape == (None, *shape)


@pytest.mark.parametrize(
    ("name", "schemes"), [("activity", ["float32"]), ("gestures", ["float32", "int8"])]
)
def test_conversion_of_an_untrained_model(name, schemes, tmp_path, modules):
    """The networks that are only trained above; the sample model *commands* is like activity."""
    import importlib

    converters = pytest.importorskip("edgeattn_converters", reason="requires the converters")
    keras.utils.set_random_seed(1)
    model = importlib.import_module(name).build()
    model.save(tmp_path / "model.h5", include_optimizer=False)
    samples = np.random.default_rng(2).normal(0, 0.5, (60, *model.input_shape[1:]))
    for file, rows in (("samples", samples[:20]), ("calibration", samples[20:])):
        np.savez(tmp_path / f"{file}.npz", x=rows.astype("float32"))
    converted = converters.convert(
        converters.ModelSource(tmp_path / "model.h5", samples=tmp_path / "samples.npz"),
        tmp_path / "model.edge",
        options=converters.ConversionOptions(schemes=schemes),
        quantization=converters.QuantizationOptions(
            calibration=tmp_path / "calibration.npz" if "int8" in schemes else None
        ),
    )
    assert converted.failures == ()
    assert len(converted.report.artifacts) == 2 * len(schemes)
    for item in converted.report.artifacts:
        if item.artifact.scheme == "float32":
            assert item.failed == ()
