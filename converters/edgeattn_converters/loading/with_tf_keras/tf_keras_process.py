"""Calls of the worker process that runs programs and classes of the user with tf_keras."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn.process.worker import SANDBOX, Worker
from edgeattn_converters.loading import config_inspection
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.weights.weights_file import open_weights

ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "1",
    # As in the worker process of a conversion.
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONWARNINGS": "ignore",
    SANDBOX: "1",
}
# What the worker imports in any case.
MODULES = (
    "tensorflow",
    "tf_keras",
    "h5py",
    "edgeattn_converters.loading.with_tf_keras.tf_keras_worker",
)
# Limits of the worker; a model that loads in Keras 3 in minutes is rare.
SECONDS = 900.0
MEMORY = 16 << 30


@dataclass(frozen=True)
class UserProgram:
    """The user's file that a model needs, and what it contains.

    ``script`` is None if there is none. ``function`` is the name of what builds the model; None if
    the script contains classes, and then ``config`` is the architecture in a file of its own, or
    None if the file of the weights contains it.
    """

    script: Path | None
    function: str | None = None
    config: Mapping[str, Any] | None = None

    @property
    def action(self) -> str:
        """What tf_keras does with it, for messages."""
        if self.function is not None:
            return "runs the same program"
        return "loads the same file" + (" with the same classes" if self.script else "")


def version_of(file: ModelFile, program: UserProgram) -> tuple[int, ...]:
    """Return the version that saved a model; ``()`` if it is not known, as in Keras 3."""
    version = config_inspection.version_numbers(file.keras_version)
    config = program.config or file.config
    if not version and config:
        version = config_inspection.version_numbers(config.get("keras_version"))
    if not version and file.kind == "weights-hdf5":
        with open_weights(file) as weights:
            version = weights.version()
    return version


def source_of(file: ModelFile, program: UserProgram) -> dict[str, Any]:
    """Return what the worker needs to load the model; see :func:`.tf_keras_worker.loaded`."""
    return {
        "script": None if program.script is None else str(program.script.resolve()),
        "function": program.function,
        "config": None if program.config is None else json.dumps(program.config),
        "file": str(file.path.resolve()),
        "suffix": _suffix(file),
    }


def call(
    function: str, source: Mapping[str, Any], tensors: Mapping[str, Any]
) -> tuple[Any, Mapping[str, Any]]:
    """Call a function of the worker in a process of its own.

    Raises :class:`WorkerDiedError` if the process ends or takes too long, and
    :class:`EdgeattnError` for what the function raises.
    """
    worker = Worker(environment=ENVIRONMENT)
    try:
        return worker.call(
            function,
            {"source": dict(source)},
            tensors,
            timeout=SECONDS,
            memory=MEMORY if sys.platform == "linux" else None,
        )
    finally:
        worker.close()


def _suffix(file: ModelFile) -> str:
    if file.kind == "saved-model":
        return ""
    if file.kind == "keras-zip":
        return ".keras"
    if file.kind == "weights-hdf5":
        with open_weights(file) as weights:
            return ".h5" if weights.is_layered else ".weights.h5"
    return ".h5"
