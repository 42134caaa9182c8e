"""The fewest instructions that quantization could reach with the kernels that LiteRT has.

    python -m benchmarks.kernel_bounds [--model NAME]

For a float32 file with its steps written out, every operator gets the kernel that takes the fewest
instructions according to the cost model of edgeattn: float32, int8, or a product with int8 weights
whose input is scaled at run time. The bound is the ratio to the float32 file. Conversions between
the kernels are not included, and their errors are not considered. The operators stay those of the
float32 file: int8 files whose steps multiply their input and state in one product can take less.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")

import numpy as np

from benchmarks import page
from benchmarks.model_names import RECURRENT

RECORDED = page.RESULTS / "kernel_bounds.json"


def bounds(content: bytes) -> dict[str, float]:
    """The bound of a float32 file by processor; it must have no loops."""
    from edgeattn_converters.graphs.tflite_file import TFLiteFile
    from edgeattn_converters.quantization.instruction_costs import COSTS

    file = TFLiteFile(content)
    if any(kind == "WHILE" for _, _, kind in file.operators()):
        raise ValueError("the steps of loops are not written out")
    ratios = {}
    for cpu in COSTS:
        pairs = list(_costs(file, cpu))
        ratios[cpu] = round(sum(least for _, least in pairs) / sum(cost for cost, _ in pairs), 3)
    return ratios


def _costs(file: Any, cpu: str) -> Iterator[tuple[float, float]]:
    """The estimate of each operator in float32, and in the kernel that takes the fewest."""
    from edgeattn_converters.quantization.instruction_costs import (
        COSTS,
        COUNTED_IN_MODELS,
        INDICES,
        OTHER,
    )
    from edgeattn_converters.quantization.instructions import graph_features

    for key, counts in graph_features(file, file.main):
        kind, dtype = key.split()[:2]
        if dtype in INDICES:
            continue
        own = COSTS[cpu].get(key) or COUNTED_IN_MODELS.get(key)
        cost = float(np.dot(own or COUNTED_IN_MODELS.get(kind, OTHER), counts))
        # A product of one row is a FULLY_CONNECTED with int8 weights.
        integer = key.replace("ROW_PRODUCT", "FULLY_CONNECTED")
        keys = [integer.replace("float32", other) for other in ("int8", "dynamic")]
        others = (COSTS[cpu].get(item) or COUNTED_IN_MODELS.get(item) for item in keys)
        yield cost, min([cost, *(float(np.dot(item, counts)) for item in others if item)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=RECURRENT, action="append", help="only these models")
    options = parser.parse_args()
    from benchmarks.routes import edgeattn

    recorded = page.read(RECORDED) or {}
    for name in options.model or RECURRENT:
        recorded[name] = bounds(edgeattn(name, lowering="unrolled"))
        print(name, recorded[name], flush=True)
    page.write(RECORDED, {name: recorded[name] for name in RECURRENT if name in recorded})
    page.update()


if __name__ == "__main__":
    main()
