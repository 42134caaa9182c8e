"""Files with the pruning wrappers of tensorflow-model-optimization, compared with tf_keras.

The wrapper is one with the variables and the call of the package, version 0.8.1:
tensorflow_model_optimization/python/core/sparsity/keras/pruning_wrapper.py.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from long_parameters import only

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model
from edgeattn_converters.loading.migrate.functional_nodes import tensor
from edgeattn_converters.loading.migrate.graph_edits import redirected, redirected_endpoints
from edgeattn_converters.loading.weights.assignment import Assignment
from edgeattn_converters.loading.weights.pruned_weights import (
    apply_masks,
    listed_masks,
    numbered_masks,
    without_added,
)
from edgeattn_converters.loading.with_tf_keras.pruning_wrapper import wrapper_class

_MODULE = "tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper"
_RECURRENT = ("LSTM", "GRU", "SimpleRNN")
_OF_CELLS = ("kernel", "recurrent_kernel")
_KERNELS = {"SeparableConv1D": "pointwise_kernel", "Embedding": "embeddings"}
_WITHOUT = ("BatchNormalization", "Flatten", "Masking", "Add", "GlobalAveragePooling1D")
STEPS = np.random.default_rng(3).normal(size=(5, 8, 3)).astype("float32")
STEPS[0, 5:] = STEPS[1, 2:] = STEPS[2, 3] = 0
WORDS = np.array([[1, 2, 3, 0, 0, 0], [4, 0, 2, 1, 0, 0], [1, 1, 1, 1, 1, 1]], "int32")


def _prunable(layer: Any) -> list[Any]:
    name = type(layer).__name__
    if hasattr(layer, "get_prunable_weights"):
        return list(layer.get_prunable_weights())
    if name in _RECURRENT:
        return [getattr(layer.cell, item) for item in _OF_CELLS]
    return [] if name in _WITHOUT else [getattr(layer, _KERNELS.get(name, "kernel"))]


def _wrapper() -> Any:
    """The class of the package, without what happens in training only."""
    import tf_keras

    class PruneLowMagnitude(tf_keras.layers.Wrapper):
        def __init__(self, layer: Any, **kwargs: Any) -> None:
            kwargs["name"] = f"prune_low_magnitude_{layer.name}"
            super().__init__(layer, **kwargs)
            self._track_trackable(layer, name="layer")
            if not hasattr(self, "_batch_input_shape") and hasattr(layer, "_batch_input_shape"):
                self._batch_input_shape = layer._batch_input_shape

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.prunable_weights = _prunable(self.layer)
            self.pruning_vars = []
            for weight in self.prunable_weights:
                mask = self.add_weight("mask", weight.shape, initializer="ones", trainable=False)
                threshold = self.add_weight("threshold", [], initializer="zeros", trainable=False)
                self.pruning_vars.append((weight, mask, threshold))
            self.pruning_step = self.add_weight("pruning_step", [], "int64", trainable=False)

        def call(self, inputs: Any, training: Any = None, **kwargs: Any) -> Any:
            for weight, mask, _ in self.pruning_vars:
                weight.assign(weight * mask)
            return self.layer.call(inputs, **kwargs)

        def get_config(self) -> dict[str, Any]:
            schedule = {"target_sparsity": 0.5, "begin_step": 0, "end_step": -1, "frequency": 100}
            return {
                **super().get_config(),
                "pruning_schedule": {"class_name": "ConstantSparsity", "config": schedule},
                "block_size": (1, 1),
                "block_pooling_type": "AVG",
            }

        # Of the wrapper, in the order in which Keras 2 saves them to .h5 files.
        trainable_weights = property(lambda self: self.layer.trainable_weights)
        non_trainable_weights = property(
            lambda self: self.layer.non_trainable_weights + self._non_trainable_weights
        )

    PruneLowMagnitude.__module__ = _MODULE
    return PruneLowMagnitude


def _filled(model: Any) -> Any:
    """Give all weights of a model values, and masks that differ from the zeros of the weights."""
    rng = np.random.default_rng(7)
    for variable in model.variables:
        name = variable.name.rsplit("/", 1)[-1]
        if name.startswith("mask"):
            variable.assign(rng.random(variable.shape) > 0.5)
        elif name.startswith(("threshold", "pruning_step")):
            variable.assign(7)
        else:
            variable.assign(rng.uniform(0.2, 0.8, variable.shape) * rng.choice([-1, 1], 1))
        if "variance" in name:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model


def _convolutions(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 3)),
            prune(layers.Conv1D(4, 3, activation="relu")),
            prune(layers.BatchNormalization()),
            layers.ReLU(),
            prune(layers.SeparableConv1D(3, 2)),
            prune(layers.Flatten()),
            prune(layers.Dense(4, use_bias=False)),
            layers.Dense(2),
        ]
    )


def _first(keras: Any, prune: Any) -> Any:
    dense = keras.layers.Dense(4, input_shape=(8, 3), activation="relu")
    return keras.Sequential([prune(dense), keras.layers.Flatten(), prune(keras.layers.Dense(2))])


def _nested(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    parts = [layers.Input((8, 3)), prune(layers.Conv1D(4, 3)), prune(layers.BatchNormalization())]
    inner = keras.Sequential([*parts, prune(layers.Flatten()), prune(layers.Dense(3))], "inner")
    x = keras.Input((8, 3))
    both = prune(layers.Add())([inner(x), prune(layers.Dense(3))(layers.Flatten()(x))])
    return keras.Model(x, [prune(layers.Dense(2))(both), both])


def _shared(keras: Any, prune: Any) -> Any:
    layer = prune(keras.layers.Dense(3))
    inputs = [keras.Input((8, 3), name="a"), keras.Input((8, 3), name="b")]
    return keras.Model(inputs, keras.layers.Subtract()([layer(x) for x in inputs]))


def _frozen(keras: Any, prune: Any) -> Any:
    model = _convolutions(keras, prune)
    model.layers[0].trainable = False
    return model


def _recurrent(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    recurrent = [getattr(layers, name)(4, return_sequences=True) for name in _RECURRENT]
    return keras.Sequential([layers.Input((8, 3)), *map(prune, recurrent), layers.Dense(2)])


def _masked(keras: Any, prune: Any) -> Any:
    # The mask of Masking is that of its output, and the mask of the LSTM ends at its wrapper.
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 3)),
            prune(layers.Masking()),
            prune(layers.LSTM(4, return_sequences=True)),
            layers.GRU(3),
            prune(layers.Dense(2)),
        ]
    )


def _states(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    x = keras.Input((8, 3))
    lstm = prune(layers.LSTM(4, return_sequences=True, return_state=True))
    sequence, hidden, cell = lstm(layers.Masking()(x))
    joined = layers.Concatenate()([layers.GRU(3)(sequence), hidden, cell])
    return keras.Model(x, [layers.Dense(2)(joined), sequence])


def _nested_masks(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    lstm = prune(layers.LSTM(3, return_sequences=True))
    inner = keras.Sequential([layers.Input((8, 3)), layers.Masking(), lstm], "inner")
    x = keras.Input((8, 3))
    return keras.Model(x, layers.GRU(3)(inner(x)))


def _words(keras: Any, prune: Any) -> Any:
    # The wrapper does not ask the Embedding for its mask.
    layers = keras.layers
    embedding = layers.Embedding(9, 4, mask_zero=True)
    return keras.Sequential([layers.Input((6,)), prune(embedding), layers.GRU(3)])


def _pooled(keras: Any, prune: Any) -> Any:
    layers = keras.layers
    embedding = layers.Embedding(9, 4, mask_zero=True)
    pool = prune(layers.GlobalAveragePooling1D())
    return keras.Sequential([layers.Input((6,)), embedding, pool, prune(layers.Dense(2))])


Build = Callable[[Any, Any], Any]
MODELS: dict[str, Build] = {
    "convolutions": _convolutions,
    "first layer": _first,
    "nested": _nested,
    "shared": _shared,
    "frozen": _frozen,
    "recurrent": _recurrent,
    "masked": _masked,
    "states": _states,
    "nested masks": _nested_masks,
    "words": _words,
    "pooled": _pooled,
}
# Two variables of a wrapper have one name, so that Keras cannot save these to .h5 files.
NOT_LISTED = ("recurrent", "masked", "states", "nested masks")


def _samples(model: Any) -> Any:
    if model.input_shape == (None, 6):
        return WORDS
    return [STEPS, STEPS[:, ::-1].copy()] if len(model.inputs) == 2 else STEPS


def _outputs(model: Any, samples: Any) -> list[Any]:
    outputs = model(samples, training=False)
    return [np.asarray(x) for x in (outputs if isinstance(outputs, list | tuple) else [outputs])]


def _require_equal(actual: list[Any], expected: list[Any]) -> None:
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def _saved(build: Build, folder: Path, *suffixes: str) -> tuple[list[Path], Any, list[Any]]:
    """Files of a model with wrappers, samples, and what tf_keras computes after they are saved."""
    import tf_keras

    model = _filled(build(tf_keras, _wrapper()))
    paths = [folder / f"model{suffix}" for suffix in suffixes]
    for path in paths:
        only_weights = path.name.endswith((".weights.h5", "_w.h5"))
        (model.save_weights if only_weights else model.save)(str(path))
    (folder / "model.json").write_text(model.to_json())
    samples = _samples(model)
    return paths, samples, _outputs(model, samples)


@pytest.mark.parametrize(
    "name", only(list(MODELS), "convolutions", "nested", "masked", "words", "states")
)
def test_layers_compute_with_the_product_of_weights_and_masks(name: str, tmp_path: Path) -> None:
    suffixes = [".keras", ".weights.h5"]
    suffixes += [] if name in NOT_LISTED else [".h5", "_w.h5"]
    paths, samples, expected = _saved(MODELS[name], tmp_path, *suffixes)
    for path in paths:
        is_whole = path.name in ("model.keras", "model.h5")
        architecture = None if is_whole else str(tmp_path / "model.json")
        loaded = load_model(audit_file(path), architecture=architecture)
        _require_equal(_outputs(loaded.model, samples), expected)
        assert any(note.startswith("Removed the pruning wrapper") for note in loaded.notes)
        assert not any("prun" in part.name for part in loaded.model.weights)


def test_notes_count_layers_and_name_those_with_masks_of_steps(tmp_path: Path) -> None:
    (path,), _, _ = _saved(_masked, tmp_path, ".keras")
    notes = load_model(audit_file(path)).notes
    assert any("of 3 layers: pruned weights are the stored ones multiplied" in n for n in notes)
    assert any(n.startswith("prune_low_magnitude_lstm") and "since" in n for n in notes)


def test_weights_of_a_program_without_wrappers_are_pruned(tmp_path: Path) -> None:
    (path,), samples, expected = _saved(_convolutions, tmp_path, "_w.h5")
    program = tmp_path / "program.py"
    program.write_text(
        "from tensorflow import keras\nfrom tensorflow.keras.layers import *\n"
        "def build():\n    return keras.Sequential([Input((8, 3)), Conv1D(4, 3, activation='relu'),"
        " BatchNormalization(), ReLU(), SeparableConv1D(3, 2), Flatten(),"
        " Dense(4, use_bias=False), Dense(2)])\n"
    )
    loaded = load_model(audit_file(path), architecture=f"{program}:build")
    _require_equal(_outputs(loaded.model, samples), expected)
    assert any("(PruneLowMagnitude) of 5 layers" in note for note in loaded.notes)


def test_programs_without_wrappers_with_masks_of_steps_get_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    (path,), _, _ = _saved(_words, tmp_path, "_w.h5")
    program = tmp_path / "program.py"
    text = (
        "from tensorflow import keras\nfrom tensorflow.keras.layers import *\n"
        "def build():\n"
        "    return keras.Sequential([Input((6,)), Embedding(9, 4, mask_zero=True), GRU(3)])\n"
    )
    for written, is_noted in ((text, True), (text.replace("True", "False"), False)):
        program.write_text(written)
        notes = load_model(audit_file(path), architecture=f"{program}:build").notes
        assert any("they end at the wrappers" in note for note in notes) is is_noted
    program.write_text("import tensorflow_model_optimization as tfmot\n" + text)
    with pytest.raises(UsageError) as error:
        load_model(audit_file(path), architecture=f"{program}:build")
    assert "are loaded into the model without them" in error.value.hint


OWN = """
from tensorflow import keras
import tensorflow as tf
class Scaled(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
    def build(self, shape):
        self.scale = self.add_weight(shape=(self.units,), name="scale")
        self.inner = self.add_weight(shape=(shape[-1], self.units), name="inner")
        self.outer = self.add_weight(shape=(self.units, 2), name="outer")
    def get_prunable_weights(self):
        return [self.outer, self.inner]
    def call(self, x):
        return tf.matmul(tf.matmul(x, self.inner) * self.scale, self.outer)
    def get_config(self):
        return {**super().get_config(), "units": self.units}
"""


def test_own_layers_have_their_prunable_weights(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(OWN)

    def build(keras: Any, prune: Any) -> Any:
        space: dict[str, Any] = {"__name__": "own"}
        exec(OWN.replace("from tensorflow import keras", "import tf_keras as keras"), space)
        layers = [keras.layers.Input((8, 3)), prune(space["Scaled"](4)), keras.layers.Flatten()]
        return keras.Sequential([*layers, prune(keras.layers.Dense(2))])

    (path,), samples, expected = _saved(build, tmp_path, ".keras")
    loaded = load_model(audit_file(path), custom_objects=script)
    _require_equal(_outputs(loaded.model, samples), expected)
    script.write_text(OWN.replace("get_prunable_weights", "other"))
    with pytest.raises(UnsupportedModelError, match="Scaled does not show to which") as error:
        load_model(audit_file(path), custom_objects=script)
    assert "Define get_prunable_weights" in error.value.hint


@pytest.mark.long
@pytest.mark.compared
def test_wrapped_models_are_compared_with_tf_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,), _, _ = _saved(_masked, tmp_path, ".weights.h5")
    architecture = str(tmp_path / "model.json")
    notes = load_model(audit_file(path), architecture=architecture).notes
    assert not any("not compared" in note for note in notes)
    monkeypatch.setattr(Assignment, "prune", lambda *_: None)
    with pytest.raises(UnsupportedModelError, match=r"tf_keras .* computes different outputs"):
        load_model(audit_file(path), architecture=architecture)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_tf_keras_has_the_wrapper_for_the_comparison(suffix: str, tmp_path: Path) -> None:
    import tf_keras

    (path,), samples, expected = _saved(_nested, tmp_path, suffix)
    objects = {"PruneLowMagnitude": wrapper_class()}
    model = tf_keras.models.load_model(path, custom_objects=objects, compile=False)
    _require_equal(_outputs(model, samples), expected)


def _with_config(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def test_other_wrappers_are_refused_with_the_function_that_removes_them(tmp_path: Path) -> None:
    (path,), _, _ = _saved(_first, tmp_path, ".h5")

    def cluster(config: dict[str, Any]) -> None:
        for item in config["config"]["layers"]:
            if item["class_name"] == "PruneLowMagnitude":
                item["class_name"] = "ClusterWeights"

    _with_config(path, cluster)
    with pytest.raises(UnsupportedModelError, match="ClusterWeights") as error:
        load_model(audit_file(path))
    assert "strip_clustering" in error.value.hint


def test_masks_of_steps_of_older_packages_are_refused(tmp_path: Path) -> None:
    (path,), samples, expected = _saved(_pooled, tmp_path, ".h5")
    _require_equal(_outputs(load_model(audit_file(path)).model, samples), expected)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = "2.4.0"
    with pytest.raises(UnsupportedModelError, match="may get a mask of steps"):
        load_model(audit_file(path))


def _datasets(file: Any, part: str) -> Iterator[str]:
    found: list[str] = []
    file.visititems(lambda path, item: found.append(path) if hasattr(item, "shape") else None)
    return (path for path in found if part in path)


def test_names_of_other_versions_of_the_package(tmp_path: Path) -> None:
    # Some add the name of the weight to that of its mask.
    (path,), samples, expected = _saved(_first, tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        for group in file["model_weights"].values():
            names = list(group.attrs.get("weight_names", ()))
            for kind in ("mask", "threshold"):
                for index, name in enumerate(names):
                    if name.endswith(f"/{kind}:0"):
                        prefix = name.removesuffix(f"/{kind}:0")
                        names[index] = f"{prefix}/dense/kernel:0_{kind}:0"
                        group[names[index]] = group[name][()]
            if names:
                group.attrs["weight_names"] = names
    _require_equal(_outputs(load_model(audit_file(path)).model, samples), expected)


def test_masks_of_another_shape_are_an_error(tmp_path: Path) -> None:
    (path,), _, _ = _saved(_first, tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        (mask, *_) = _datasets(file, "/mask")
        values = file[mask][()]
        del file[mask]
        file[mask] = values[:-1]
    with pytest.raises(UnsupportedModelError, match="The masks in the pruning wrapper of layer"):
        load_model(audit_file(path))


def test_masks_without_a_layer_are_an_error(tmp_path: Path) -> None:
    (path,), _, _ = _saved(_nested, tmp_path, ".h5")
    with h5py.File(path, "r+") as file:
        group = file["model_weights/inner"]
        names = list(group.attrs["weight_names"])
        index = next(k for k, name in enumerate(names) if name.endswith("/mask:0"))
        old, names[index] = names[index], "prune_low_magnitude_other/mask:0"
        group[names[index]] = group[old][()]
        group.attrs["weight_names"] = names
    with pytest.raises(UnsupportedModelError, match="'prune_low_magnitude_other', and no layers"):
        load_model(audit_file(path))


def test_masks_in_lists() -> None:
    arrays = [(name, np.zeros(k)) for k, name in enumerate(
        ("d/kernel:0", "prune_low_magnitude_d/mask:0", "prune_low_magnitude_d/threshold:0",
         "m/prune_low_magnitude_e/d/kernel:0_mask_1:0", "prune_low_magnitude_e/pruning_step:0",
         "prune_low_magnitude_e/kernel:0", "attention/mask:0")
    )]  # fmt: skip
    kept = [name for name, _ in without_added(arrays)]
    assert kept == ["d/kernel:0", "prune_low_magnitude_e/kernel:0", "attention/mask:0"]
    masks = {name: [len(x) for x in found] for name, found in listed_masks(arrays).items()}
    assert masks == {"prune_low_magnitude_d": [1], "prune_low_magnitude_e": [3]}


@pytest.mark.parametrize(
    ("shapes", "masks"),
    [
        ([()], []),
        ([(2, 3), (), ()], [0]),
        ([(2, 3), (2, 3), (), ()], [1]),
        ([(4, 8), (2, 8), (4, 8), (), (2, 8), (), ()], [2, 4]),
        ([(4, 8), (), (2, 8), (), ()], [0, 2]),
    ],
)
def test_masks_in_groups(shapes: list[tuple[int, ...]], masks: list[int], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for number, shape in enumerate(shapes):
            file[str(number)] = np.full(shape, number)
        assert [int(np.ravel(mask)[0]) for mask in numbered_masks(file)] == masks


def test_unknown_groups_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        for number, shape in enumerate([(2, 3), (3,), (2, 3), (), ()]):
            file[str(number)] = np.zeros(shape)
        with pytest.raises(UnsupportedModelError, match="not in a known order"):
            numbered_masks(file)


def test_masks_that_the_kernel_does_not_show_are_applied() -> None:
    import keras

    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    layer.kernel.assign([[1.0, 2.0], [0.0, 4.0]])
    apply_masks(layer, [np.array([[1.0, 0.0], [0.0, 1.0]])])
    assert np.asarray(layer.kernel).tolist() == [[1.0, 0.0], [0.0, 4.0]]


def test_further_results_of_a_call_are_not_redirected() -> None:
    outputs = {("lstm", 0): ("copy", 2)}
    assert redirected([tensor("lstm", 0, 0)], outputs) == [tensor("copy", 2, 0)]
    assert redirected(tensor("lstm", 0, 1), outputs) == tensor("lstm", 0, 1)
    endpoints = [["lstm", 0, 0], ["lstm", 0, 2]]
    assert redirected_endpoints(endpoints, outputs) == [["copy", 2, 0], ["lstm", 0, 2]]


def test_wrappers_in_archives_are_those_of_the_package(tmp_path: Path) -> None:
    # The class that stands for that of the package saves what the package does.
    (path,), _, _ = _saved(_first, tmp_path, ".keras")
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    item = config["config"]["layers"][1]
    assert (item["module"], item["registered_name"]) == (_MODULE, "PruneLowMagnitude")
    assert (
        item["config"]["name"] == f"prune_low_magnitude_{item['config']['layer']['config']['name']}"
    )
