"""Arguments that layers of Keras 3 have, in programs: none is taken for one of Keras 1 or 2."""

from __future__ import annotations

import inspect
from pathlib import Path

import keras
import numpy as np
import pytest
from long_parameters import only

from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.legacy import legacy_arguments
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.load import load_model

# Dropped if they are None, which is their default, or have no effect beside a weights file.
DROPPED = {
    *((kind, f"{name}_regularizer") for kind in ("BatchNormalization", "GroupNormalization",
      "LayerNormalization") for name in ("beta", "gamma")),
    ("Bidirectional", "weights"),
}  # fmt: skip

PROGRAM = """
import keras
def first():
    tokens = keras.Input((8,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(input_dim=20, output_dim=6, name="e")
    x = keras.layers.LSTM(6, return_sequences=True)(embedding(tokens))
    return keras.Model(tokens, embedding(x, reverse=True))
def untied():
    tokens = keras.Input((8,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(
        input_dim=20, output_dim=6, tie_weights=False, reverse_dtype="float32", name="e"
    )
    return keras.Model(tokens, embedding(embedding(tokens), reverse=True))
def in_order():
    return keras.Sequential(
        [keras.layers.ReversibleEmbedding(20, output_dim=6), keras.layers.Dense(3)]
    )
def plain():
    return keras.Sequential([
        keras.Input((8,), dtype="int32"), keras.layers.Embedding(input_dim=20, output_dim=6),
        keras.layers.Dense(3)])
"""


def test_arguments_of_all_layers_are_kept() -> None:
    layers = {
        name: value
        for name, value in vars(keras.layers).items()
        if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }
    assert len(layers) > 130
    for class_name, layer in layers.items():
        parameters = list(inspect.signature(layer.__init__).parameters.values())[1:]
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        for parameter in named:
            value = None if parameter.default is parameter.empty else parameter.default
            given = {parameter.name: value}
            _, found = legacy_arguments.current(class_name, (), given, Program((3,)), given)
            if (class_name, parameter.name) not in DROPPED:
                assert found.get(parameter.name, "dropped") == value, (class_name, parameter.name)


@pytest.mark.parametrize("name", only(["first", "untied", "in_order", "plain"], "first"))
def test_embeddings_of_programs(name: str, tmp_path: Path) -> None:
    path = tmp_path / "prog.py"
    path.write_text(PROGRAM)
    names: dict[str, object] = {"__name__": "prog"}
    exec(PROGRAM, names)
    model = names[name]()  # type: ignore[operator]
    x = np.random.default_rng(0).integers(0, 20, (4, 8)).astype("int32")
    np.savez(tmp_path / "s.npz", x=x)
    expected = np.asarray(model(x))
    model.save_weights(tmp_path / "m.weights.h5")
    samples = tmp_path / "s.npz" if name == "in_order" else None
    loaded = load_model(
        audit_file(tmp_path / "m.weights.h5"), architecture=f"{path}:{name}", samples=samples
    )
    np.testing.assert_allclose(np.asarray(loaded.model(x)), expected, atol=1e-6)
