"""A model trained on real data in every scheme: its size, and its accuracy on the test data.

The model is that of ``benchmarks/quantization.py`` and is trained once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized_models import CONVERTERS, SCHEMES

from edgeattn.file_structure.onnx import read_onnx
from edgeattn.file_structure.tflite import read_tflite
from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

pytestmark = pytest.mark.long

READ = {"onnx": read_onnx, "tflite": read_tflite}
ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
# Maximum bytes of the weights relative to float32: values take two bytes or one of four, and biases
# and scales stay float32. What describes the operators has no weights to shrink, and its share of
# the float32 file changes with the lowering, so it is compared on its own.
MAX_WEIGHTS = {"float16": 0.51, "dynamic_int8": 0.28, "int8": 0.28}
# Maximum loss of accuracy in percentage points.
MAX_LOSS = {"float16": 0.5, "dynamic_int8": 0.5, "int8": 1.0, "int16x8": 0.5}


@pytest.fixture(scope="module")
def case() -> Any:
    if not (DATA / "uci_har" / "uci_har_subset.npz").is_file():
        pytest.skip("the UCI smartphone data is not available")
    path = ROOT / "benchmarks" / "quantization.py"
    spec = importlib.util.spec_from_file_location("quantization_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # dataclasses look up their module
    spec.loader.exec_module(benchmark)
    return benchmark.activity(DATA)


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_size_and_accuracy(case: Any, format: str, tmp_path: Path) -> None:
    import keras

    import edgeattn.layers  # noqa: F401 - registers the model's layer

    model = keras.models.load_model(case.model, compile=False)
    interface = interface_of(model)
    name = interface.inputs[0].name
    weights, descriptions, accuracies = {}, {}, {}
    for scheme in SCHEMES:
        path = tmp_path / f"{scheme}.{format}"
        inputs, outputs, _, _ = CONVERTERS[format].convert(
            model, interface, recipe_for(scheme), path, samples={name: case.calibration}
        )
        results = open_runner(path, format, inputs, outputs, as_deployed=True).run({name: case.x})
        values = READ[format](path.read_bytes()).weights.items()
        weights[scheme] = sum(np.dtype(dtype).itemsize * count for dtype, count in values)
        descriptions[scheme] = path.stat().st_size - weights[scheme]
        accuracies[scheme] = 100 * float((results["answer"].argmax(-1) == case.y).mean())
    for scheme, limit in MAX_WEIGHTS.items():
        assert weights[scheme] <= limit * weights["float32"], scheme
        assert descriptions[scheme] <= descriptions["float32"], scheme
    for scheme, limit in MAX_LOSS.items():
        assert accuracies["float32"] - accuracies[scheme] <= limit, scheme
