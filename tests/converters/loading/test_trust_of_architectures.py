"""Lambda layers of a JSON architecture: the hash of the weights lets functions replace them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras

from edgeattn.bundle.manifest import sha256

UNITS = 24


@pytest.mark.long
def test_the_command_of_the_message_works(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    x = tf_keras.Input((6,))
    # Its code uses a value that no file contains.
    y = tf_keras.layers.Lambda(lambda x: x / np.sqrt(UNITS))(tf_keras.layers.Dense(4)(x))
    model = tf_keras.Model(x, y)
    (tmp_path / "m.json").write_text(model.to_json())
    model.save_weights(tmp_path / "w.h5")
    command = (
        "convert",
        tmp_path / "w.h5",
        "--architecture",
        tmp_path / "m.json",
        "--output",
        tmp_path / "m.edge",
        "--scheme",
        "float32",
        "--format",
        "onnx",
    )
    result = edgeattn(*command)
    assert result.code == 4, result.out + result.err
    trust = sha256(tmp_path / "w.h5")
    assert f"--custom-objects FILE.py --trust {trust}" in result.err
    name = "lambda_" if "lambda_(x)" in result.err else f"{y.node.layer.name}"
    (tmp_path / "own.py").write_text(f"def {name}(x):\n    return x / {UNITS} ** 0.5\n")
    result = edgeattn(*command, "--custom-objects", tmp_path / "own.py", "--trust", trust)
    assert result.code == 0, result.out + result.err
