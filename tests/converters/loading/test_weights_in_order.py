"""Weights of a file whose layers have other names than those of the architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras
from long_parameters import only

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.load import load_model


def _towers(K: Any, name: Callable[[str], str]) -> Any:
    """Two branches with weights of the same shapes."""
    a, b = K.Input((4,), name=name("a")), K.Input((4,), name=name("b"))
    x = K.layers.Dense(4, activation="tanh", name=name("left"))(a)
    y = K.layers.Dense(4, activation="relu", name=name("right"))(b)
    x, y = (K.layers.Dense(4, name=name(k))(value) for k, value in (("left2", x), ("right2", y)))
    z = K.layers.Dense(4, name=name("skip"))(a)
    joined = K.layers.Concatenate(name=name("joined"))([y, x, z])
    return K.Model([a, b], K.layers.Dense(2, name=name("out"))(joined))


def _nested(K: Any, name: Callable[[str], str]) -> Any:
    """Moving averages inside a nested model, and two directions."""
    inputs = K.Input((5, 4), name=name("i"))
    inner = K.Sequential(
        [
            K.Input((5, 4)),
            K.layers.Dense(4, name=name("first")),
            K.layers.BatchNormalization(name=name("norm")),
            K.layers.Dense(4, name=name("last")),
        ],
        name=name("inner"),
    )
    both = K.layers.Bidirectional(K.layers.LSTM(3, name=name("lstm")), name=name("both"))
    return K.Model(inputs, K.layers.Dense(3, name=name("out"))(both(inner(inputs))))


def _transformer(K: Any, name: Callable[[str], str]) -> Any:
    inputs = K.Input((5,), name=name("i"))
    words = K.layers.Embedding(9, 4, name=name("words"))(inputs)
    heads = K.layers.MultiHeadAttention(2, 3, name=name("heads"))(words, words)
    h = K.layers.Add(name=name("sum"))([words, heads])
    h = K.layers.LayerNormalization(name=name("norm"))(h)
    h = K.layers.GlobalAveragePooling1D(name=name("mean"))(h)
    return K.Model(inputs, K.layers.Dense(3, name=name("out"))(h))


def _convolutions(K: Any, name: Callable[[str], str]) -> Any:
    inputs = K.Input((8, 8, 3), name=name("i"))
    h = K.layers.SeparableConv2D(4, 3, name=name("separable"))(inputs)
    h = K.layers.BatchNormalization(name=name("norm"))(h)
    h = K.layers.DepthwiseConv2D(3, name=name("depthwise"))(h)
    h = K.layers.PReLU(name=name("slope"))(h)
    h = K.layers.Flatten(name=name("flat"))(h)
    return K.Model(inputs, K.layers.Dense(3, name=name("out"))(h))


def _equal_layers(K: Any, name: Callable[[str], str]) -> Any:
    layers = [K.layers.Dense(4, activation="tanh", name=name(f"dense{k}")) for k in range(4)]
    return K.Sequential([K.Input((4,), name=name("i")), *layers])


MODELS = {
    "towers": _towers,
    "nested": _nested,
    "transformer": _transformer,
    "convolutions": _convolutions,
    "equal layers": _equal_layers,
}
SLOW = ("nested", "convolutions")
CASES = [
    *((kind, "keras 3") for kind in MODELS),
    ("nested", "keras 2"),
    ("towers", "keras 2"),
    ("transformer", "function"),
    ("convolutions", "function"),
]


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [pytest.param(*case, marks=[pytest.mark.long] if case[0] in SLOW else []) for case in CASES],
)
def test_weights_are_assigned_in_order(kind: str, architecture: str, tmp_path: Path) -> None:
    """The file is of Keras 2, the architecture JSON of Keras 2 or 3, or a function."""
    build, generator = MODELS[kind], np.random.default_rng(9)
    model = build(tf_keras, lambda name: f"old_{name}")
    model.set_weights([generator.uniform(0, 0.8, w.shape) for w in model.get_weights()])
    path = tmp_path / "weights.h5"
    model.save_weights(path)
    if architecture == "function":
        (tmp_path / "build.py").write_text(
            f"import keras\n\nTEXT = {_new(kind).to_json()!r}\n\n"
            "def build():\n    return keras.models.model_from_json(TEXT)\n"
        )
        option = f"{tmp_path / 'build.py'}:build"
    else:
        option = str(tmp_path / "architecture.json")
        library = keras if architecture == "keras 3" else tf_keras
        Path(option).write_text(_new(kind, library).to_json())
    loaded = load_model(audit_file(path), architecture=option)
    if kind == "transformer":
        inputs = [generator.integers(0, 9, (6, 5))]
    else:
        inputs = [generator.normal(size=(6, *t.shape[1:])).astype("float32") for t in model.inputs]
    given = inputs if len(inputs) > 1 else inputs[0]
    np.testing.assert_allclose(loaded.model(given), model(given), rtol=1e-4, atol=1e-5)
    [note] = [note for note in loaded.notes if "assigned in order" in note]
    assert "out <- old_out" in note or "more" in note or "new_dense3 <- old_dense3" in note


def _new(kind: str, library: Any = keras) -> Any:
    return MODELS[kind](library, lambda name: f"new_{name}")


def _numbered(first: int) -> Callable[[str], str]:
    """Names that Keras generates if other models were built before: dense_1, dense_2, ..."""
    count = iter(range(first, first + 9))
    return lambda name: f"dense_{next(count)}" if name.startswith("dense") else name


@pytest.mark.parametrize("first", [1, 2, 5])
def test_generated_names_that_are_shifted(first: int, tmp_path: Path) -> None:
    """Some names are in both, for other layers: dense_2 and dense_3 for dense_1 and dense_2."""
    model = _equal_layers(tf_keras, _numbered(first))
    path = tmp_path / "weights.h5"
    model.save_weights(path)
    (tmp_path / "model.json").write_text(_equal_layers(keras, _numbered(1)).to_json())
    loaded = load_model(audit_file(path), architecture=str(tmp_path / "model.json"))
    x = np.random.default_rng(2).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
    assert any("assigned in order" in note for note in loaded.notes) == (first > 1)


def test_only_names_that_differ_are_listed(tmp_path: Path) -> None:
    """As in a notebook in which a model was built twice before its weights were saved."""

    def build(library: Any, first: int) -> Any:
        named = [library.layers.Dense(4, name=f"named{k}") for k in range(7)]
        names = _numbered(first)
        others = [library.layers.Dense(4, name=names("dense")) for _ in range(2)]
        return library.Sequential([library.Input((4,)), *named, *others])

    build(tf_keras, 3).save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(build(keras, 1).to_json())
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json")
    )
    [note] = [note for note in loaded.notes if "assigned in order" in note]
    assert "in order: dense_1 <- dense_3; dense_2 <- dense_4. 7 other names are the same." in note


def _two_of_each(library: Any, names: Callable[[str], str]) -> Any:
    """Layers of three classes, one of them in a nested model, whose arrays have equal shapes."""
    layers = library.layers
    inner = library.Sequential(
        [library.Input((5, 4))]
        + [layers.LSTM(4, return_sequences=True, name=names("lstm")) for _ in range(2)],
        name=names("inner"),
    )
    x = inputs = library.Input((5, 4), name="x")
    for _ in range(2):
        x = layers.Dense(4, activation="tanh", name=names("dense"))(x)
        x = layers.LayerNormalization(name=names("norm"))(x)
    return library.Model(inputs, layers.Dense(4, name=names("dense"))(inner(x)))


def _counted(first: int, step: int = 1) -> Callable[[str], str]:
    counts: dict[str, int] = {}

    def name(kind: str) -> str:
        counts[kind] = counts.get(kind, first - step) + step
        return f"{kind}_{counts[kind]}" if counts[kind] else kind

    return name


@pytest.mark.parametrize("library", only([keras, tf_keras], keras), ids=["keras", "tf_keras"])
@pytest.mark.parametrize(
    ("first", "step"),
    [
        (0, 1),
        pytest.param(2, 1, marks=pytest.mark.long),
        (3, -1),
        pytest.param(7, 1, marks=pytest.mark.long),
    ],
)
def test_names_in_files_of_the_current_keras(
    first: int, step: int, library: Any, tmp_path: Path
) -> None:
    """Some names are in both, for other layers; Keras assigns the weights in order."""
    generator = np.random.default_rng(4)
    model = _two_of_each(keras, _counted(1))
    model.set_weights([generator.normal(0, 0.5, w.shape) for w in model.get_weights()])
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    other = _two_of_each(library, _counted(first, step))
    (tmp_path / "model.json").write_text(other.to_json())
    x = generator.normal(size=(5, 5, 4)).astype("float32")
    if library is keras:
        other.load_weights(path)
        np.testing.assert_array_equal(other(x), model(x))
    loaded = load_model(audit_file(path), architecture=str(tmp_path / "model.json"))
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", only([(0, 1, 2, 3), (2, 3), (0,), ()], (2, 3)))
@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_layers_that_were_not_trainable(
    library: Any, frozen: tuple[int, ...], tmp_path: Path
) -> None:
    """The file lists trainable weights of a nested model first, the architecture trains all."""

    def build(K: Any, name: Callable[[str], str], frozen: tuple[int, ...]) -> Any:
        inputs = inner_inputs = K.Input((6, 6, 2))
        inner_layers = [
            K.layers.Conv2D(2, 1, name=name("first")),
            K.layers.BatchNormalization(name=name("norm")),
            K.layers.Conv2D(3, 2, name=name("second")),
            K.layers.BatchNormalization(name=name("last")),
        ]
        x = inner_inputs
        for number, layer in enumerate(inner_layers):
            layer.trainable = number not in frozen
            x = layer(x)
        inner = K.Model(inner_inputs, x, name=name("inner"))
        outputs = K.layers.Dense(2, name=name("out"))(inner(inputs))
        return K.Model(inputs, outputs)

    generator = np.random.default_rng(9)
    model = build(tf_keras, lambda name: f"old_{name}", frozen)
    model.set_weights([generator.uniform(0.1, 0.8, w.shape) for w in model.get_weights()])
    path = tmp_path / "weights.h5"
    model.save_weights(path)
    other = build(library, lambda name: f"new_{name}", ())
    (tmp_path / "model.json").write_text(other.to_json())
    x = generator.normal(size=(3, 6, 6, 2)).astype("float32")
    if frozen == (0,):
        # The frozen layer is stored last, and its name does not show its place.
        with pytest.raises(UnsupportedModelError, match="the file contains 4") as caught:
            load_model(audit_file(path), architecture=str(tmp_path / "model.json"))
        assert "--architecture" in str(caught.value.hint)
        return
    loaded = load_model(audit_file(path), architecture=str(tmp_path / "model.json"))
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


# By layers, in which "N" is a BatchNormalization and "D" a Dense layer, and the frozen ones.
@pytest.mark.parametrize(
    ("layers", "frozen", "known"),
    [
        ("DNDN", (0, 1), False),
        ("DNDN", (2,), False),
        ("NDD", (1,), False),
        ("NDD", (2,), False),
        ("DNDN", (2, 3), True),
        ("DNDN", (0, 1, 2, 3), True),
    ],
)
def test_frozen_layers_of_equal_shapes(
    layers: str, frozen: tuple[int, ...], known: bool, tmp_path: Path
) -> None:
    """They are stored behind the others, so that their place can be unknown."""

    def build(name: Callable[[str], str], frozen: tuple[int, ...]) -> Any:
        inner = tf_keras.Sequential([tf_keras.Input((3,))], name=name("inner"))
        for number, kind in enumerate(layers):
            options = {"name": name(f"part{number}"), "trainable": number not in frozen}
            norm, dense = tf_keras.layers.BatchNormalization, tf_keras.layers.Dense
            inner.add(norm(**options) if kind == "N" else dense(3, **options))
        inputs = tf_keras.Input((3,))
        return tf_keras.Model(inputs, tf_keras.layers.Dense(2, name=name("out"))(inner(inputs)))

    generator = np.random.default_rng(9)
    model = build(lambda name: f"old_{name}", frozen)
    model.set_weights([generator.uniform(0.1, 0.8, w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(build(lambda name: f"new_{name}", ()).to_json())
    file, architecture = audit_file(tmp_path / "weights.h5"), str(tmp_path / "model.json")
    if not known:
        with pytest.raises(UnsupportedModelError, match="frozen when the file was saved") as caught:
            load_model(file, architecture=architecture)
        assert "--architecture" in str(caught.value.hint)
        return
    x = generator.normal(size=(4, 3)).astype("float32")
    loaded = load_model(file, architecture=architecture)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


def _chain(library: Any, names: str, units: tuple[int, ...], name: str = "chain") -> Any:
    layers = [
        library.layers.Dense(count, activation="tanh", name=name)
        for name, count in zip(names.split(), units, strict=True)
    ]
    return library.Sequential([library.Input((4,)), *layers], name=name)


# The names of the architecture, and whether the weights are those of the layers of these names;
# None if both are possible.
@pytest.mark.parametrize(
    ("names", "units", "by_name", "architecture"),
    [
        ("dense_1 dense last", (4, 4, 2), None, "json"),
        ("dense_1 dense last", (4, 4, 2), None, "function"),
        ("decoder encoder last", (4, 4, 2), None, "json"),
        ("dense_2 dense dense_1", (4, 4, 4), None, "json"),
        ("dense_1 dense last", (3, 4, 2), False, "json"),
        ("dense_1 dense last", (3, 4, 2), False, "function"),
        ("dense last dense_1", (3, 4, 2), False, "json"),
        ("dense dense_1 last", (4, 4, 2), True, "json"),
    ],
)
def test_names_in_another_order(
    names: str, units: tuple[int, ...], by_name: bool | None, architecture: str, tmp_path: Path
) -> None:
    known = ["dense", "encoder", "dense_1", "decoder", "dense_2", "last"]
    stored = sorted(names.split(), key=known.index)
    model = _chain(tf_keras, " ".join(stored), units)
    generator = np.random.default_rng(4)
    model.set_weights([generator.normal(0, 0.5, w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "weights.h5")
    text = _chain(keras, names, units).to_json()
    option = str(tmp_path / "model.json")
    if architecture == "function":
        option = f"{tmp_path / 'build.py'}:build"
        (tmp_path / "build.py").write_text(
            "import keras\n\nclass Same(keras.layers.Layer):\n    def call(self, x):\n"
            "        return x\n\ndef build():\n"
            f"    model = keras.models.model_from_json({text!r})\n"
            "    model.add(Same())\n    return model\n"
        )
    else:
        (tmp_path / "model.json").write_text(text)
    file = audit_file(tmp_path / "weights.h5")
    if by_name is None:
        with pytest.raises(UnsupportedModelError, match="in another order: the file has") as error:
            load_model(file, architecture=option)
        assert "give the layers of the architecture other names" in str(error.value.hint)
        return
    x = generator.normal(size=(5, 4)).astype("float32")
    loaded = load_model(file, architecture=option)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)
    assert any("assigned in order" in note for note in loaded.notes) == (not by_name)


@pytest.mark.parametrize(
    ("names", "units", "fits"),
    [
        ("dense_6 dense_5 last", (4, 4, 2), False),
        ("dense_5 dense_6 last", (4, 4, 2), True),
        ("dense_6 dense_5 last", (3, 4, 2), True),
        ("dense_6 other last", (4, 4, 2), True),
    ],
)
def test_numbers_in_another_order(
    names: str, units: tuple[int, ...], fits: bool, tmp_path: Path
) -> None:
    """Keras numbers layers as they are created, which the same program does in the same order."""
    model = _chain(tf_keras, "dense dense_1 last", units)
    generator = np.random.default_rng(4)
    model.set_weights([generator.normal(0, 0.5, w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(_chain(tf_keras, names, units).to_json())
    file, option = audit_file(tmp_path / "weights.h5"), str(tmp_path / "model.json")
    if not fits:
        message = "'dense' in the file are those of 'dense_6' by the order"
        with pytest.raises(UnsupportedModelError, match=message) as error:
            load_model(file, architecture=option)
        assert "Give the layers of the architecture the names in the file" in str(error.value.hint)
        return
    x = generator.normal(size=(5, 4)).astype("float32")
    loaded = load_model(file, architecture=option)
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "frozen", "noted"),
    [
        ("dense dense_1", False, False),
        ("dense_1 dense", False, True),
        ("dense dense_1", True, True),
    ],
)
def test_names_inside_a_nested_model_in_another_order(
    names: str, frozen: bool, noted: bool, tmp_path: Path
) -> None:
    """Frozen layers are stored behind the others, so that the order does not show what is meant."""

    def build(library: Any, names: str, frozen: bool) -> Any:
        inner = _chain(library, names, (4, 4), name="inner")
        inner.layers[0].trainable = not frozen
        x = library.Input((4,))
        return library.Model(x, library.layers.Dense(2, name="out")(inner(x)))

    model = build(tf_keras, "dense dense_1", frozen)
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(build(keras, names, False).to_json())
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json")
    )
    assert any("inner: the file has the weights" in note for note in loaded.notes) == noted
    inner = loaded.model.get_layer("inner")
    for name in ("dense", "dense_1"):
        kernel = model.get_layer("inner").get_layer(name).kernel
        np.testing.assert_array_equal(inner.get_layer(name).kernel, kernel)


def _shifted(library: Any, kind: str, first: int) -> Any:
    """Layers of equal shapes in a nested model, numbered from ``first``: dense, dense_1, ..."""
    layers, counts = library.layers, {"dense": first, "norm": first}

    def named(name: str) -> str:
        counts[name] += 1
        return f"{name}_{counts[name] - 1}" if counts[name] > 1 else name

    def dense(x: Any) -> Any:
        x = layers.Dense(4, activation="tanh", name=named("dense"))(x)
        if kind == "moving averages":
            x = layers.BatchNormalization(name=named("norm"))(x)
        return x

    x = library.Input((4,))
    inner = library.Model(x, dense(dense(dense(x))), name="inner")
    if kind == "deeper":
        x = library.Input((4,))
        inner = library.Model(x, dense(inner(x)), name="outer")
    if kind == "steps":
        x = library.Input((3, 4))
        y = layers.TimeDistributed(inner, name="steps")(x)
        return library.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    x = library.Input((4,))
    return library.Model(x, layers.Dense(2, name="out")(inner(x)))


SHIFTED = [
    (kind, first)
    for kind in ("dense", "moving averages", "deeper", "steps")
    for first in (0, 1, 2, 10)
]


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1)], ids=str)
@pytest.mark.parametrize("first", only([0, 1, 5], 1))
def test_shifted_names_of_layers_that_were_frozen(
    first: int, frozen: tuple[int, ...], tmp_path: Path
) -> None:
    """The numbers in the names tell the layers, whose weights are behind the others in the file."""
    model = _shifted(tf_keras, "dense", first)
    for place in frozen:
        model.get_layer("inner").layers[1 + place].trainable = False
    generator = np.random.default_rng(7)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(_shifted(keras, "dense", 0).to_json())
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json")
    )
    x = generator.normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)
    noted = any("as if some of the layers had been frozen" in note for note in loaded.notes)
    assert noted == (frozen != (2,))


@pytest.mark.parametrize(
    "case", only(SHIFTED, ("dense", 1), ("moving averages", 2), ("steps", 1)), ids=str
)
def test_names_inside_a_nested_model_that_are_shifted(
    case: tuple[str, int], tmp_path: Path
) -> None:
    """The file has dense_1, dense_2 and dense_3, the architecture dense, dense_1 and dense_2.

    ``dense_3`` is not a weight of ``dense``.
    """
    kind, first = case
    model, generator = _shifted(tf_keras, kind, first), np.random.default_rng(6)
    model.set_weights([generator.uniform(0.2, 1, w.shape) for w in model.get_weights()])
    model.save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(_shifted(keras, kind, 0).to_json())
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json")
    )
    x = generator.normal(size=(5, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_weights_of_layers_in_another_order_of_other_shapes(tmp_path: Path) -> None:
    """The architecture has the layers in another order; only their names fit the shapes."""
    inputs = {K: [K.Input((4,)), K.Input((3,))] for K in (keras, tf_keras)}
    models = {}
    for K, names in ((tf_keras, ("a", "b")), (keras, ("b", "a"))):
        tensors = dict(zip(("a", "b"), inputs[K], strict=True))
        parts = [K.layers.Dense(2, name=name)(tensors[name]) for name in names]
        models[K] = K.Model(inputs[K], K.layers.Concatenate()(sorted(parts, key=lambda t: t.name)))
    order = [[layer.name for layer in model.layers if layer.weights] for model in models.values()]
    models[tf_keras].save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(models[keras].to_json())
    loaded = load_model(
        audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json")
    )
    for name in "ab":
        kernel = models[tf_keras].get_layer(name).kernel
        np.testing.assert_array_equal(loaded.model.get_layer(name).kernel, kernel)
    assert sorted(order[0]) == sorted(order[1])


def test_an_architecture_with_other_layers(tmp_path: Path) -> None:
    _equal_layers(tf_keras, lambda name: f"old_{name}").save_weights(tmp_path / "weights.h5")
    (tmp_path / "model.json").write_text(_towers(keras, lambda name: name).to_json())
    with pytest.raises(UnsupportedModelError, match="that its architecture lacks") as caught:
        load_model(audit_file(tmp_path / "weights.h5"), architecture=str(tmp_path / "model.json"))
    assert "Check that --architecture builds the layers" in str(caught.value.hint)


@pytest.mark.parametrize("kind", only(["Dense", "Conv1D", "EinsumDense", "Embedding"], "Conv1D"))
def test_weights_of_the_current_keras_with_other_shapes(kind: str, tmp_path: Path) -> None:
    """These layers load their weights themselves, and fail in other ways."""

    def build(size: int) -> Any:
        last = {
            "Dense": lambda: keras.layers.Dense(size),
            "Conv1D": lambda: keras.layers.Conv1D(size, 2),
            "EinsumDense": lambda: keras.layers.EinsumDense("abc,cd->abd", (None, size)),
            "Embedding": lambda: keras.layers.Embedding(size, 2),
        }[kind]()
        shape = (5,) if kind == "Embedding" else (5, 3)
        return keras.Sequential([keras.Input(shape), last])

    build(3).save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(build(4).to_json())
    with pytest.raises(UnsupportedModelError, match="the file contains") as error:
        load_model(audit_file(tmp_path / "m.weights.h5"), architecture=str(tmp_path / "m.json"))
    assert "Check that --architecture builds the layers" in str(error.value.hint)


@pytest.mark.parametrize("kind", ["index", "data", "folder"])
def test_checkpoints_of_tensorflow(kind: str, tmp_path: Path) -> None:
    """They contain weights by the attributes of a program's objects."""
    _equal_layers(tf_keras, lambda name: name).save_weights(tmp_path / "run" / "cp.ckpt")
    paths = {
        "index": tmp_path / "run" / "cp.ckpt.index",
        "data": tmp_path / "run" / "cp.ckpt.data-00000-of-00001",
        "folder": tmp_path / "run",
    }
    with pytest.raises(UnsupportedModelError, match="TensorFlow checkpoint") as caught:
        audit_file(paths[kind])
    assert "cp.ckpt'); model.save(" in str(caught.value.hint)


