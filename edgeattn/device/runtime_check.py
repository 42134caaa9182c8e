"""Checks of the installed runtimes.

Each runtime is imported in a worker process of its own and runs a tiny model there, so a runtime
that crashes the process, such as a wheel built for a newer processor, is reported like any failure.
"""

import base64
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.errors import ArtifactError, EdgeattnError, RuntimeUnavailableError
from edgeattn.process.worker import Worker, WorkerDiedError

TIMEOUT_SECONDS = 120.0
PASS, FAIL, MISSING, NOT_CHECKED = "pass", "fail", "not installed", "not checked"


@dataclass(frozen=True)
class RuntimeCheck:
    """Result of checking the runtime of one format.

    ``state`` is ``PASS``, ``FAIL``, ``MISSING`` or ``NOT_CHECKED``. ``xnnpack`` is whether TFLite
    uses the XNNPACK delegate, and ``None`` if unknown or for another format.
    """

    format: str
    state: str
    runtime: str | None = None
    xnnpack: bool | None = None
    reason: str | None = None


def check_runtimes(start_worker: Callable[[], Worker] = Worker) -> tuple[RuntimeCheck, ...]:
    """Check the runtimes of both formats, each in a worker process of its own."""
    return tuple(_check_runtime(format, start_worker) for format in ("tflite", "onnx"))


def _check_runtime(format: str, start_worker: Callable[[], Worker]) -> RuntimeCheck:
    progress.report(f"checking the {format} runtime")
    with start_worker() as worker:
        try:
            result, _ = worker.call(
                "edgeattn.device.runtime_check:run_tiny_model",
                {"format": format},
                timeout=TIMEOUT_SECONDS,
            )
        except WorkerDiedError as error:
            reason = f"its process {error.message} when importing it or running a tiny model"
            return RuntimeCheck(format, FAIL, reason=reason)
        except RuntimeUnavailableError as error:
            return RuntimeCheck(format, MISSING, reason=error.message)
        except EdgeattnError as error:
            return RuntimeCheck(format, FAIL, reason=error.message)
    reason = f"its result for a tiny model is off by {result['error']:.3g}"
    return RuntimeCheck(
        format,
        PASS if result["correct"] else FAIL,
        str(result["runtime"]),
        result["xnnpack"],
        None if result["correct"] else reason,
    )


# One dense layer, score = x @ [[1, -2], [0.5, 4], [-0.25, 8]] + [0.125, -1], base64-encoded. With
# TINY_INPUT every partial sum is exact in float32, so the order of summation does not matter.
# tests/device/test_device.py rebuilds these files and compares them.
TINY_MODELS = {
    "tflite": """
GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAABgAAAAnAEAAAMAAAADAAAATAAAACQAAAAEAAAA6v///wQAAAAIAAAA
AAAAPgAAgL8AAAYACAAEAAYAAAAEAAAAGAAAAAAAgD8AAAA/AACAvgAAAMAAAIBAAAAAQaj///8BAAAAEAAAAAwAFAAQAAwA
CAAEAAwAAAAQAAAAWAAAAFwAAABgAAAAAQAAABQAAAAAAA4AFAAAABAADAALAAQADgAAABQAAAAAAAAIEAAAABQAAAAEAAQA
BAAAAAEAAAADAAAAAwAAAAAAAAABAAAAAgAAAAEAAAADAAAAAQAAAAAAAAAEAAAAmAAAAGAAAAAsAAAABAAAAIT///8IAAAA
EAAAAAUAAABzY29yZQAAAAIAAAABAAAAAgAAANz///8MAAAAAgAAABAAAAAEAAAAYmlhcwAAAAABAAAAAgAAAAwAEAAMAAAA
CAAEAAwAAAAMAAAAAQAAABAAAAAGAAAAa2VybmVsAAACAAAAAgAAAAMAAAAMAAwACAAAAAAABAAMAAAACAAAAAwAAAABAAAA
eAAAAAIAAAABAAAAAwAAAAEAAAAQAAAADAAMAAsAAAAAAAQADAAAAAkAAAAAAAAJ
""",
    "onnx": """
CAg6lQEKHgoBeAoGa2VybmVsCgRiaWFzEgVzY29yZSIER2VtbRIFbW9kZWwqKAgDCAIQAUIGa2VybmVsShgAAIA/AAAAwAAA
AD8AAIBAAACAvgAAAEEqFAgCEAFCBGJpYXNKCAAAAD4AAIC/WhMKAXgSDgoMCAESCAoCCAEKAggDYhcKBXNjb3JlEg4KDAgB
EggKAggBCgIIAkIECgAQEQ==
""",
}
TINY_INPUT, TINY_OUTPUT = [[2.0, -4.0, 8.0]], [[-1.875, 43.0]]


def run_tiny_model(format: str) -> dict[str, Any]:
    """In the worker: import the runtime, run the tiny model and compare its output.

    Returns ``runtime``, ``correct``, ``error`` (max abs error) and ``xnnpack``, which is read from
    what TFLite logs.
    """
    import numpy as np

    from edgeattn.runners import open_runner
    from edgeattn.tensors import TensorSpec

    inputs, outputs = (
        (TensorSpec("x", (1, 3), "float32"),),
        (TensorSpec("score", (1, 2), "float32"),),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tiny.{format}"
        path.write_bytes(base64.b64decode(TINY_MODELS[format]))
        with _capture_stderr(Path(folder) / "stderr") as read_stderr:
            runner = open_runner(path, format, inputs, outputs)
            score = runner.run({"x": np.array(TINY_INPUT, np.float32)})["score"]
        log = read_stderr()
    if score.shape != (1, 2):
        raise ArtifactError(f"its output for a tiny model has shape {score.shape}, not (1, 2)")
    error = float(np.max(np.abs(score - np.array(TINY_OUTPUT))))
    return {
        "runtime": runner.runtime,
        "correct": error == 0,
        "error": error if error == error else "NaN",
        "xnnpack": "XNNPACK delegate" in log if format == "tflite" else None,
    }


@contextlib.contextmanager
def _capture_stderr(file: Path) -> Iterator[Callable[[], str]]:
    """Redirect file descriptor 2, which native code writes to, to ``file``."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), 2)
        yield lambda: file.read_text("utf-8", "replace")
    finally:
        os.dup2(original, 2)
        os.close(original)
