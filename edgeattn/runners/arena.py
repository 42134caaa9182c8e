"""The size of the arena that a model needs in TensorFlow Lite Micro, measured in the interpreter.

An interpreter whose arena is too small may crash instead of reporting it, so that every size is
tried in a worker process.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeattn.errors import ArtifactError, EdgeattnError, last_line
from edgeattn.process.limits import run_limits
from edgeattn.process.worker import Worker, WorkerDiedError

# Sizes of arenas are multiples of the alignment of tensors.
ALIGNMENT = 16
# By how much the arena exceeds what the interpreter reports, at most: it also allocates memory
# while it plans, and releases it.
MOST = 4.0
_TOTAL = re.compile(rb"Arena allocation total (\d+) bytes")


def arena_bytes(path: Path, worker: Worker) -> int:
    """The size in bytes of an arena in which the model loads and runs on this computer.

    The structures in it have pointers of 8 bytes here and of 4 on most microcontrollers, which
    therefore need less. Raises :class:`ArtifactError` with the interpreter's message if the model
    does not run in any arena, and :class:`RuntimeUnavailableError` if the interpreter is not
    installed.
    """
    used = int(_call(worker, "used_bytes", {"path": str(path)}))
    size = -(-used // ALIGNMENT) * ALIGNMENT
    while not _runs(worker, path, size):
        if size > MOST * used:
            raise ArtifactError(f"{path.name} does not run in an arena of {size:,} bytes.")
        size = int(size * 1.02) // ALIGNMENT * ALIGNMENT + ALIGNMENT
    return size


def _runs(worker: Worker, path: Path, size: int) -> bool:
    try:
        return bool(_call(worker, "runs_in", {"path": str(path), "arena": size}))
    except WorkerDiedError:
        return False


def _call(worker: Worker, name: str, arguments: dict[str, Any]) -> Any:
    limits = run_limits()
    return worker.call(
        f"edgeattn.runners.arena:{name}", arguments, timeout=limits.seconds, memory=limits.memory
    )[0]


def used_bytes(path: str) -> int:
    """In the worker: the bytes of a large arena that the interpreter reports as used."""
    from edgeattn.runners import tflite_micro

    content = Path(path).read_bytes()
    try:
        interpreter = tflite_micro.open_interpreter(content, tflite_micro.ample_arena(content))
    except RuntimeError as error:
        raise ArtifactError(f"tflite-micro cannot load the file: {last_line(error)}") from error
    try:
        _run_zeros(interpreter, content)
    except RuntimeError as error:
        raise ArtifactError(f"tflite-micro cannot run the file: {last_line(error)}") from error
    with tempfile.TemporaryFile() as log:
        with tflite_micro.stderr_to(log):
            interpreter.print_allocations()
        log.seek(0)
        total = _TOTAL.search(log.read())
    if total is None:
        raise EdgeattnError("tflite-micro does not report the size of its arena.")
    return int(total[1])


def runs_in(path: str, arena: int) -> bool:
    """In the worker: whether the model loads and runs in an arena of this size."""
    from edgeattn.runners import tflite_micro

    content = Path(path).read_bytes()
    try:
        _run_zeros(tflite_micro.open_interpreter(content, arena), content)
    except RuntimeError:
        return False
    return True


def _run_zeros(interpreter: Any, content: bytes) -> None:
    """Run with zeros in every input.

    A new arena has whatever its memory held before, and a lookup fails for tokens that the
    embedding does not have.
    """
    from edgeattn.runners import tflite_micro

    for position in range(tflite_micro.number_of_inputs(content)):
        details = interpreter.get_input_details(position)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), position)
    interpreter.invoke()
