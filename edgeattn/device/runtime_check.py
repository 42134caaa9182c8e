"""Which runtimes work: each imports, loads a tiny model and computes it, in a child process.

What kills a runtime, a wheel for a newer processor among it, becomes a line.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.errors import ArtifactError, EdgeattnError, RuntimeUnavailableError
from edgeattn.process.worker import Worker, WorkerDied

CHECK_SECONDS = 120.0
PASS, FAIL, MISSING, UNASKED = "pass", "fail", "not installed", "not asked"


@dataclass(frozen=True)
class RuntimeCheck:
    """Whether a runtime imported, loaded a tiny model and computed it right, in a child."""

    format: str
    state: str
    runtime: str | None = None
    xnnpack: bool | None = None
    reason: str | None = None


def check_runtimes(start: Callable[[], Worker] = Worker) -> tuple[RuntimeCheck, ...]:
    """Both formats' runtimes, each in a child of its own: what kills one becomes a line."""
    return tuple(_check(format, start) for format in ("tflite", "onnx"))


def _check(format: str, start: Callable[[], Worker]) -> RuntimeCheck:
    with start() as child:
        try:
            told, _ = child.call(
                "edgeattn.device.runtime_check:probe", {"format": format}, timeout=CHECK_SECONDS
            )
        except WorkerDied as error:
            reason = f"its process {error.message} on importing it or running a tiny model"
            return RuntimeCheck(format, FAIL, reason=reason)
        except RuntimeUnavailableError as error:
            return RuntimeCheck(format, MISSING, reason=error.message)
        except EdgeattnError as error:
            return RuntimeCheck(format, FAIL, reason=error.message)
    return RuntimeCheck(
        format,
        PASS if told["right"] else FAIL,
        str(told["runtime"]),
        told["xnnpack"],
        None if told["right"] else f"it computed a tiny model wrong, by {told['error']:.3g}",
    )


# score = x @ [[1, -2], [0.5, 4], [-0.25, 8]] + [0.125, -1], one dense layer without rounding in
# any order of its sums. tests/device/test_device.py makes these files and compares them.
TINY = {
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


def probe(format: str) -> dict[str, Any]:
    """In the child: import the runtime, load the tiny model, run it, look at what it printed."""
    import numpy as np

    from edgeattn.runners import open_runner
    from edgeattn.tensors import TensorSpec

    ends = (TensorSpec("x", (1, 3), "float32"),), (TensorSpec("score", (1, 2), "float32"),)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tiny.{format}"
        path.write_bytes(base64.b64decode(TINY[format]))
        with _printed(Path(folder) / "printed") as printed:
            runner = open_runner(path, format, *ends)
            got = runner.run({"x": np.array(TINY_INPUT, np.float32)})["score"]
        text = printed()
    if got.shape != (1, 2):
        raise ArtifactError(f"a tiny model's output came with the shape {got.shape}")
    error = float(np.max(np.abs(got - np.array(TINY_OUTPUT))))
    return {
        "runtime": runner.runtime,
        "right": error == 0,
        "error": error if error == error else "NaN",
        "xnnpack": "XNNPACK delegate" in text if format == "tflite" else None,
    }


@contextlib.contextmanager
def _printed(file: Path) -> Iterator[Callable[[], str]]:
    """What native code prints on stderr meanwhile, in ``file``."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), 2)
        yield lambda: file.read_text("utf-8", "replace")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
