"""An artifact in a worker process: if it crashes its runtime, the caller gets an error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn.errors import ArtifactError, EdgeattnError
from edgeattn.process.limits import run_limits
from edgeattn.process.worker import Worker, WorkerDiedError

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.runners import Runner
    from edgeattn.tensors import Tensors

RAISE_TIMEOUT = "Raise the limit with --timeout SECONDS if the model needs longer."
RAISE_MEMORY = "Raise the limit with --memory MIB if the model needs more."
# Parts of what runtimes and the worker report if the system gives them no memory.
_NO_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate", "not enough memory")
_ACTIVITIES = {"load": "loading", "run": "running", "unload": "closing"}


class IsolatedRunner:
    """A runner whose runtime is in ``worker``. A worker serves one runner at a time.

    Each call has the limits of :func:`~edgeattn.process.limits.run_limits`.
    """

    def __init__(
        self,
        folder: Path,
        artifact: Artifact,
        worker: Worker,
        *,
        threads: int = 1,
        as_deployed: bool = False,
    ) -> None:
        self.artifact = artifact
        self.inputs, self.outputs = artifact.inputs, artifact.outputs
        self._worker = worker
        self._path = folder / artifact.path
        self._lost = False
        arguments = {
            "path": str(self._path),
            "format": artifact.format,
            "inputs": [spec.to_json() for spec in artifact.inputs],
            "outputs": [spec.to_json() for spec in artifact.outputs],
            "threads": threads,
            "as_deployed": as_deployed,
            "sha256": artifact.sha256,
        }
        if artifact.runtime is not None:
            # Earlier versions on a device do not know the argument.
            arguments["runtime"] = artifact.runtime
        self.runtime = str(self._call("load", arguments)[0])

    @property
    def lost(self) -> bool:
        """Whether the worker died, so that no further call succeeds."""
        return self._lost

    def run(self, tensors: Tensors, batch_sizes: Sequence[int] = ()) -> Tensors:
        arguments = {"batch_sizes": list(batch_sizes)} if batch_sizes else {}
        return self._call("run", arguments, tensors)[1]

    def close(self) -> None:
        if not self._lost:
            self._call("unload", {})

    def _call(
        self, name: str, arguments: dict[str, Any], tensors: Tensors | None = None
    ) -> tuple[Any, Tensors]:
        if self._lost:
            raise ArtifactError(f"{self._path.name} is no longer loaded: its runtime crashed.")
        limits = run_limits()
        try:
            return self._worker.call(
                f"edgeattn.runners.isolated:{name}",
                arguments,
                tensors,
                timeout=limits.seconds,
                memory=limits.memory,
            )
        except WorkerDiedError as error:
            self._lost = True
            advice = f" {RAISE_TIMEOUT}" if error.timed_out else ""
            raise ArtifactError(
                f"The runtime {error.message} while {_ACTIVITIES[name]} {self._path.name}.{advice}"
            ) from error
        except ArtifactError as error:
            if limits.memory is None or not is_out_of_memory(error):
                raise
            raise ArtifactError(
                f"The runtime needs over {limits.memory / 2**20:g} MiB while "
                f"{_ACTIVITIES[name]} {self._path.name}. {RAISE_MEMORY}"
            ) from error
        except EdgeattnError:
            raise
        except BaseException:
            self._lost = True  # Ctrl-C and the like end the worker, too
            raise


def is_out_of_memory(error: EdgeattnError) -> bool:
    return any(text in error.message.lower() for text in _NO_MEMORY)


# In the worker: the loaded artifact, if any.
_runners: dict[str, Runner] = {}


def load(
    path: str,
    format: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
    threads: int,
    as_deployed: bool,
    sha256: str | None = None,
    runtime: str | None = None,
) -> str:
    """In the worker: load an artifact and return the runtime's name and version."""
    from edgeattn.runners import open_runner
    from edgeattn.tensors import TensorSpec

    unload()
    with _memory_errors():
        runner = open_runner(
            Path(path),
            format,
            tuple(TensorSpec.from_json(item) for item in inputs),
            tuple(TensorSpec.from_json(item) for item in outputs),
            threads=threads,
            as_deployed=as_deployed,
            sha256=sha256,
            runtime=runtime,
        )
    _runners["loaded"] = runner
    return runner.runtime


def run(tensors: Tensors, batch_sizes: Sequence[int] = ()) -> tuple[None, Tensors]:
    """In the worker: run the loaded artifact."""
    with _memory_errors():
        return None, _runners["loaded"].run(tensors, batch_sizes)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise ArtifactError("Not enough memory to run this artifact.") from error


def unload() -> None:
    """In the worker: close the loaded artifact."""
    runner = _runners.pop("loaded", None)
    if runner is not None:
        runner.close()