def _images(K: Any, units: int, *, name: str | None = None) -> Any:
    return K.Sequential(
        [
            K.layers.Input((32, 32, 1)),
            K.layers.Conv2D(16, 3),
            K.layers.Flatten(),
            K.layers.Dense(units, name=name),
            K.layers.Dense(1),
        ]
    )


@pytest.mark.parametrize("name", only(["named", None], None))
@pytest.mark.parametrize("units", [12, 512, 10**7])
@pytest.mark.parametrize("kind", only(["h5", "weights.h5"], "h5"))
def test_a_larger_architecture_is_no_damaged_file(
    kind: str, units: int, name: str | None, tmp_path: Path
) -> None:
    """The architecture is not part of the file. None of its weights is allocated."""
    K = tf_keras if kind == "h5" else keras
    _images(K, 8, name=name).save_weights(tmp_path / f"m.{kind}")
    small = _images(K, 12, name=name)
    (tmp_path / "m.json").write_text(small.to_json().replace('"units": 12', f'"units": {units}'))
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / f"m.{kind}"), architecture=str(tmp_path / "m.json"))
    assert f"Layer {small.layers[2].name!r} has weights of " in error.value.message
    assert f"(14400, {units})" in error.value.message
    assert "(14400, 8)" in error.value.message
    assert "Check that --architecture builds the layers" in str(error.value.hint)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("units", only([4_000, 1_000_000], 4_000))
