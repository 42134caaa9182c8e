"""Texts of errors of Keras keep their reasons, without escape codes for colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edgeattn.errors import EdgeattnError
from edgeattn_converters.loading.audit import audit_file
from edgeattn_converters.loading.error_text import (
    beginning,
    of_user_code,
    reason,
    shortened,
)
from edgeattn_converters.loading.load import load_model

# As Keras 3.15 writes them.
CALL = (
    "Exception encountered when calling Smoother.call().\n\n\x1b[1mCould not automatically infer "
    "the output shape of smoother (of type Smoother). Either the `Smoother.call()` method is "
    "incorrect, or you need to implement the `Smoother.compute_output_spec() / "
    "compute_output_shape()` method. Error encountered:\n\n{}\x1b[0m\n\nArguments received by "
    "Smoother.call():\n  • args=('<KerasTensor shape=(None, 9, 3)>',)\n  • kwargs={{}}"
)
STORED = (
    "<class 'Own'> could not be deserialized properly. config={'a': 1}.\n\nException encountered: "
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL.format("property 'kernel' of 'Conv1D' object has no setter"),
         "Smoother.call: property 'kernel' of 'Conv1D' object has no setter"),
        (STORED + "wrong units", "wrong units"),
        ("Exception encountered when calling Own.call().\n\n\x1b[1mno\nsteps\x1b[0m",
         "Own.call: no steps"),
        ("plain \x1b[31mtext", "plain text"),
    ],
)  # fmt: skip
def test_reason(text: str, expected: str) -> None:
    assert reason(ValueError(text)) == expected
    assert reason(KeyError(text)) == expected


def test_the_end_of_a_long_text_is_kept() -> None:
    text = "begin " + "word " * 200 + "the reason"
    short = shortened(text, 60)
    assert len(short) <= 60
    assert short.startswith("begin word")
    assert short.endswith("word the reason")


def test_a_call_that_fails(tmp_path: Path) -> None:
    program = """
import keras

class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        if x.shape[1] != 7:
            raise ValueError("7 steps are needed")
        return self.dense(x)
"""
    names: dict[str, type] = {"__name__": "own"}
    exec(program, names)
    model = names["Net"]()
    model(np.zeros((1, 7, 3), "float32"))
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "own.py").write_text(program)
    np.savez(tmp_path / "samples.npz", x=np.zeros((4, 5, 3), "float32"))
    with pytest.raises(EdgeattnError) as error:
        load_model(
            audit_file(tmp_path / "m.weights.h5"),
            architecture=f"{tmp_path}/own.py:Net",
            samples=tmp_path / "samples.npz",
        )
    assert error.value.message.endswith("of shape [None, 5, 3]: Net.call: 7 steps are needed")
    assert "Net.call (own.py, line 11)" in str(error.value.hint)
    assert keras.__version__.startswith("3.")


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two…"),
        ("one two three", 8, "one two…"),
        ("one two, three", 9, "one two…"),
        ("one\n  two\tthree", 7, "one…"),
        ("https://example.org/model", 9, "https://…"),
        ("\x1b[1mone\x1b[0m two", 7, "one two"),
        (ValueError("one two three"), 9, "one two…"),
    ],
)
def test_the_beginning_ends_behind_a_word(text: object, most: int, expected: str) -> None:
    found = beginning(text, most)
    assert found == expected
    assert len(found) <= most


def test_errors_in_code_that_autograph_has_converted() -> None:
    """The innermost one of two, with its own line, not that of the call in which it occurred."""

    def inner(x: Any) -> Any:
        return x + tf.no_such_function()

    def outer(x: Any) -> Any:
        return inner(x) if tf.reduce_sum(x) > 0 else x

    with pytest.raises(AttributeError) as caught:
        tf.function(outer)(tf.ones(3))
    line = inner.__code__.co_firstlineno + 1
    assert of_user_code(str(caught.value)) == (
        "AttributeError: module 'tensorflow' has no attribute 'no_such_function'",
        f" (test_error_text.py, line {line})",
    )
    assert of_user_code("Two lines.\n\nin user code is the second.") is None
