"""Every scheme in tflite-runtime 2.14, the one for 32-bit ARM, installed in its own environment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from long_parameters import only
from quantized_models import MODELS, SCHEMES, Conversion, Conversions, ConversionsOf

from edgeattn.metrics import pairwise as metrics
from edgeattn.tensors import dequantize, quantize

FOLDER = Path(__file__).parents[3] / ".out" / "tflite-runtime-2.14"
PACKAGES = ("tflite-runtime==2.14.0", "numpy<2")
RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
with np.load(sys.argv[2]) as file:
    feeds = dict(file)
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
results = {}
for row in range(len(next(iter(feeds.values())))):
    for item in interpreter.get_input_details():
        interpreter.set_tensor(item["index"], feeds[item["name"]][row : row + 1])
    interpreter.invoke()
    for item in interpreter.get_output_details():
        results.setdefault(item["name"], []).append(interpreter.get_tensor(item["index"]))
with open(sys.argv[3], "wb") as file:
    np.savez(file, **{name: np.concatenate(parts) for name, parts in results.items()})
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of an environment with tflite-runtime 2.14, which is created once."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 has no wheel for this Python; 3.11 is the last")
    executable = FOLDER / "bin" / "python"
    complete = FOLDER / "complete"
    if not complete.exists():
        install = [executable, "-m", "pip", "install", "--quiet", *PACKAGES]
        for command in ([sys.executable, "-m", "venv", str(FOLDER)], install):
            process = subprocess.run(command, capture_output=True, text=True, timeout=12000)
            if process.returncode:
                pytest.skip(f"tflite-runtime 2.14 cannot be installed: {process.stderr[-200:]}")
        complete.write_text(json.dumps(PACKAGES))
    return executable


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic_int8"])
def test_a_fused_lstm(
    scheme: str, python: Path, conversions_of: ConversionsOf, tmp_path: Path
) -> None:
    conversions = conversions_of("lstm")
    converted = conversions.make("tflite", scheme, runtime="tflite-runtime", lowering="fused")
    _assert_matches(converted, conversions, python, tmp_path)


@pytest.mark.parametrize("integer_io", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("scheme", only(SCHEMES, "int8"))
@pytest.mark.parametrize("conversions", only(sorted(MODELS), "transformer"), indirect=True)
def test_outputs_match_those_of_litert(
    conversions: Conversions, scheme: str, integer_io: bool, python: Path, tmp_path: Path
) -> None:
    if integer_io and scheme != "int8":
        return
    converted = conversions.make("tflite", scheme, runtime="tflite-runtime", integer_io=integer_io)
    _assert_matches(converted, conversions, python, tmp_path)


def _assert_matches(
    converted: Conversion, conversions: Conversions, python: Path, tmp_path: Path
) -> None:
    """The outputs in tflite-runtime are close to those in LiteRT."""
    feeds = {spec.name: quantize(conversions.inputs[spec.name], spec) for spec in converted.inputs}
    np.savez(tmp_path / "in.npz", **feeds)
    arguments = [str(converted.path), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    process = subprocess.run(
        [str(python), "-c", RUN, *arguments], capture_output=True, text=True, timeout=1200
    )
    assert process.returncode == 0, process.stderr
    with np.load(tmp_path / "out.npz") as results:
        for spec in converted.outputs:
            # Older kernels scale activations differently, so outputs are close but not equal.
            got = dequantize(results[spec.name], spec)
            assert metrics.snr_db(converted.actual[spec.name], got) >= 25, spec.name
