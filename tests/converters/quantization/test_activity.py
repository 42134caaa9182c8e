"""A model trained on real data in every scheme: its size, and its accuracy on the test data.

The model is that of ``benchmarks/quantization.py`` and is trained once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from quantized_models import CONVERTERS, SCHEMES

from edgeattn.runners import open_runner
from edgeattn_converters.recipes import recipe_for
from edgeattn_converters.tracing.trace import interface_of

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
# Maximum size relative to float32, and maximum loss of accuracy in percentage points.
MAX_SIZE = {"float16": 0.55, "dynamic_int8": 0.30, "int8": 0.30}
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
    sizes, accuracies = {}, {}
    for scheme in SCHEMES:
        path = tmp_path / f"{scheme}.{format}"
        inputs, outputs, _, _ = CONVERTERS[format].convert(
            model, interface, recipe_for(scheme), path, samples={name: case.calibration}
        )
        results = open_runner(path, format, inputs, outputs, as_deployed=True).run({name: case.x})
        sizes[scheme] = path.stat().st_size
        accuracies[scheme] = 100 * float((results["answer"].argmax(-1) == case.y).mean())
    for scheme, limit in MAX_SIZE.items():
        assert sizes[scheme] <= limit * sizes["float32"], scheme
    for scheme, limit in MAX_LOSS.items():
        assert accuracies["float32"] - accuracies[scheme] <= limit, scheme
