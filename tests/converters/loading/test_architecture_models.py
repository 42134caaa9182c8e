"""What ``--architecture FILE.py:NAME`` may be: a class, a function or a model of the file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model

SOURCE = """
import keras
from keras import layers


class Keys(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm, self.dense = layers.LSTM(4), layers.Dense(2)

    def call(self, inputs):
        return self.dense(layers.concatenate([self.lstm(inputs["series"]), inputs["fixed"]]))


class Arguments(Keys):
    def call(self, series, fixed):
        return super().call({"series": series, "fixed": fixed})


class Labels(Keys):
    def call(self, x, y):
        return super().call({"series": x, "fixed": y})


@keras.saving.register_keras_serializable()
class Stored(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.lstm, self.dense = layers.LSTM(4), layers.Dense(2)

    def call(self, x, y):
        return self.dense(layers.concatenate([self.lstm(x), y]))

    def get_config(self):
        return {}


model = keras.Sequential([keras.Input((5, 3)), layers.GRU(4), layers.Dense(2)])
open_model = keras.Sequential([layers.GRU(4), layers.Dense(2)])
"""
GENERATOR = np.random.default_rng(4)
SERIES = GENERATOR.normal(size=(4, 5, 3)).astype("float32")
FIXED = GENERATOR.normal(size=(4, 2)).astype("float32")


@pytest.fixture
def program(tmp_path: Path) -> tuple[Path, Any]:
    path = tmp_path / "program.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    np.savez(tmp_path / "samples.npz", series=SERIES, fixed=FIXED)
    np.savez(tmp_path / "xy.npz", x=SERIES, y=FIXED)
    return path, module


@pytest.mark.parametrize("name", only(["Keys", "Arguments"], "Arguments"))
def test_samples_have_the_shapes_of_a_class_with_several_inputs(
    name: str, program: tuple[Path, Any], tmp_path: Path
) -> None:
    path, module = program
    model = getattr(module, name)()
    inputs = {"series": SERIES, "fixed": FIXED}
    expected = np.asarray(model(inputs) if name == "Keys" else model(**inputs))
    model.save_weights(tmp_path / "m.weights.h5")
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"),
        architecture=f"{path}:{name}",
        samples=tmp_path / "samples.npz",
    )
    np.testing.assert_allclose(loaded.model(inputs), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_samples_with_other_names(program: tuple[Path, Any], tmp_path: Path) -> None:
    path, module = program
    model = module.Arguments()
    model(SERIES, FIXED)
    model.save_weights(tmp_path / "m.weights.h5")
    np.savez(tmp_path / "other.npz", first=SERIES, second=FIXED)
    for name, hint in (
        ("Arguments", "arguments of call (series, fixed)"),
        ("Labels", "argument y"),
    ):
        with pytest.raises(UnsupportedModelError, match="cannot be called") as error:
            load_model(
                audit_file(tmp_path / "m.weights.h5"),
                architecture=f"{path}:{name}",
                samples=tmp_path / "other.npz",
            )
        assert hint in str(error.value.hint)


def test_an_argument_with_the_name_of_labels(program: tuple[Path, Any], tmp_path: Path) -> None:
    path, module = program
    model = module.Stored()
    model(SERIES, FIXED)
    model.save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError, match="shapes of all its inputs") as error:
        load_model(
            audit_file(tmp_path / "m.keras"), custom_objects=path, samples=tmp_path / "xy.npz"
        )
    assert "Rename the argument y of call" in str(error.value.hint)


@pytest.mark.long
def test_a_model_of_the_file(program: tuple[Path, Any], tmp_path: Path) -> None:
    path, module = program
    expected = np.asarray(module.model(SERIES))
    module.model.save_weights(tmp_path / "m.weights.h5")
    file = audit_file(tmp_path / "m.weights.h5")
    loaded = load_model(file, architecture=f"{path}:model")
    np.testing.assert_allclose(loaded.model(SERIES), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="open_model is Sequential, not a built") as error:
        load_model(file, architecture=f"{path}:open_model")
    assert "Input layer" in str(error.value.hint)


def test_a_missing_class_of_the_model(program: tuple[Path, Any], tmp_path: Path) -> None:
    _, module = program
    model = module.Stored()
    model(SERIES, FIXED)
    model.save(tmp_path / "m.keras")
    with pytest.raises(
        UnsupportedModelError, match=r"^The model needs the class 'Stored'"
    ) as error:
        load_model(audit_file(tmp_path / "m.keras"))
    assert "Define class Stored (a keras.Model) in" in str(error.value.hint)
