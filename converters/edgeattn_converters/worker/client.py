"""Runs conversion tasks in a worker process.

Converters are native code that can crash, leak memory and print. One worker runs all tasks for a
model, so that TensorFlow is imported and the model is loaded once. If the worker dies, the current
task fails with a one-line error, and the next task starts a new worker.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.bundle.model_digest import MAX_FILES
from edgeattn.errors import ConversionError, UnsupportedModelError
from edgeattn.process.worker import Worker, WorkerDiedError
from edgeattn.tensors import Tensors
from edgeattn_converters.options import ConversionOptions, ModelSource, StrPath
from edgeattn_converters.worker import processes

TASKS = "edgeattn_converters.worker.tasks"
# Loading takes seconds. A file that keeps its loader busy for longer than this is rejected.
LOAD_SECONDS = 900.0
# Of processor time.
AUDIT_SECONDS = 30.0
AUDIT_BYTES_PER_SECOND = 10e6
# By the clock, an audit may take this many times as long, on a machine that is busy otherwise.
AUDIT_WAIT = 20.0
_OUT_OF_TIME = "died of SIGXCPU"


class ConversionWorker:
    """Calls the functions of :mod:`edgeattn_converters.worker.tasks` in a worker process."""

    def __init__(self) -> None:
        self._acquired: Worker | None = None

    @property
    def _worker(self) -> Worker:
        if self._acquired is None:
            self._acquired = processes.acquire()
        return self._acquired

    def __enter__(self) -> ConversionWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # Another conversion may have the worker after this.
        worker, self._acquired = self._acquired, None
        if worker is not None:
            processes.release(worker)

    def audit(self, path: Path, trust: str | None) -> None:
        """Audit the file before anything loads it, within a time limit proportional to its size.

        A damaged HDF5 file can keep the HDF5 library in an endless loop. Raises
        :class:`UnsupportedModelError` if the audit does not end, and :class:`ConversionError` if no
        process can be started, or if it waits for something else than the processor.
        """
        progress.report(f"auditing {path.name}")
        seconds = AUDIT_SECONDS + _size(path) / AUDIT_BYTES_PER_SECOND
        arguments = {"path": str(path), "trust": trust, "seconds": seconds}
        try:
            self._worker.call(f"{TASKS}:audit", arguments, timeout=AUDIT_WAIT * seconds)
        except WorkerDiedError as error:
            if not error.started:
                raise ConversionError(
                    f"The worker process {error.message}",
                    hint="Free some memory, or end other processes.",
                ) from error
            if error.timed_out:
                raise ConversionError(
                    f"The audit of {path.name} {error.message}.",
                    hint="Try again when this machine is less busy, or with a copy of the file on "
                    "another disk.",
                ) from error
            died = error.message
            if died == _OUT_OF_TIME:
                died = f"needed more than {seconds:.0f} s of processor time"
            raise UnsupportedModelError(
                f"{path.name} cannot be read: the audit process {died}.",
                hint="The file is damaged: copy the file again, or save the model again in Keras.",
            ) from error

    def check(
        self,
        source: ModelSource,
        options: ConversionOptions,
        *,
        calibration: StrPath | None = None,
        data: StrPath | None = None,
    ) -> None:
        """Audit the model file and report mistakes that need no TensorFlow to find.

        Raises :class:`UsageError` if an option or a file of samples does not fit the stored model.
        """
        self.audit(Path(source.path), source.trust)
        self.call(
            "check",
            {
                "source": source.to_json(),
                "options": options.to_json(),
                "calibration_samples": None if calibration is None else str(calibration),
                "data": None if data is None else str(data),
            },
            activity=f"checking {Path(source.path).name}",
        )

    def prepare(
        self,
        source: ModelSource,
        options: ConversionOptions,
        folder: Path,
        calibration: str | None = None,
        raw: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Audit and load the model, and write its reference to ``folder``.

        Without samples in ``source``, some of the samples in the file ``calibration`` are the
        reference. ``raw`` is a file of the raw inputs of the samples. Returns the manifest's
        entries for the model and for the reference.
        """
        path = Path(source.path)
        self.audit(path, source.trust)
        arguments = {"source": source.to_json(), "options": options.to_json()}
        model = self.call(
            "describe", arguments, activity=f"loading {path.name}", timeout=LOAD_SECONDS
        )
        reference = self.call(
            "write_reference",
            {**arguments, "folder": str(folder), "calibration": calibration, "raw": raw},
            activity="computing the reference",
        )
        model["notes"] += reference.pop("notes")
        return model, reference

    def call(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        activity: str,
        timeout: float | None = None,
        memory: int | None = None,
    ) -> Any:
        """The result of a task, which may use ``memory`` bytes.

        Raises :class:`ConversionError` if the worker dies or runs for more than ``timeout``
        seconds; its message says while which ``activity``, such as "loading model.h5".
        """
        return self._call(task, arguments, None, activity, timeout, memory)[0]

    def predict(
        self,
        source: ModelSource,
        options: ConversionOptions,
        inputs: Tensors,
        maps: Sequence[str] = (),
    ) -> Tensors:
        """The outputs of Keras' ``model.predict`` and the attention maps ``maps``, by name.

        Raises as :meth:`call` does, and :class:`UsageError` if the model has no such map.
        """
        arguments: dict[str, Any] = {"source": source.to_json(), "options": options.to_json()}
        if maps:
            arguments["maps"] = list(maps)
        return self._call("predict", arguments, inputs, "running the model in Keras", None)[1]

    def _call(
        self,
        task: str,
        arguments: Mapping[str, Any],
        tensors: Tensors | None,
        activity: str,
        timeout: float | None,
        memory: int | None = None,
    ) -> tuple[Any, Tensors]:
        progress.report(activity)
        try:
            return self._worker.call(
                f"{TASKS}:{task}", arguments, tensors, timeout=timeout, memory=memory
            )
        except WorkerDiedError as error:
            killed = "SIGKILL" in error.message
            raise ConversionError(
                f"The worker process {error.message} while {activity}.",
                hint="Free some memory; the system may have run out of it." if killed else None,
            ) from error


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    # The audit refuses folders of more files.
    files = itertools.islice(path.rglob("*"), MAX_FILES)
    return sum(file.stat().st_size for file in files if file.is_file())
