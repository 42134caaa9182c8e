"""A bundle that answers requests, each in its own context: no smoothing, states start with zeros.

The runtime is in a worker process, which is started again if it crashes or exceeds its time.
"""

import functools
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.manifest import Artifact
from edgeattn.bundle.signing import open_signed
from edgeattn.errors import ArtifactError, SampleError
from edgeattn.frontend.description import FrontEnd
from edgeattn.inference.load import first_available
from edgeattn.inference.raw import RawModel
from edgeattn.inference.raw_stream import read_sound
from edgeattn.process.limits import RunLimits, limited_to
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.runners.isolated import IsolatedRunner
from edgeattn.samples.finite import check_outputs
from edgeattn.samples.states import sample_inputs, with_initial_states
from edgeattn.serving.http_error import HttpError, busy
from edgeattn.tensors import Tensors


@dataclass(frozen=True)
class ServeOptions:
    """What is served, and the limits of requests.

    ``seconds`` limits the time of a request, ``max_bytes`` the size of its body, ``max_requests``
    the number of requests that wait or run. ``memory`` is that of the runtime's process, in bytes.
    """

    formats: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    threads: int = 1
    allowed_signers: Path | None = None
    seconds: float = 10.0
    max_bytes: int = 2**20
    max_requests: int = 8
    memory: int | None = None


class ServedModel:
    """One version of a bundle in a worker process. Threads share it; samples run one at a time."""

    def __init__(self, path: Path, options: ServeOptions) -> None:
        """Raises the errors of :meth:`Bundle.open` and of loading an artifact."""
        signers = options.allowed_signers
        progress.report(f"reading {path.name}")
        self.bundle = Bundle.open(path) if signers is None else open_signed(path, signers)
        self._options = options
        self.front_end = self.bundle.front_end() or FrontEnd()
        self._lock = threading.Lock()
        self._worker = Worker()
        try:
            self._runner = self._load(self.bundle.select(options.formats, options.schemes))
            self.artifact, self.runtime = self._runner.artifact, self._runner.runtime
            self._raw_model(0.0)  # raises BundleError if the front end does not fit
        except BaseException:
            self._worker.close()
            raise

    def answer(self, sample: Any, deadline: float) -> dict[str, Any]:
        """The answer to one raw sample, or the outputs by name if the bundle has no answer.

        Bytes are those of a ``.wav`` file with the sound of one sample.
        ``deadline`` is a time of :func:`time.monotonic`. Raises :class:`SampleError` if the sample
        does not fit, :class:`ArtifactError` if the runtime fails, and :class:`HttpError` if there
        is no time.
        """
        names = [spec.name for spec in sample_inputs(self.artifact.inputs)]
        if isinstance(sample, bytes):
            sample = read_sound(sample, self.front_end)
        if isinstance(sample, dict):
            for name in sample:
                if name not in names:
                    raise SampleError(
                        f"The model has no input {name!r}.", hint=f"Its inputs: {', '.join(names)}."
                    )
        return self._raw_model(deadline).answer(sample)

    def close(self) -> None:
        """End the worker process."""
        self._worker.close()

    def _raw_model(self, deadline: float) -> RawModel:
        # A new one for each sample: smoothing must not connect the requests of several clients.
        run = functools.partial(self._run, deadline)
        return RawModel(self.front_end, self.artifact.inputs, self.artifact.attention, run)

    def _run(self, deadline: float, inputs: Tensors) -> Tensors:
        if not self._lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise busy("The model did not become free within the time limit.")
        try:
            if self._runner.lost:
                self._runner = self._load((self.artifact,))
            with limited_to(RunLimits(self._options.seconds, self._options.memory)):
                outputs = self._runner.run(with_initial_states(inputs, self.artifact.inputs))
        except ArtifactError as error:
            if isinstance(error.__cause__, WorkerDiedError) and error.__cause__.timed_out:
                raise time_limit_exceeded(self._options.seconds) from error
            raise
        finally:
            self._lock.release()
        try:
            check_outputs(outputs, self.artifact.outputs)
        except ArtifactError as error:
            raise ArtifactError(error.message, hint="Check it with: edgeattn validate") from error
        return outputs

    def _load(self, candidates: tuple[Artifact, ...]) -> IsolatedRunner:
        def start(item: Artifact) -> IsolatedRunner:
            progress.report(f"loading {item.path}")
            threads = self._options.threads
            return IsolatedRunner(self.bundle.path, item, self._worker, threads=threads)

        with limited_to(RunLimits(memory=self._options.memory)):
            return first_available(candidates, start)


def time_limit_exceeded(seconds: float) -> HttpError:
    return HttpError(
        504,
        f"The request took longer than {seconds:g} s.",
        hint="Send fewer samples, or start the service with a larger --timeout.",
    )
