"""A trained model of real data in every scheme: its bytes, and its accuracy on all test data.

The model is that of ``benchmarks/quantization.py``, trained there or here once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from weighty_models import CONVERTERS, SCHEMES

from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
# Of float32's bytes, and points of accuracy.
BYTES = {"float16": 0.55, "dynamic_int8": 0.30, "int8": 0.30}
POINTS = {"float16": 0.5, "dynamic_int8": 0.5, "int8": 1.0, "int16x8": 0.5}


@pytest.fixture(scope="module")
def case() -> Any:
    if not (DATA / "uci_har" / "uci_har_subset.npz").is_file():
        pytest.skip("the UCI smartphone data is not beside the project")
    path = ROOT / "benchmarks" / "quantization.py"
    spec = importlib.util.spec_from_file_location("quantization_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # its dataclasses look themselves up
    spec.loader.exec_module(benchmark)
    return benchmark.activity(DATA)


@pytest.mark.parametrize("format", sorted(CONVERTERS))
def test_bytes_and_accuracy(case: Any, format: str, tmp_path: Path) -> None:
    import keras

    import edgeattn.layers  # noqa: F401 - the model has our layer

    model = keras.models.load_model(case.model, compile=False)
    interface = interface_of(model)
    name = interface.inputs[0].name
    sizes, accuracies = {}, {}
    for scheme in SCHEMES:
        path = tmp_path / f"{scheme}.{format}"
        inputs, outputs, _, _ = CONVERTERS[format].convert(
            model, interface, recipe_for(scheme), path, samples={name: case.calibration}
        )
        answers = open_runner(path, format, inputs, outputs, as_deployed=True).run({name: case.x})
        sizes[scheme] = path.stat().st_size
        accuracies[scheme] = 100 * float((answers["answer"].argmax(-1) == case.y).mean())
    for scheme, most in BYTES.items():
        assert sizes[scheme] <= most * sizes["float32"], scheme
    for scheme, points in POINTS.items():
        assert accuracies["float32"] - accuracies[scheme] <= points, scheme
