"""The files of a model's routes: ``python -m benchmarks.making MODEL FOLDER LABEL...``.

``inputs.npy`` and ``expected.npy`` are sequences and what Keras says to them; ``made.json`` tells
of each route its file, or why there is none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import numpy as np

from benchmarks import models
from benchmarks.routes import FORCED, ROUTES, first_line

SEQUENCES = 6


def make(name: str, folder: Path, labels: list[str]) -> None:
    model = models.build(name)
    x = models.inputs(model, SEQUENCES)
    np.save(folder / "inputs.npy", x)
    rows = [model.predict(row[None], verbose=0) for row in x]
    np.save(folder / "expected.npy", np.concatenate(rows))
    made = {}
    for number, label in enumerate(labels):
        route = {**ROUTES, **FORCED}[label]
        path = f"{number}.{route.runtime}"
        try:
            content = route.make(name)
        except Exception as error:
            made[label] = {"failed": first_line(error)}
            continue
        (folder / path).write_bytes(content)
        made[label] = {"path": path, "bytes": len(content)}
        if route.runtime == "tflite":
            made[label]["packed_bytes"] = packed(content)
    (folder / "made.json").write_text(json.dumps(made, indent=1))


def packed(content: bytes) -> int:
    """Bytes of constants that the operators take, counted at each that takes them: XNNPACK packs
    a copy for every one."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    total = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            for index in operator.inputs:
                data = model.buffers[graph.tensors[index].buffer].data if index >= 0 else None
                total += 0 if data is None else len(data)
    return total


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
