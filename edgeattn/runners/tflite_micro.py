"""TFLite files in TensorFlow Lite Micro, the runtime of microcontrollers, built for this computer.

The kernels are the portable ones, with the results of the C++ library on a microcontroller.
"""

import contextlib
import importlib.metadata
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeattn import first_bytes
from edgeattn.bundle.verified_file import read_file
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, last_line
from edgeattn.runners.batching import batches, join_batches
from edgeattn.runners.external_buffers import refuse_external_buffers
from edgeattn.runners.flatbuffer import FlatBuffer, Table
from edgeattn.schemes import MICRO
from edgeattn.tensors import Array, Tensors, TensorSpec

# The arena in which a model of this many bytes is loaded to run it; far more than any needs.
ARENA_FACTOR, LEAST_ARENA = 16, 1 << 20
# Fields of the model, of a graph and of a tensor in TensorFlow's schema.fbs.
_GRAPHS, _TENSORS, _SIDES, _NAME = 2, 0, (1, 2), 3
_NODE = re.compile(r"Node (\w+) \(number \w+\) failed")


def interpreter_class() -> Any:
    """The interpreter's class. Raises :class:`RuntimeUnavailableError` if it is not installed."""
    try:
        from tflite_micro import runtime
    except ImportError as error:
        raise RuntimeUnavailableError(
            "Files for microcontrollers require TensorFlow Lite Micro, which is not installed.",
            hint="Install it with: pip install 'edgeattn[micro]' (x86-64, Python 3.11 to 3.13)",
        ) from error
    return runtime.Interpreter


def runtime_version() -> str:
    """Name and version of the runtime."""
    try:
        return f"{MICRO} {importlib.metadata.version(MICRO)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{MICRO} (version unknown)"


class TFLiteMicroRunner:
    """Runs a ``.tflite`` file with static shapes, one batch (usually one sample) per call.

    With ``reset``, variables in the file are cleared before every call.
    """

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        reset: bool = True,
        sha256: str | None = None,
    ) -> None:
        interpreter_class()
        content = read_file(path, sha256)
        names = _checked_names(path, content)
        self.inputs, self.outputs = inputs, outputs
        self.runtime = runtime_version()
        self._reset = reset
        self._lock = threading.Lock()
        self._feeds = [(spec, _position(names[0], spec, path)) for spec in inputs]
        self._fetches = [(spec, _position(names[1], spec, path)) for spec in outputs]
        try:
            self._interpreter = open_interpreter(content, ample_arena(content))
        except (ValueError, RuntimeError) as error:
            cause = failing_operator(lambda: open_interpreter(content, ample_arena(content)))
            raise ArtifactError(
                f"{MICRO} cannot load {path.name}: {last_line(error)}{cause}"
            ) from error

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        results: dict[str, list[Array]] = {spec.name: [] for spec in self.outputs}
        batch = self.inputs[0].shape[0] or 1
        with self._lock:
            for feeds, count in batches(tensors, self.inputs, (batch,), fixed=True):
                arrays = self.invoke([feeds[spec.name] for spec, _ in self._feeds])
                for (spec, _), array in zip(self._fetches, arrays, strict=True):
                    results[spec.name].append(array[:count] if array.ndim else array)
        return {spec.name: join_batches(results[spec.name], spec) for spec in self.outputs}

    def invoke(self, feeds: Sequence[Array]) -> list[Array]:
        """Outputs for one batch, in the order of ``outputs``; ``feeds`` are that of ``inputs``."""
        try:
            if self._reset:
                self._interpreter.reset()
            for (_, index), feed in zip(self._feeds, feeds, strict=True):
                self._interpreter.set_input(feed, index)
            self._interpreter.invoke()
            return [np.asarray(self._interpreter.get_output(index)) for _, index in self._fetches]
        except (ValueError, RuntimeError) as error:
            cause = failing_operator(self._interpreter.invoke)
            raise ArtifactError(
                f"{self.runtime} failed during inference: {last_line(error)}{cause}"
            ) from error

    def close(self) -> None:
        self._interpreter = None


def ample_arena(content: bytes) -> int:
    """The size of an arena that is large enough for a model of these bytes."""
    return max(LEAST_ARENA, ARENA_FACTOR * len(content))


def open_interpreter(content: bytes, arena: int) -> Any:
    """An interpreter with an arena of ``arena`` bytes.

    Raises :class:`RuntimeError` if the arena is too small, or if an operator is not supported.
    """
    # The package prints a line about every model.
    with contextlib.redirect_stdout(io.StringIO()):
        return interpreter_class().from_bytes(content, arena_size=arena)


def failing_operator(call: Callable[[], Any]) -> str:
    """Why ``call`` fails again, in parentheses: the operator that the runtime prints on standard
    error, and what it prints before. Empty if it names none."""
    with tempfile.TemporaryFile() as log:
        with stderr_to(log), contextlib.suppress(ValueError, RuntimeError):
            call()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    for position, line in enumerate(lines):
        if found := _NODE.match(line):
            before = lines[position - 1].strip().rstrip(".") if position else ""
            return f" ({found[1]}: {before})" if before else f" ({found[1]})"
    return ""


@contextlib.contextmanager
def stderr_to(file: IO[bytes]) -> Iterator[None]:
    """Redirect file descriptor 2, which native code writes to."""
    sys.stderr.flush()
    original = os.dup(2)
    try:
        os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


def number_of_inputs(content: bytes) -> int:
    """The number of inputs of a model that the interpreter can load."""
    return len(_main_graph(content).numbers(_SIDES[0], "i"))


def _main_graph(content: bytes) -> Table:
    return next(FlatBuffer(content, first_bytes.TFLITE).root().tables(_GRAPHS))


def _checked_names(path: Path, content: bytes) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs, in the order of the file.

    The runtime trusts its models: what it is given has at least the tables that are read here.
    """
    try:
        refuse_external_buffers(path, content)
        graph = _main_graph(content)
        names = [tensor.text(_NAME) for tensor in graph.tables(_TENSORS)]
        inputs, outputs = ([names[i] for i in graph.numbers(side, "i")] for side in _SIDES)
    except (ValueError, IndexError, StopIteration) as error:
        raise ArtifactError(f"{MICRO} cannot load {path.name}: {last_line(error)}") from error
    return inputs, outputs


def _position(names: list[str], spec: TensorSpec, path: Path) -> int:
    if spec.name not in names:
        raise ArtifactError(
            f"{path.name} has no tensor {spec.name!r}, which the manifest lists. Its tensors: "
            f"{', '.join(map(repr, names))}."
        )
    return names.index(spec.name)
