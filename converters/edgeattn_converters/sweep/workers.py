"""Where jobs run: in threads of this process, or on the workers of a Dask scheduler.

A job starts processes of its own for TensorFlow and for the runtimes, so that one machine needs no
other workers: a local Dask cluster would take time and memory, and change nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn import progress
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn_converters.sweep import execution
from edgeattn_converters.sweep.jobs import Job, package_versions
from edgeattn_converters.sweep.libraries import DASK, require
from edgeattn_converters.sweep.store import Document, Store

# Seconds to wait for a scheduler.
CONNECT_S = 10


@dataclass(frozen=True)
class Outcome:
    """The documents of a job, or the error that prevented them from being stored."""

    job: Job
    documents: Sequence[Document] = ()
    error: EdgeattnError | None = None


class LocalWorkers:
    """Threads of this process."""

    def __init__(self, count: int | None) -> None:
        self.count = count or len(os.sched_getaffinity(0))
        self.versions = package_versions()

    def run(
        self, jobs: Sequence[Job], results: str, discarded: Collection[str] = ()
    ) -> Generator[Outcome, None, None]:
        """Run the jobs, and yield their outcomes as they end.

        Stored results whose keys are ``discarded`` are computed again.
        """
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)

        def work() -> None:
            with contextlib.suppress(queue.Empty):
                while True:
                    job = waiting.get_nowait()
                    with progress.labelled(job.label):
                        ended.put(_outcome(job, job.to_json(discarded), results))

        try:
            for _ in range(min(self.count, len(jobs))):
                # Daemons: an interrupted sweep ends at once, and the processes of its jobs with it.
                context = contextvars.copy_context()
                threading.Thread(target=context.run, args=(work,), daemon=True).start()
            for _ in jobs:
                yield ended.get()
        finally:
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.get_nowait()


def _outcome(job: Job, request: Mapping[str, Any], results: str) -> Outcome:
    try:
        return Outcome(job, execution.run(request, results))
    except EdgeattnError as error:
        return Outcome(job, error=error)
    except Exception as error:  # one job must not end the others
        return Outcome(job, error=EdgeattnError(f"{type(error).__name__}: {error}"))


class DaskWorkers:
    """The workers of a Dask scheduler.

    A job whose worker dies is started again on another, as often as the scheduler allows
    (``distributed.scheduler.allowed-failures``, by default 3 times), and after all others once more
    in the same way, alone. Then its result is that its workers died.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.count = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        self.versions = _common_versions(client)

    def run(
        self, jobs: Sequence[Job], results: str, discarded: Collection[str] = ()
    ) -> Generator[Outcome, None, None]:
        """Run the jobs, and yield their outcomes as they end.

        Stored results whose keys are ``discarded`` are computed again.
        Raises :class:`DeviceError` if the scheduler is lost.
        """
        store = Store(results)
        suspects = []
        for job, error in self._ended(jobs, results, discarded):
            if _workers_died(error):
                suspects.append(job)
            else:
                yield _outcome_on_dask(job, error, store)
        # Dask blames every job that waited on a worker that died. Only one that kills its workers
        # when nothing else runs is at fault.
        for suspect in suspects:
            for job, error in self._ended([suspect], results, discarded):
                yield _outcome_on_dask(job, error, store)

    def _ended(
        self, jobs: Sequence[Job], results: str, discarded: Collection[str]
    ) -> Iterator[tuple[Job, BaseException | None]]:
        """The jobs as they end, with their errors."""
        from distributed import as_completed

        futures = {
            self._client.submit(execution.run, job.to_json(discarded), results, pure=False): job
            for job in jobs
        }
        for future in as_completed(futures):
            progress.report(futures[future].label)
            if future.status == "cancelled":
                raise DeviceError(
                    "The connection to the Dask scheduler was lost.",
                    hint="Results so far are stored. Rerun the command to resume.",
                )
            yield futures[future], future.exception() if future.status == "error" else None


def _workers_died(error: BaseException | None) -> bool:
    """Whether a job failed because all workers that it was sent to died."""
    from distributed.scheduler import KilledWorker

    return isinstance(error, KilledWorker)


def _outcome_on_dask(job: Job, error: BaseException | None, store: Store) -> Outcome:
    """The outcome of a job that ended with ``error``.

    Documents are read from the store: the worker that computed them may have died since.
    """
    if _workers_died(error):
        reason = EdgeattnError("Every worker that ran this died, also when nothing else ran.")
        bundle = store.document(job.key) or execution.failure(job.key, reason)
        evaluations = [] if bundle["status"] != execution.CONVERTED else job.keys[1:]
        written = [store.document(key) or execution.failure(key, reason) for key in evaluations]
        for document in (bundle, *written):
            store.write_document(document)
        return Outcome(job, (bundle, *written))
    if error is not None:
        text = f"{type(error).__name__}: {error}"
        return Outcome(
            job, error=error if isinstance(error, EdgeattnError) else EdgeattnError(text)
        )
    documents = [item for key in job.keys if (item := store.document(key)) is not None]
    missing = None if documents else EdgeattnError(f"No result is in {store.url}.")
    return Outcome(job, documents, missing)


@contextlib.contextmanager
def dask_workers(address: str) -> Iterator[DaskWorkers]:
    """The workers of the scheduler at ``address``.

    Raises :class:`DeviceError` if it does not respond or has no workers, and :class:`UsageError`
    if it or a worker has other versions.
    """
    require(*DASK, purpose="--scheduler")
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_S)
    except ValueError as error:
        raise UsageError(
            f"--scheduler {address}: {error}", hint="Pass an address such as tcp://HOST:8786."
        ) from error
    except (OSError, RuntimeError) as error:
        raise DeviceError(
            f"The Dask scheduler {address} does not respond: {error}",
            hint="Start it with: dask scheduler",
        ) from error
    with client:
        yield DaskWorkers(client)


def _common_versions(client: Any) -> dict[str, str]:
    """The versions on the workers, which must be equal, as those of Dask on all sides."""
    reported = client.get_versions(packages=[])
    sides = {"this process": reported["client"], "the scheduler": reported["scheduler"]}
    sides |= {f"the worker {name}": item for name, item in reported["workers"].items()}
    ours = sides["this process"]["packages"].get("distributed")
    for side, item in sides.items():
        other = (item or {}).get("packages", {}).get("distributed")
        if other != ours:
            raise UsageError(
                f"{side} has distributed {other}, and this process has {ours}.",
                hint="Install the same versions of dask and distributed everywhere.",
            )
    if not reported["workers"]:
        raise DeviceError(
            "The Dask scheduler has no workers.", hint="Start one with: dask worker ADDRESS"
        )
    try:
        versions = client.run(package_versions)
    except ImportError as error:
        raise UsageError(
            f"A Dask worker has no edgeattn: {error}",
            hint="Install it there with: pip install 'edgeattn[cluster,convert]'",
        ) from error
    first_name, first = next(iter(versions.items()))
    for name, other in versions.items():
        for package in sorted({*first, *other}):
            if first.get(package) != other.get(package):
                raise UsageError(
                    f"Dask workers have different versions of {package}: "
                    f"{first.get(package)} on {first_name}, {other.get(package)} on {name}.",
                    hint="Install the same versions on all workers.",
                )
    return dict(first)
