"""The sample models: their scripts run, their files load, their README tells the truth."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import edgeattn.layers  # noqa: F401  so that the files load without custom objects

# Raised inside Keras 3.15, whose variables know numpy 1's ``__array__`` only.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)

ROOT = Path(__file__).parent.parent / "sample_models"
NAMES = ["find_max", "add_two_numbers", "digits", "digits_transformer", "events", "commands"]
# Whose samples are held-back pictures; the others' are drawn.
PICTURES = ("digits", "digits_transformer")
# Those that are also converted to int8 here.
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
}


def script(name):
    """A folder's train.py as a module."""
    spec = importlib.util.spec_from_file_location(f"train_{name}", ROOT / name / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folder):
    with np.load(folder / "samples.npz") as samples:
        x, y = samples["x"], samples["y"]
    return keras.saving.load_model(folder / "model.h5"), x, y


def stated(name):
    """The figures of a README: the rows ``| name | value |`` of its table, as they are written."""
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| (.+?) \| ([\d.]+%?) \|$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_training_runs_and_its_files_load(name, tmp_path):
    printed = subprocess.run(
        [sys.executable, ROOT / name / "train.py", "--quick", "--output", tmp_path / "made"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert printed.returncode == 0, printed.stderr
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == [
        "model.h5",
        "samples.npz",
    ]
    model, x, y = load(tmp_path / "made")
    assert x.dtype == (np.int32 if name == "commands" else np.float32)
    assert len(model.predict(x, verbose=0)) == len(x) == len(y)


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_script(name):
    module = script(name)
    _, x, y = load(ROOT / name)
    if name in PICTURES:
        _, expected_x, _, expected_y = module.pictures()
    else:
        expected_x, expected_y = module.sequences(200, module.SEED + 2)
    np.testing.assert_allclose(x, expected_x, rtol=1e-6)
    np.testing.assert_allclose(y, expected_y, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_model_keeps_its_promise_on_the_samples(name):
    figures = script(name).measure(*load(ROOT / name))
    for figure, limit in LIMITS[name].items():
        if "error" in figure:
            assert figures[figure] <= limit
        else:
            assert figures[figure] >= limit


@pytest.mark.parametrize("name", NAMES)
def test_readme_states_what_is_measured(name):
    module = script(name)
    model, x, y = load(ROOT / name)
    if name not in PICTURES:
        x, y = module.sequences(5000, module.SEED + 1)
    figures = module.measure(model, x, y)
    written = stated(name)
    assert set(written) == set(figures)
    for figure, text in written.items():
        percent = text.endswith("%")
        value = figures[figure] * 100 if percent else figures[figure]
        digits = len(text.rstrip("%").partition(".")[2])
        # Rounding, and one unit in the last place for machines that round otherwise.
        assert abs(float(text.rstrip("%")) - value) <= 1.5 * 10**-digits, figure


def test_together_they_cover_what_people_bring():
    """Said in the table of the README, and true of the files."""
    found = {}
    for name in NAMES:
        model, _, y = load(ROOT / name)
        layers = list(model._flatten_layers())
        found[name] = {type(layer).__name__ for layer in layers}
        found[name] |= {layer.score for layer in layers if hasattr(layer, "score")}
        found[name].add("classes" if np.issubdtype(y.dtype, np.integer) else "amounts")
        assert (ROOT / name / "model.h5").stat().st_size < 2_000_000
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\]\(\1\) ", table, re.MULTILINE) == NAMES
    assert set().union(*found.values()) >= {
        *("luong", "bahdanau", "LSTM", "GRU", "Bidirectional", "Masking", "Embedding"),
        *("MultiHeadAttention", "classes", "amounts"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_default_artifact_passes(name: str, tmp_path: Path) -> None:
    """Both formats in float32 within 1e-5, and the smaller schemes within their limits."""
    converters = pytest.importorskip("edgeattn_converters", reason="needs the host's half")
    folder, module = ROOT / name, script(name)
    options, quantization = converters.ConversionOptions(), converters.QuantizationOptions()
    if name in INTEGER:
        x = module.pictures()[0] if name in PICTURES else module.sequences(100, module.SEED + 3)[0]
        np.savez(tmp_path / "calibration.npz", x=x[:100])
        schemes = ("float32", "float16", "dynamic_int8", "int8")
        options = converters.ConversionOptions(schemes=schemes)
        quantization = converters.QuantizationOptions(calibration=tmp_path / "calibration.npz")
    made = converters.convert(
        converters.ModelSource(folder / "model.h5", samples=folder / "samples.npz"),
        tmp_path / "model.edge",
        options=options,
        quantization=quantization,
    )
    count = 8 if name in INTEGER else 6
    assert [report.failed for report in made.report.artifacts] == [()] * count
    assert made.exit_code == 0
    for report in made.report.artifacts:
        if report.artifact.scheme == "float32":
            assert report.max_abs_error <= 1e-5
