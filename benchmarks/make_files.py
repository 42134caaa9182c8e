"""Convert a model by several routes: ``python -m benchmarks.make_files MODEL FOLDER LABEL...``.

``inputs.npy`` holds sequences and ``expected.npy`` the outputs of Keras; ``files.json`` has the
file of each route, or why the route failed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import numpy as np

from benchmarks import models
from benchmarks.routes import COUNTED_ONLY, ROUTES, first_line
from edgeattn_converters.quantization.instructions import estimate_instructions

SEQUENCES = 6


def make(name: str, folder: Path, labels: list[str]) -> None:
    model = models.build(name)
    x = models.inputs(model, SEQUENCES)
    np.save(folder / "inputs.npy", x)
    rows = [model.predict(row[None], verbose=0) for row in x]
    np.save(folder / "expected.npy", np.concatenate(rows))
    files: dict[str, dict[str, Any]] = {}
    for number, label in enumerate(labels):
        route = {**ROUTES, **COUNTED_ONLY}[label]
        path = f"{number}.{route.runtime}"
        try:
            content = route.convert(name)
        except Exception as error:
            files[label] = {"failed": first_line(error)}
            continue
        (folder / path).write_bytes(content)
        files[label] = {"path": path, "bytes": len(content)}
        if route.runtime == "tflite":
            files[label]["packed_bytes"] = packed_bytes(content)
            files[label]["estimated"] = estimate_instructions(content)
    (folder / "files.json").write_text(json.dumps(files, indent=1))


def packed_bytes(content: bytes) -> int:
    """Return the bytes of constants, counted once per operator that reads them.

    XNNPACK packs a copy of the constants for every operator.
    """
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
