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
from edgeattn.cluster.scheduler import Cluster, EndedCall, open_cluster
from edgeattn.cluster.versions import package_versions
from edgeattn.errors import EdgeattnError
from edgeattn_converters.sweep import execution
from edgeattn_converters.sweep.jobs import Job
from edgeattn_converters.sweep.store import Document, Store
from edgeattn_converters.worker import processes


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
            with contextlib.suppress(queue.Empty), processes.kept(end=True):
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
    """The workers of a Dask scheduler. A job that ends all its workers has that as its result."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.count, self.versions = cluster.count, cluster.versions

    def run(
        self, jobs: Sequence[Job], results: str, discarded: Collection[str] = ()
    ) -> Generator[Outcome, None, None]:
        """Run the jobs, and yield their outcomes as they end.

        Stored results whose keys are ``discarded`` are computed again.
        Raises :class:`DeviceError` if the scheduler is lost.
        """
        store = Store(results)
        calls = {index: (job.to_json(discarded), results) for index, job in enumerate(jobs)}
        # Documents are read from the store: the worker that computed them may have died since.
        with contextlib.closing(self._cluster.run(execution.run, calls, values=False)) as ended:
            for item in ended:
                progress.report(jobs[item.item].label)
                yield _outcome_on_dask(jobs[item.item], item, store)


def _outcome_on_dask(job: Job, ended: EndedCall[int], store: Store) -> Outcome:
    """The outcome of a job from the documents in the store."""
    if ended.died:
        reason = EdgeattnError("Every worker that ran this died, also when nothing else ran.")
        bundle = store.document(job.key) or execution.failure(job.key, reason)
        evaluations = [] if bundle["status"] != execution.CONVERTED else job.keys[1:]
        written = [store.document(key) or execution.failure(key, reason) for key in evaluations]
        for document in (bundle, *written):
            store.write_document(document)
        return Outcome(job, (bundle, *written))
    if ended.error is not None:
        error = ended.error
        text = f"{type(error).__name__}: {error}"
        return Outcome(
            job, error=error if isinstance(error, EdgeattnError) else EdgeattnError(text)
        )
    documents = [item for key in job.keys if (item := store.document(key)) is not None]
    missing = None if documents else EdgeattnError(f"No result is in {store.url}.")
    return Outcome(job, documents, missing)


@contextlib.contextmanager
def dask_workers(address: str) -> Iterator[DaskWorkers]:
    """The workers of the scheduler at ``address``; see :func:`open_cluster`."""
    with open_cluster(address) as cluster:
        yield DaskWorkers(cluster)
