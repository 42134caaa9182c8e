"""Programs for the Keras of TensorFlow, run with tf_keras instead."""

from __future__ import annotations

from typing import Any


def run_in_tf_keras(program: str) -> dict[str, Any]:
    """Run the text of a program and return its names, such as the function that builds a model."""
    names: dict[str, Any] = {"__name__": "of_tf_keras"}
    text = program.replace("from tensorflow import keras", "import tf_keras as keras")
    exec(text.replace("tensorflow.keras", "tf_keras"), names)
    return names
