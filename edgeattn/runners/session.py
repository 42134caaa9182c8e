"""One sample at a time with nothing of ours between a sensor and the runtime.

Inputs and outputs are copied into and out of arrays that are made once: beside what the runtime's
binding does itself, a call makes none. :mod:`edgeattn.inference.model` is the documented way here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeattn.errors import ArtifactError, RuntimeUnavailableError, UsageError
from edgeattn.tensors import Array, TensorSpec


class Direct(Protocol):
    """A loaded artifact: fill ``feeds``, call ``invoke``, read ``fetches``.

    The arrays are in the artifact's own dtypes, of one batch, and stay the same ones.
    """

    runtime: str
    feeds: tuple[Array, ...]
    fetches: tuple[Array, ...]

    def invoke(self) -> None: ...


def open_direct(
    path: Path,
    format: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    threads: int = 1,
) -> Direct:
    """The artifact at ``path`` in this process, a free batch axis set to one."""
    kinds: dict[str, Callable[..., Direct]] = {"tflite": DirectTFLite, "onnx": DirectONNX}
    if format not in kinds:
        raise UsageError(f"No runner for the format {format!r}.")
    for spec in (*inputs, *outputs):
        if None in spec.shape[1:]:
            raise UsageError(
                f"{path.name} leaves an axis of {spec} free: memory cannot be laid out once.",
                hint="Convert the model again with --time-steps, or use edgeattn.open_runner.",
            )
    return kinds[format](path, inputs, outputs, threads=threads)


def _arrays(specs: tuple[TensorSpec, ...]) -> tuple[Array, ...]:
    return tuple(np.zeros([axis or 1 for axis in spec.shape], spec.dtype) for spec in specs)


class DirectTFLite:
    """A ``.tflite`` file; variables that it may hold are cleared before every call."""

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
    ) -> None:
        from edgeattn.runners.tflite import TFLiteRunner

        # What can be wrong with a file is found and told there.
        made = TFLiteRunner(path, inputs, outputs, threads=threads)
        self.runtime = made.runtime
        self._interpreter = made._interpreter
        self.feeds = _arrays(inputs)
        self.fetches = _arrays(outputs)
        self._into = [
            (index, feed) for (_, index), feed in zip(made._feeds, self.feeds, strict=True)
        ]
        self._from = [
            (index, fetch) for (_, index), fetch in zip(made._fetches, self.fetches, strict=True)
        ]

    def invoke(self) -> None:
        try:
            self._interpreter.reset_all_variables()
            for index, feed in self._into:
                self._interpreter.set_tensor(index, feed)
            self._interpreter.invoke()
            # The binding's own copy, gone with the line. Its view without a copy, tensor(), takes
            # longer than copying what these models put out.
            for index, fetch in self._from:
                fetch[...] = self._interpreter.get_tensor(index)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"{self.runtime} stopped: {error}") from error


class DirectONNX:
    """An ``.onnx`` file whose inputs and outputs are bound to memory once."""

    def __init__(
        self,
        path: Path,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        threads: int = 1,
    ) -> None:
        from edgeattn.runners.onnx import ONNXRunner

        made = ONNXRunner(path, inputs, outputs, threads=threads)
        self.runtime = made.runtime
        self._session = made._session
        self.feeds = _arrays(inputs)
        self.fetches = _arrays(outputs)
        self._binding: Any = self._session.io_binding()
        for spec, feed in zip(inputs, self.feeds, strict=True):
            self._binding.bind_input(spec.name, "cpu", 0, feed.dtype, feed.shape, feed.ctypes.data)
        for spec, fetch in zip(outputs, self.fetches, strict=True):
            self._binding.bind_output(
                spec.name, "cpu", 0, fetch.dtype, fetch.shape, fetch.ctypes.data
            )

    def invoke(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's own exceptions have no public base class
            raise ArtifactError(f"{self.runtime} stopped: {error}") from error


def import_runtime(format: str) -> None:
    """Import the runtime of ``format``, so that what loads a file next is not charged for it."""
    if format == "tflite":
        from edgeattn.runners.tflite import interpreter_class

        interpreter_class()
    else:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise RuntimeUnavailableError(
                "ONNX files need onnxruntime, and it is not installed here.",
                hint="Install it with: pip install 'edgeattn[onnx]'",
            ) from error
