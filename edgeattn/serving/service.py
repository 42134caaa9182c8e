"""The model that is served, and its replacement when its path leads to another bundle."""

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeattn.bundle.manifest import MANIFEST
from edgeattn.errors import EdgeattnError, SampleError, first_line
from edgeattn.serving.counters import Counters
from edgeattn.serving.http_error import HttpError, busy
from edgeattn.serving.model import ServedModel, ServeOptions, time_limit_exceeded

# Seconds until a reload that failed is tried again: the copy of a bundle may be incomplete.
RETRY_SECONDS = 30.0
Log = Callable[[str], None]


class Service:
    """Answers samples with the bundle to which ``path`` leads."""

    def __init__(self, path: Path, options: ServeOptions, log: Log) -> None:
        """Raises the errors of opening the bundle and of loading an artifact."""
        self.options = options
        self.counters = Counters()
        self.draining = False
        self.reload_failed = False
        self._path, self._log = path, log
        # Before the bundle is opened: a link that moves meanwhile leads to a reload.
        self._identity = self._failed = _identity(path)
        self._retry_at = 0.0
        self._model = ServedModel(path, options)
        self._users: Counter[ServedModel] = Counter()
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(options.max_requests)
        self._running = 0

    @property
    def running(self) -> int:
        """The number of requests for answers in progress."""
        return self._running

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request for answers; :class:`HttpError` (503) if there are too many."""
        if self.draining:
            raise busy("The service is ending.")
        if not self._slots.acquire(blocking=False):
            raise busy(f"Requests in progress: {self.options.max_requests}, the limit.")
        try:
            with self._lock:
                self._running += 1
            yield
        finally:
            with self._lock:
                self._running -= 1
            self._slots.release()

    @contextmanager
    def model(self) -> Iterator[ServedModel]:
        """The current model, which is not closed before the block ends."""
        with self._lock:
            model = self._model
            self._users[model] += 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[model] -= 1
                unused = model is not self._model and not self._users[model]
            if unused:
                model.close()

    def answer(self, samples: list[Any], *, several: bool, deadline: float) -> dict[str, Any]:
        """The answer to one sample, or ``{"answers": [...]}`` for several.

        All are of one model. Raises as :meth:`ServedModel.answer`; an error names the sample.
        """
        answers = []
        with self.model() as model:
            for number, sample in enumerate(samples, 1):
                if time.monotonic() > deadline:
                    raise time_limit_exceeded(self.options.seconds)
                try:
                    answers.append(model.answer(sample, deadline))
                except SampleError as error:
                    position = f"Sample {number}: " if several else ""
                    raise HttpError(400, position + error.message, hint=error.hint) from error
        return {"answers": answers} if several else answers[0]

    def describe(self) -> dict[str, str]:
        """The artifact that is served; ``manifest`` is the SHA-256 of the bundle's manifest."""
        with self.model() as model:
            return {
                "format": model.artifact.format,
                "scheme": model.artifact.scheme,
                "runtime": model.runtime,
                "manifest": hashlib.sha256(model.bundle.manifest_bytes()).hexdigest(),
            }

    def reload_if_moved(self) -> None:
        """Load the bundle again if the path leads to another one.

        Requests in progress are finished by the model with which they began. If the new bundle
        cannot be loaded, the old one stays; this is logged and tried again later.
        """
        identity = _identity(self._path)
        if identity is None:
            return
        if identity == self._identity:
            self.reload_failed = False
            return
        if identity == self._failed and time.monotonic() < self._retry_at:
            return
        try:
            model = ServedModel(self._path, self.options)
        except (EdgeattnError, OSError) as error:
            self._failed, self._retry_at = identity, time.monotonic() + RETRY_SECONDS
            self.reload_failed = True
            self.counters.count_reload(success=False)
            self._log(f"The new bundle is refused, the old one still serves: {first_line(error)}")
            return
        with self._lock:
            old, self._model = self._model, model
            unused = not self._users[old]
        self._identity, self.reload_failed = identity, False
        if unused:
            old.close()
        self.counters.count_reload(success=True)
        self._log(f"Loaded {model.bundle.path}: {model.artifact.label} in {model.runtime}")

    def close(self) -> None:
        """End the worker process of the current model."""
        self._model.close()


def _identity(path: Path) -> tuple[str, int, int] | None:
    """Changes if ``path`` leads to another bundle or its manifest is replaced; None if missing."""
    real = os.path.realpath(path)
    file = Path(real, MANIFEST) if Path(real).is_dir() else Path(real)
    try:
        status = file.stat()
    except OSError:
        return None
    return real, status.st_ino, status.st_mtime_ns
