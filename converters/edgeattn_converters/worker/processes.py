"""Worker processes of conversions: one for each, or forks of one that has imported TensorFlow.

The import takes half of the time of the conversion of a small model. A sweep converts many models
one after the other, each in a fork of a process that has imported TensorFlow and nothing else: no
model sees what another one changed, and a crash ends one fork.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from edgeattn.process.kept_worker import KeptWorkers
from edgeattn.process.worker import SANDBOX, Worker

ENVIRONMENT = {
    # The reference is what Keras computes with TensorFlow on the CPU; a GPU has other kernels, and
    # operations of its own.
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONWARNINGS": "ignore",
    # No network, so that nothing in a model file can download anything.
    SANDBOX: "1",
    # Overrides the user's setting, on which the reference must not depend.
    "TF_USE_LEGACY_KERAS": "0",
}
# What the tasks of a conversion import.
MODULES = (
    *(
        "tensorflow",
        "keras",
        "h5py",
        "onnx",
        "onnxruntime",
        "tf2onnx.tfonnx",
        "ai_edge_litert.interpreter",
    ),
    "edgeattn_converters.worker.tasks",
    *("edgeattn_converters.formats.onnx", "edgeattn_converters.formats.tflite"),
)


# Seconds for which a process waits for the next conversion.
IDLE_S = 30.0


class _Kept(KeptWorkers):
    """The process that conversions of this thread take turns in."""

    enabled = False


_kept = _Kept()


def acquire() -> Worker:
    """A worker for a conversion, to be given back with :func:`release`."""
    if not _kept.enabled:
        return Worker(environment=ENVIRONMENT)
    return _kept.own.take() or Worker(environment=ENVIRONMENT, preload=MODULES)


def release(worker: Worker) -> None:
    """End the process of ``worker``, or only its session if this thread keeps a process."""
    if not (_kept.enabled and worker.forks):
        worker.close()
        return
    worker.end_session()
    _kept.own.keep(worker, IDLE_S)


@contextlib.contextmanager
def kept(*, end: bool = False) -> Iterator[None]:
    """Let the conversions of this thread take turns in one process (Linux).

    The process ends after :data:`IDLE_S` without a conversion, and with ``end`` also with this
    context. Inside another one this has no effect.
    """
    if _kept.enabled or sys.platform != "linux":
        yield
        return
    _kept.enabled = True
    try:
        yield
    finally:
        _kept.enabled = False
        if end:
            _kept.own.close()
