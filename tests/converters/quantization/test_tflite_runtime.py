"""Every scheme in tflite-runtime 2.14, which 32-bit ARM has: files for it, in the real thing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from weighty_models import SCHEMES, Made, Workshop

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
told = {}
for row in range(len(next(iter(feeds.values())))):
    for item in interpreter.get_input_details():
        interpreter.set_tensor(item["index"], feeds[item["name"]][row : row + 1])
    interpreter.invoke()
    for item in interpreter.get_output_details():
        told.setdefault(item["name"], []).append(interpreter.get_tensor(item["index"]))
with open(sys.argv[3], "wb") as file:
    np.savez(file, **{name: np.concatenate(parts) for name, parts in told.items()})
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of an environment with tflite-runtime 2.14, made once."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 has no wheel for this Python; 3.11 is the last")
    executable = FOLDER / "bin" / "python"
    complete = FOLDER / "complete"
    if not complete.exists():
        install = [executable, "-m", "pip", "install", "--quiet", *PACKAGES]
        for command in ([sys.executable, "-m", "venv", str(FOLDER)], install):
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                pytest.skip(f"no tflite-runtime 2.14 can be installed here: {done.stderr[-200:]}")
        complete.write_text(json.dumps(PACKAGES))
    return executable


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic_int8"])
def test_a_fused_lstm(scheme: str, python: Path, tmp_path: Path) -> None:
    workshop = Workshop("lstm", tmp_path)
    made = workshop.make("tflite", scheme, runtime="tflite-runtime", lowering="fused")
    _holds(made, workshop, python, tmp_path)


@pytest.mark.parametrize("integer_io", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_runs_there_as_here(
    workshop: Workshop, scheme: str, integer_io: bool, python: Path, tmp_path: Path
) -> None:
    if integer_io and scheme != "int8":
        return
    made = workshop.make("tflite", scheme, runtime="tflite-runtime", integer_io=integer_io)
    _holds(made, workshop, python, tmp_path)


def _holds(made: Made, workshop: Workshop, python: Path, tmp_path: Path) -> None:
    """The same answers there as here."""
    feeds = {spec.name: quantize(workshop.inputs[spec.name], spec) for spec in made.inputs}
    np.savez(tmp_path / "in.npz", **feeds)
    arguments = [str(made.path), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [str(python), "-c", RUN, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as told:
        for spec in made.outputs:
            # Older kernels scale activations in another way: near, not equal.
            got = dequantize(told[spec.name], spec)
            assert metrics.snr_db(made.actual[spec.name], got) >= 25, spec.name