def test_a_larger_recurrent_architecture(units: int, tmp_path: Path) -> None:
    def build(size: int) -> Any:
        layer = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(size))
        return tf_keras.Sequential([tf_keras.layers.Input((5, 3)), layer])

    build(4).save_weights(tmp_path / "m.h5")
    larger = build(5).to_json().replace('"units": 5', f'"units": {units}')
    (tmp_path / "m.json").write_text(larger)
    with pytest.raises(UnsupportedModelError, match=r"\(3, 16\)") as error:
        load_model(audit_file(tmp_path / "m.h5"), architecture=str(tmp_path / "m.json"))
    assert f"(3, {4 * units})" in error.value.message
    assert "Check that --architecture builds the layers" in str(error.value.hint)


@pytest.mark.long
def test_a_larger_architecture_of_a_program(tmp_path: Path) -> None:
    _images(keras, 8).save_weights(tmp_path / "m.weights.h5")
    program = tmp_path / "m.py"
    program.write_text(
        "import keras\nfrom keras import layers\ndef build():\n    return keras.Sequential(["
        "layers.Input((32, 32, 1)), layers.Conv2D(16, 3), layers.Flatten(), layers.Dense(512), "
        "layers.Dense(1)])\n"
    )
    with pytest.raises(UnsupportedModelError) as error:
        load_model(audit_file(tmp_path / "m.weights.h5"), architecture=f"{program}:build")
    assert "Check that --architecture builds the layers" in str(error.value.hint)


def test_a_larger_architecture_of_other_layers(tmp_path: Path) -> None:
    """No array in the file has the name of the weight."""
    _images(tf_keras, 8).save_weights(tmp_path / "m.h5")
    K = tf_keras.layers
    model = tf_keras.Sequential([K.Input((5,), dtype="int32"), K.Embedding(9, 2, name="words")])
    text = model.to_json().replace('"input_dim": 9', '"input_dim": 4000000')
    (tmp_path / "m.json").write_text(text)
    message = (
        "Layer 'words' has weights of shape (4000000, 2), with which the model has more values "
        "than the 115377 in the file."
    )
    with pytest.raises(UnsupportedModelError, match=re.escape(message)) as error:
        load_model(audit_file(tmp_path / "m.h5"), architecture=str(tmp_path / "m.json"))
    assert "Check that --architecture builds the layers" in str(error.value.hint)
