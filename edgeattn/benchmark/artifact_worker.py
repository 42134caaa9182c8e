"""A worker process that has loaded one artifact for a benchmark."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.errors import ArtifactError, RuntimeUnavailableError, UsageError
from edgeattn.process.worker import Worker, WorkerDied
from edgeattn.tensors import Tensors

if TYPE_CHECKING:
    from edgeattn.targets.target import Target

# The first samples of the reference, which are ordinary ones, are used as inputs in turn.
INPUT_SAMPLES = 16
TIMEOUT_SECONDS = 300.0


class ArtifactWorker:
    """Loads ``artifact`` in ``worker`` and calls functions of ``edgeattn.benchmark.worker_tasks``.

    A failed call is recorded in ``reason``, and in ``unavailable`` if the runtime is not installed;
    :meth:`call` then returns ``None``. ``cold_start_ms`` is the time from starting the process to
    the first output.
    """

    def __init__(
        self, artifact: Artifact, threads: int, worker: Worker, folder: str, reference: Tensors
    ) -> None:
        self.artifact = artifact
        self.threads = threads
        self.reason: str | None = None
        self.unavailable = False
        self._worker = worker
        inputs = {
            spec.name: reference[f"input/{spec.name}"][:INPUT_SAMPLES] for spec in artifact.inputs
        }
        arguments = {"folder": folder, "artifact": artifact.to_json(), "threads": threads}
        start = time.perf_counter()
        loaded = self.call("load", arguments, inputs)
        duration_ms = (time.perf_counter() - start) * 1e3
        self.cold_start_ms = duration_ms if loaded else None
        self.runtime: str | None = loaded[0]["runtime"] if loaded else None
        self.load_ms: float | None = loaded[0]["load_ms"] if loaded else None

    def call(
        self, function: str, arguments: Mapping[str, Any], tensors: Tensors | None = None
    ) -> tuple[Any, Tensors] | None:
        """Return the result and the arrays of a function, or ``None`` if this artifact failed."""
        if self.reason is not None:
            return None
        try:
            return self._worker.call(
                f"edgeattn.benchmark.worker_tasks:{function}",
                arguments,
                tensors,
                timeout=TIMEOUT_SECONDS + arguments.get("seconds", 0.0),
            )
        except RuntimeUnavailableError as error:
            self.reason, self.unavailable = error.message, True
        except (ArtifactError, UsageError) as error:
            self.reason = error.message
        except WorkerDied as error:
            self.reason = f"The runtime {error.message}."
        return None


def identify_target(bundle: Bundle, target: Target) -> None:
    """Check that ``target`` has the same bundle.

    Raises :class:`BundleError` if it does not, and :class:`DeviceError` if the target does not
    respond.
    """
    from edgeattn.targets.target import identify

    with target.start() as worker:
        identify(target, bundle, worker)
