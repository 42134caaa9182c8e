"""Classes and functions that the user has to define are named at once, with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.custom_layers import missing_class

layers = tf_keras.layers
X = np.random.default_rng(3).normal(size=(4, 5, 3)).astype("float32")


class Gate(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2


class Shift(layers.Layer):  # type: ignore[misc]
    def __init__(self, amount: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.amount = amount

    def call(self, x: Any) -> Any:
        return x + self.amount

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "amount": self.amount}


def scaled(x: Any) -> Any:
    return x * 3.0


def shifted(x: Any) -> Any:
    return x + 1.0


DEFINITIONS = """
import keras

class Gate(keras.layers.Layer):
    def call(self, x):
        return x * 2

class Shift(keras.layers.Layer):
    def __init__(self, amount=3, **kwargs):
        super().__init__(**kwargs)
        self.amount = amount

    def call(self, x):
        return x + self.amount

def lambda_(x):
    return sum((x, x))

def odd_one(x):
    return sum((x, x, x))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """A file with Lambda layers, one with classes, and one with both; and the outputs."""
    lambdas = [
        layers.Lambda(lambda x: sum((x, x)), name="lambda"),
        layers.Lambda(lambda x: sum((x, x, x)), name="odd>one"),
    ]
    classes = [Gate(name="gate"), Shift(4, name="shift"), Gate(name="again")]
    folder, models = tmp_path_factory.mktemp("missing"), {}
    for name, parts in {
        "lambdas": lambdas,
        "classes": classes,
        "both": [*lambdas, *classes],
    }.items():
        x = inputs = tf_keras.Input((5, 3))
        for part in parts:
            x = part(x)
        model = tf_keras.Model(inputs, layers.Dense(2)(x))
        model.save(folder / f"{name}.h5")
        models[name] = (folder / f"{name}.h5", np.asarray(model(X)))
    return models


def test_lambda_layers_are_named_at_once(models: Any, tmp_path: Path) -> None:
    path, expected = models["lambdas"]
    with pytest.raises(UnsafeModelError, match="at 'lambda' and 'odd>one': the Lambda l") as error:
        audit_file(path)
    hint = str(error.value.hint)
    assert "Define lambda_(x) and odd_one(x) in a Python file" in hint
    trust = hint.rsplit(" ", 1)[-1]
    with pytest.raises(UnsafeModelError, match="needs 2 classes and functions") as error:
        load_model(audit_file(path, trust=trust))
    assert "Define lambda_(x) and odd_one(x)" in str(error.value.hint)
    (tmp_path / "own.py").write_text(DEFINITIONS)
    loaded = load_model(audit_file(path, trust=trust), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-5)


def test_classes_and_functions_are_named_at_once(models: Any, tmp_path: Path) -> None:
    path, expected = models["classes"]
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(path))
    assert error.value.message.splitlines()[1:] == [
        "  Layer 'again' needs the class 'Gate', which Keras does not have.",
        "  Layer 'shift' needs the class 'Shift', which Keras does not have. It was saved with "
        '{"amount": 4}.',
    ]
    either = "(a keras.layers.Layer or keras.Model)"
    assert f"class Gate {either} and class Shift {either} in" in str(error.value.hint)
    assert "in a Python file and pass them: --custom-objects" in str(error.value.hint)
    (tmp_path / "own.py").write_text(DEFINITIONS)
    loaded = load_model(audit_file(path), custom_objects=tmp_path / "own.py")
    np.testing.assert_allclose(loaded.model(X), expected, rtol=1e-5, atol=1e-5)


class Net(keras.Model):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "name": self.name}


def test_missing_models_are_not_called_layers(tmp_path: Path) -> None:
    """A model inside another one, and the whole model, although it stores a name."""
    x, net = keras.Input((3,)), Net(name="net")
    keras.Model(x, net(x)).save(tmp_path / "inside.keras")
    net.save(tmp_path / "whole.keras")
    for name, owner in {"inside": "Layer 'net'", "whole": "The model"}.items():
        with pytest.raises(UnsupportedModelError) as error:
            load_model(audit_file(tmp_path / f"{name}.keras"))
        assert error.value.message.startswith(f"{owner} needs the class 'Net' of the module")
        assert "Define class Net (a keras.Model) in a Python file" in str(error.value.hint)


def test_functions_of_keras_3_are_named_at_once(tmp_path: Path) -> None:
    """Keras 3 stores the name of a function that is no lambda."""
    x = keras.Input((5, 3))
    y = keras.layers.Lambda(shifted, name="second")(keras.layers.Lambda(scaled, name="first")(x))
    keras.Model(x, y).save(tmp_path / "m.keras")
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.keras"))
    assert "The Lambda layer 'first' calls the function 'scaled'" in error.value.message
    assert "The Lambda layer 'second' calls the function 'shifted'" in error.value.message
    assert "Define scaled(x) and shifted(x) in a Python file" in str(error.value.hint)


def test_code_and_classes_are_named_at_once(models: Any) -> None:
    path, _ = models["both"]
    with pytest.raises(UnsafeModelError) as error:
        audit_file(path)
    trust = str(error.value.hint).rsplit(" ", 1)[-1]
    with pytest.raises(UnsafeModelError, match="needs 4 classes and functions") as error:
        load_model(audit_file(path, trust=trust))
    assert "lambda_(x), odd_one(x), class Gate" in str(error.value.hint)


