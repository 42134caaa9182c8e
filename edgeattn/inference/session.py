"""One sample per call with minimal overhead between the caller and the runtime.

Inputs and outputs are copied to and from arrays that are allocated once. Programs use
:func:`edgeattn.load`, which builds on this.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import ArtifactError, UsageError
from edgeattn.runners import open_runner, tflite_micro
from edgeattn.runners.onnx import ONNXRunner, import_onnxruntime
from edgeattn.runners.tflite import TFLiteRunner, interpreter_class
from edgeattn.runners.tflite_micro import TFLiteMicroRunner
from edgeattn.schemes import MICRO
from edgeattn.tensors import Array, Specs


class Session(Protocol):
    """A loaded artifact: fill ``feeds``, call ``invoke``, read ``fetches``.

    The arrays have the artifact's dtypes and one batch, and are the same for every call.
    """

    runtime: str
    feeds: tuple[Array, ...]
    fetches: tuple[Array, ...]

    def invoke(self) -> None: ...


def open_session(
    path: Path,
    format: str,
    inputs: Specs,
    outputs: Specs,
    *,
    threads: int = 1,
    sha256: str | None = None,
    runtime: str | None = None,
) -> Session:
    """The artifact at ``path`` in this process; a free batch size is set to 1.

    ``sha256`` and ``runtime`` are those of :func:`edgeattn.runners.open_runner`.
    Raises :class:`UsageError` if another axis is free, :class:`RuntimeUnavailableError` if the
    runtime is not installed, and :class:`ArtifactError` if it cannot load the file.
    """
    for spec in (*inputs, *outputs):
        if None in spec.shape[1:]:
            raise UsageError(
                f"{path.name} has a free axis in {spec}, so its arrays cannot be allocated once.",
                hint="Convert the model again with --time-steps, or use edgeattn.open_runner.",
            )
    runner: Any = open_runner(
        path, format, inputs, outputs, threads=threads, sha256=sha256, runtime=runtime
    )
    if runtime == MICRO:
        return MicroSession(runner)
    return TFLiteSession(runner) if format == "tflite" else ONNXSession(runner)


def import_runtime(format: str, runtime: str | None = None) -> None:
    """Import the runtime of ``format``, so that the time to load a file does not include it."""
    if runtime == MICRO:
        tflite_micro.interpreter_class()
    elif format == "tflite":
        interpreter_class()
    else:
        import_onnxruntime()


def _arrays(specs: Specs) -> tuple[Array, ...]:
    return tuple(np.zeros([axis or 1 for axis in spec.shape], spec.dtype) for spec in specs)


class TFLiteSession:
    """A ``.tflite`` file; variables in it are cleared before every call."""

    def __init__(self, runner: TFLiteRunner) -> None:
        self.runtime = runner.runtime
        self._interpreter = runner._interpreter
        self.feeds, self.fetches = _arrays(runner.inputs), _arrays(runner.outputs)
        self._set = [
            (index, feed) for (_, index), feed in zip(runner._feeds, self.feeds, strict=True)
        ]
        self._get = [
            (index, fetch) for (_, index), fetch in zip(runner._fetches, self.fetches, strict=True)
        ]

    def invoke(self) -> None:
        try:
            self._interpreter.reset_all_variables()
            for index, feed in self._set:
                self._interpreter.set_tensor(index, feed)
            self._interpreter.invoke()
            # get_tensor copies. tensor(), a view without a copy, takes longer than the copies of
            # outputs as small as these.
            for index, fetch in self._get:
                fetch[...] = self._interpreter.get_tensor(index)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self.runtime} failed during inference: {error}") from error


class MicroSession:
    """A ``.tflite`` file in Lite Micro; variables in it are cleared before every call."""

    def __init__(self, runner: TFLiteMicroRunner) -> None:
        self.runtime, self._runner = runner.runtime, runner
        self.feeds, self.fetches = _arrays(runner.inputs), _arrays(runner.outputs)

    def invoke(self) -> None:
        for fetch, array in zip(self.fetches, self._runner.invoke(self.feeds), strict=True):
            fetch[...] = array


class ONNXSession:
    """An ``.onnx`` file whose inputs and outputs are bound to memory once."""

    def __init__(self, runner: ONNXRunner) -> None:
        self.runtime = runner.runtime
        self._session = runner._session
        self.feeds, self.fetches = _arrays(runner.inputs), _arrays(runner.outputs)
        self._binding: Any = self._session.io_binding()
        for spec, feed in zip(runner.inputs, self.feeds, strict=True):
            self._binding.bind_input(
                spec.in_file, "cpu", 0, feed.dtype, feed.shape, feed.ctypes.data
            )
        for spec, fetch in zip(runner.outputs, self.fetches, strict=True):
            self._binding.bind_output(
                spec.in_file, "cpu", 0, fetch.dtype, fetch.shape, fetch.ctypes.data
            )

    def invoke(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's exceptions have no public base class
            raise ArtifactError(f"{self.runtime} failed during inference: {error}") from error
