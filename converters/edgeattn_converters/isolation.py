"""A conversion stage in a child process.

Converters are native code that crashes, leaks and prints. One child does all the stages of a model,
so that TensorFlow is imported and the model loaded once; when it dies in a stage, that stage has
failed with one readable line, and the next stage gets a new child.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeattn.child import Child, ChildDied
from edgeattn.errors import ConversionError

ENVIRONMENT = {
    # The reference is what Keras computes on TensorFlow; a GPU would give other kernels and
    # operations that only a GPU has.
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONWARNINGS": "ignore",
    # Inputs that Keras writes while it is imported must not depend on who runs it.
    "TF_USE_LEGACY_KERAS": "0",
}


class Host:
    """Calls functions of :mod:`edgeattn_converters.stages` in a child that has TensorFlow."""

    def __init__(self, on_progress: Callable[[str], None] | None = None) -> None:
        self._child = Child(environment=ENVIRONMENT, on_progress=on_progress)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def call(
        self, stage: str, arguments: Mapping[str, Any], *, what: str, timeout: float | None = None
    ) -> Any:
        """The stage's result; :class:`ConversionError` where its process died of ``what``."""
        try:
            return self._child.call(
                f"edgeattn_converters.stages:{stage}", arguments, timeout=timeout
            )[0]
        except ChildDied as error:
            raise ConversionError(
                f"The process for {what} {error.message}.{_memory(error.message)}"
            ) from error


def _memory(message: str) -> str:
    return " The machine may have run out of memory." if "SIGKILL" in message else ""