def error_if_trusted(folder: Path) -> UnsupportedModelError:
    """What loading a file with unknown code raises if its hash is passed, with own functions."""
    with pytest.raises(UnsafeModelError) as refused:
        audit_file(folder / "m.h5")
    (folder / "own.py").write_text(DEFINITIONS)
    trusted = audit_file(folder / "m.h5", trust=str(refused.value.hint).rsplit(" ", 1)[-1])
    with pytest.raises(UnsupportedModelError) as error:
        load_model(trusted, custom_objects=folder / "own.py")
    return error.value


def test_one_function_does_not_replace_different_code(tmp_path: Path) -> None:
    """Layers of nested models may have the same name."""
    inner = tf_keras.Sequential(
        [tf_keras.Input((5, 3)), layers.Lambda(lambda x: sum((x, x)), name="odd_one")]
    )
    x = tf_keras.Input((5, 3))
    outer = layers.Lambda(lambda x: sum((x, x, x)), name="odd_one")(inner(x))
    tf_keras.Model(x, outer).save(tmp_path / "m.h5")
    error = error_if_trusted(tmp_path)
    assert "would replace two Lambda layers" in error.message
    assert "different names" in str(error.hint)


def test_mask_functions_are_not_lost(tmp_path: Path) -> None:
    x = tf_keras.Input((5, 3))
    masked = layers.Lambda(
        lambda x: sum((x, x, x)), mask=lambda x, mask: x[..., 0] > 0, name="odd_one"
    )
    tf_keras.Model(x, layers.LSTM(2)(masked(x))).save(tmp_path / "m.h5")
    error = error_if_trusted(tmp_path)
    assert "mask function of its own" in error.message
    assert "compute_mask" in str(error.hint)


def test_lambda_layers_of_an_architecture(models: Any, tmp_path: Path) -> None:
    """The hash of the file of weights allows functions in the place of code."""
    inputs = tf_keras.Input((5, 3))
    odd = layers.Lambda(lambda x: sum((x, x, x)), name="odd_one")(layers.Dense(2)(inputs))
    model = tf_keras.Model(inputs, odd)
    model.save_weights(tmp_path / "w.h5")
    (tmp_path / "m.json").write_text(model.to_json())
    (tmp_path / "own.py").write_text(DEFINITIONS)
    options: dict[str, Any] = {"custom_objects": tmp_path / "own.py",
                               "architecture": str(tmp_path / "m.json")}  # fmt: skip
    with pytest.raises(UnsafeModelError) as refused:
        load_model(audit_file(tmp_path / "w.h5"), **options)
    trust = str(refused.value.hint).rsplit(" ", 1)[-1]
    loaded = load_model(audit_file(tmp_path / "w.h5", trust=trust), **options)
    np.testing.assert_allclose(loaded.model(X), model(X), rtol=1e-5, atol=1e-6)


# Configs as the packages write them (get_config of keras-tcn 3.5.7, keras-self-attention 0.51.0 and
# keras-multi-head 0.29.0), without arguments that do not matter here.
OF_PACKAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "TCN": (
        {"nb_filters": 8, "kernel_size": 2, "nb_stacks": 1, "dilations": [1, 2],
         "use_skip_connections": True},
        "keras-tcn", "from tcn import TCN",
    ),
    "SeqSelfAttention": (
        {"units": 4, "attention_width": None, "attention_activation": "sigmoid"},
        "keras-self-attention", "from keras_self_attention import SeqSelfAttention",
    ),
    "SeqWeightedAttention": (
        {"use_bias": True, "return_attention": False},
        "keras-self-attention", "from keras_self_attention import SeqWeightedAttention",
    ),
    "MultiHead": (
        {"layers": [], "reg_index": None, "reg_slice": None, "reg_factor": 0.0},
        "keras-multi-head", "from keras_multi_head import MultiHead",
    ),
}  # fmt: skip


@pytest.mark.parametrize("class_name", OF_PACKAGES)
def test_packages_of_classes_without_a_module_are_named(class_name: str) -> None:
    """Keras 2 stores no module in .h5 files; other arguments are those of another class."""
    config, package, line = OF_PACKAGES[class_name]
    item = {"class_name": class_name, "config": {"name": "layer", **config}}
    missing = missing_class(item)
    assert missing.message.startswith(f"Layer 'layer' needs the class {class_name} of the package")
    assert f"pip install {package}." in missing.hint
    assert f"'{line}'" in missing.hint
    assert missing.hint.endswith("(or the file that defines the class, if it is yours)")
    for other in (
        {**item, "config": {"name": "layer", "filters": 3}},
        {**item, "module": "my_layers"},
        {"class_name": "Other", "module": "tcn", "config": {"name": "layer"}},
    ):
        assert not missing_class(other).hint


@pytest.mark.parametrize(
    ("class_name", "function"),
    [
        ("PruneLowMagnitude", "tfmot.sparsity.keras.strip_pruning(model)"),
        ("ClusterWeights", "tfmot.clustering.keras.strip_clustering(model)"),
    ],
)
def test_wrappers_for_training_are_removed_by_their_package(class_name: str, function: str) -> None:
    item = {"class_name": class_name, "config": {"name": "wrapper", "layer": {}}}
    missing = missing_class(item)
    assert missing.message.startswith(f"Layer 'wrapper' is {class_name}, a wrapper of the package")
    assert function in missing.hint
    # A class of the user of this name wraps no layer.
    assert "needs the class" in missing_class({**item, "config": {"name": "wrapper"}}).message
