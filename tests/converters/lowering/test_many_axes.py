"""Operations on tensors with seven axes, which the default runtime of TFLite files refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from recurrent_models import Converted

SHAPE = (2, 3, 2, 2, 3, 2)
X = np.random.default_rng(8).standard_normal((3, *SHAPE)).astype(np.float32)
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: ops.sum(x, 1),
    "mean": lambda x: ops.mean(x, (2, 4, 5)),
    "max": lambda x: ops.max(x, (1, 6), keepdims=True),
    "min": lambda x: ops.min(x, (-1, 1, 2)),
    "all": lambda x: ops.sum(x, (1, 2, 3, 4, 5, 6)),
    "variance": lambda x: ops.var(x, 3),
    "softmax": lambda x: ops.softmax(x, -1),
    "softmax of another axis": lambda x: ops.softmax(x, 2),
    "concatenate": lambda x: ops.concatenate([x, x * 2, x[:, :, :, :1]], 3),
    "slices": lambda x: x[:, -1, 1:, ::-1, :, 0:3:2],
    "differences": lambda x: x - x[:, :, :1] * ops.max(x, 4, keepdims=True),
    "stack": lambda x: ops.sum(ops.stack([x, x * 2]), 0),
    "logsumexp": lambda x: ops.logsumexp(x, 5),
}


def test_operations_on_many_axes(tmp_path: Path) -> None:
    x = keras.Input(SHAPE, name="x")
    results = [
        keras.layers.Rescaling(1.0, name=f"y{k}")(f(x)) for k, f in enumerate(OPERATIONS.values())
    ]
    assert not Converted(keras.Model(x, results), tmp_path, ("tflite", "onnx")).errors({"x": X})
