"""A conversion stage in a child process.

Converters are native code that crashes, leaks and prints. One child does all the stages of a model,
so that TensorFlow is imported and the model loaded once; when it dies in a stage, that stage has
failed with one readable line, and the next stage gets a new child.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn.errors import ConversionError, UnsupportedModelError
from edgeattn.process.worker import CONFINED, Worker, WorkerDied
from edgeattn.tensors import Tensors

ENVIRONMENT = {
    # The reference is what Keras computes on TensorFlow; a GPU would give other kernels and
    # operations that only a GPU has.
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONWARNINGS": "ignore",
    # Nothing in a model file is to be fetched.
    CONFINED: "1",
    # Inputs that Keras writes while it is imported must not depend on who runs it.
    "TF_USE_LEGACY_KERAS": "0",
}


AUDIT_SECONDS = 30.0
AUDIT_BYTES_A_SECOND = 10e6


class ConversionWorker:
    """Calls functions of :mod:`edgeattn_converters.worker.tasks` in a child that has TensorFlow."""

    def __init__(self) -> None:
        self._child = Worker(environment=ENVIRONMENT)

    def __enter__(self) -> ConversionWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def audit(self, path: Path, trust: str | None) -> None:
        """Look through the file before anything loads it, within a time that it cannot stretch.

        A damaged HDF5 file can keep its library turning forever.
        """
        seconds = AUDIT_SECONDS + _size(path) / AUDIT_BYTES_A_SECOND
        arguments = {"path": str(path), "trust": trust}
        try:
            self._child.call(
                "edgeattn_converters.worker.tasks:look_through", arguments, timeout=seconds
            )
        except WorkerDied as error:
            raise UnsupportedModelError(
                f"{path.name} cannot be read: the process that looked it through {error.message}.",
                hint="The file is damaged. Get it again, or save the model again in Keras.",
            ) from error

    def call(
        self, stage: str, arguments: Mapping[str, Any], *, what: str, timeout: float | None = None
    ) -> Any:
        """The stage's result; :class:`ConversionError` where its process died of ``what``."""
        return self._call(stage, arguments, None, what, timeout)[0]

    def ask(
        self, stage: str, arguments: Mapping[str, Any], tensors: Tensors, *, what: str
    ) -> Tensors:
        """The arrays that a stage makes of ``tensors``; raises as :meth:`call` does."""
        return self._call(stage, arguments, tensors, what, None)[1]

    def _call(
        self,
        stage: str,
        arguments: Mapping[str, Any],
        tensors: Tensors | None,
        what: str,
        timeout: float | None,
    ) -> tuple[Any, Tensors]:
        try:
            return self._child.call(
                f"edgeattn_converters.worker.tasks:{stage}", arguments, tensors, timeout=timeout
            )
        except WorkerDied as error:
            raise ConversionError(
                f"The process for {what} {error.message}.{_memory(error.message)}"
            ) from error


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _memory(message: str) -> str:
    return " The machine may have run out of memory." if "SIGKILL" in message else ""
