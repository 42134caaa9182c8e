"""The sample models: their scripts run, their files load, their READMEs are right."""

import functools
import importlib.util
import re
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from long_parameters import only

import edgeattn.layers  # noqa: F401  registers the layer of the files
from edgeattn.evaluation.file_dataset import read_dataset
from edgeattn.validation.validate import validate_isolated

# Raised in Keras 3.15, whose variables implement the ``__array__`` of numpy 1.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)

ROOT = Path(__file__).parent.parent / "sample_models"
NAMES = [
    "find_max",
    "add_two_numbers",
    "digits",
    "digits_transformer",
    "events",
    "commands",
    "spoken_digits",
]
# Models whose samples are held-out images; the samples of the others are generated.
IMAGES = ("digits", "digits_transformer")
# Models that predict amounts, whose task needs more samples.
AMOUNTS = ("find_max", "add_two_numbers")
# Models that are also converted to int8 here.
INTEGER = ("digits_transformer", "events", "commands")
LIMITS = {
    "find_max": {"mean absolute error": 0.002, "largest weight is on the maximum": 0.95},
    "add_two_numbers": {
        "mean absolute error": 0.02,
        "two largest weights are on the two numbers": 0.95,
    },
    "digits": {"accuracy": 0.95},
    "digits_transformer": {"accuracy": 0.94},
    "events": {"accuracy": 0.97},
    "commands": {"accuracy": 0.99},
    "spoken_digits": {"accuracy": 0.99},
}


@functools.cache
def script(name):
    """The train.py of a folder as a module."""
    spec = importlib.util.spec_from_file_location(f"train_{name}", ROOT / name / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folder):
    with np.load(folder / "samples.npz") as samples:
        x, y = samples["x"], samples["y"]
    return keras.saving.load_model(folder / "model.h5"), x, y


@functools.cache
def sample_model(name):
    """The model of a folder, with its samples and targets."""
    return load(ROOT / name)


def readme_metrics(name):
    """The rows ``| metric | value |`` of a README."""
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (.+?) \| ([\d.]+%?) \|$", text, flags=re.MULTILINE))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", only(NAMES, "digits"))
def test_training_runs_and_its_files_load(name, tmp_path, monkeypatch):
    """In this process: importing Keras takes longer than the training."""
    path = ROOT / name / "train.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--quick", "--output", str(tmp_path / "output")])
    runpy.run_path(str(path), run_name="__main__")
    assert sorted(file.name for file in (tmp_path / "output").iterdir()) == [
        "model.h5",
        "samples.npz",
    ]
    model, x, y = load(tmp_path / "output")
    assert x.dtype == (np.int32 if name == "commands" else np.float32)
    assert len(model.predict(x, verbose=0)) == len(x) == len(y)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_script(name):
    module = script(name)
    _, x, y = sample_model(name)
    if name in IMAGES:
        _, expected_x, _, expected_y = module.pictures()
    elif name in AMOUNTS:
        expected_x, expected_y = module.sequences(module.SAMPLES, module.SEED + 2, "float16")
    else:
        expected_x, expected_y = module.sequences(200, module.SEED + 2)
    # numpy's FFT and BLAS round the spectra of spoken_digits differently on each machine.
    np.testing.assert_allclose(x, expected_x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(y, expected_y, rtol=1e-6)


@pytest.mark.parametrize("name", only(NAMES, "find_max", "digits", "digits_transformer"))
def test_metrics_on_the_samples_are_within_limits(name):
    metrics = script(name).measure(*sample_model(name))
    for metric, limit in LIMITS[name].items():
        if "error" in metric:
            assert metrics[metric] <= limit
        else:
            assert metrics[metric] >= limit


@pytest.mark.parametrize("name", only(NAMES, "digits", "find_max"))
def test_the_readme_has_the_measured_metrics(name):
    module = script(name)
    model, x, y = sample_model(name)
    if name not in IMAGES:
        x, y = module.sequences(5000, module.SEED + 1)
    metrics = module.measure(model, x, y)
    written = readme_metrics(name)
    assert set(written) == set(metrics)
    for metric, text in written.items():
        value = metrics[metric] * (100 if text.endswith("%") else 1)
        number = text.rstrip("%")
        digits = len(number.partition(".")[2])
        # The rounding error, and one unit in the last digit for differences between machines.
        assert abs(float(number) - value) <= 1.5 * 10**-digits, metric


def test_the_models_cover_the_supported_layers_and_tasks():
    features = {}
    for name in NAMES:
        model, _, y = sample_model(name)
        layers = list(model._flatten_layers())
        features[name] = {type(layer).__name__ for layer in layers}
        features[name] |= {layer.score for layer in layers if hasattr(layer, "score")}
        features[name].add("classes" if np.issubdtype(y.dtype, np.integer) else "amounts")
        assert (ROOT / name / "model.h5").stat().st_size < 2_000_000
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("The following models")[0]
    assert re.findall(r"^\| \[(\w+)\]\(\1/README\.md\) ", table, re.MULTILINE) == NAMES
    assert set().union(*features.values()) >= {
        *("luong", "bahdanau", "LSTM", "GRU", "Bidirectional", "Masking", "Embedding"),
        *("MultiHeadAttention", "classes", "amounts"),
    }


@pytest.mark.parametrize("name", only(NAMES, "digits"))
def test_every_artifact_passes(name, tmp_path):
    """Both formats: float32 within 1e-5, the other schemes within their limits."""
    converters = pytest.importorskip("edgeattn_converters", reason="requires the converters")
    folder, module = ROOT / name, script(name)
    options, quantization = converters.ConversionOptions(), converters.QuantizationOptions()
    if name in INTEGER:
        x = module.pictures()[0] if name in IMAGES else module.sequences(100, module.SEED + 3)[0]
        np.savez(tmp_path / "calibration.npz", x=x[:100])
        schemes = ("float32", "float16", "dynamic_int8", "int8")
        options = converters.ConversionOptions(schemes=schemes)
        quantization = converters.QuantizationOptions(calibration=tmp_path / "calibration.npz")
    converted = converters.convert(
        converters.ModelSource(folder / "model.h5", samples=folder / "samples.npz"),
        tmp_path / "model.edge",
        options=options,
        quantization=quantization,
    )
    count = 8 if name in INTEGER else 6
    assert [item.failed for item in converted.report.artifacts] == [()] * count
    assert converted.exit_code == 0
    for item in converted.report.artifacts:
        if item.artifact.scheme == "float32":
            assert item.max_abs_error <= 1e-5
    _check_the_task(converted.bundle, folder / "samples.npz", name)


def _check_the_task(bundle, samples, name):
    """Every artifact passes on the labelled samples, unless it lost a sample."""
    dataset = read_dataset(samples, bundle)
    report = validate_isolated(bundle, bundle.select(("onnx",), ()), dataset=dataset)
    for item in report.artifacts:
        (result,) = item.task.results
        assert result.samples >= (2700 if name in AMOUNTS else 190)
        if not result.lost and not result.changed:
            assert result.verdict == "pass", result.summary
    assert sum(item.task.verdict == "pass" for item in report.artifacts) >= 2
