"""``edgeattn sweep``: from a plan to its table."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgeattn import progress
from edgeattn.errors import EdgeattnError, UsageError
from edgeattn.printable import counted
from edgeattn_converters.sweep.execution import CONVERTED, FAILED
from edgeattn_converters.sweep.jobs import Job, jobs_of, jobs_where
from edgeattn_converters.sweep.plan import read_plan
from edgeattn_converters.sweep.store import TABLE, Document, Store
from edgeattn_converters.sweep.table import Row, is_missing, rows_of, to_parquet
from edgeattn_converters.sweep.workers import DaskWorkers, LocalWorkers, dask_workers

PROPERTIES = ("model", "target", "lowering", "data")
# Results that are read to estimate how long others take.
TIMED = 50


@dataclass(frozen=True)
class SweepOptions:
    """Which part of a plan runs, and where.

    Attributes:
        where: Patterns by property: only bundles that match all of them.
        limit: The largest number of bundles to work on.
        jobs: Bundles in parallel on this machine; None for one per core.
        scheduler: The address of a Dask scheduler.
        retry: Whether results that are failures are computed again.
        dry_run: Whether to compute nothing.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    jobs: int | None = None
    scheduler: str | None = None
    retry: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in self.where:
            if name not in PROPERTIES:
                conversion = name in ("format", "scheme")
                raise UsageError(
                    f"--where {name}: unknown property.",
                    hint="Formats and schemes of a bundle are converted together: change the plan."
                    if conversion
                    else f"Choose one of {', '.join(PROPERTIES)}.",
                )


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep did.

    Attributes:
        results: The URL of the results.
        bundles: Number of bundles in the plan, of those that match ``where``.
        pending: Labels of these bundles whose results were not in the store, in order.
        selected: How many of the pending ones were to be computed, and ``done`` how many were.
        rows: The rows of all bundles whose results are known.
        errors: Errors by label of the bundles that have no result.
        estimate_s: Seconds that the selected bundles may take; None if nothing is known.
        dry_run: Whether nothing was computed.
    """

    results: str
    bundles: int
    pending: tuple[str, ...]
    selected: int
    done: int
    rows: tuple[Row, ...]
    errors: Mapping[str, EdgeattnError]
    estimate_s: float | None
    dry_run: bool

    @property
    def remaining(self) -> int:
        """The number of bundles without a result."""
        return len(self.pending) - self.done

    @property
    def exit_code(self) -> int:
        """The highest of the errors because of which results are missing, 1 for failures, or 0."""
        if self.dry_run:
            return 0
        if self.errors:
            return max(error.exit_code for error in self.errors.values())
        return int(any(row["status"] == FAILED for row in self.rows))


def sweep(url: str, options: SweepOptions = SweepOptions()) -> SweepSummary:
    """Compute the results of a plan that are not in its store, and write the table.

    Raises :class:`UsageError` for an invalid plan, before anything is computed or written.
    """
    plan = read_plan(url)
    with _workers(options) as workers:
        jobs = jobs_of(plan, workers.versions)
        store = Store(plan.results)
        progress.report("reading the results so far")
        keys = store.keys()
        documents = _documents(store, keys, jobs)
        failed: set[str] = set()
        if options.retry:
            failed = {key for key, item in documents.items() if item["status"] == FAILED}
            documents = {key: item for key, item in documents.items() if key not in failed}
        chosen = _unique(jobs_where(jobs, options.where))
        pending = [job for job in chosen if is_missing(job, documents)]
        selected = pending if options.limit is None else pending[: options.limit]
        estimate = _estimate(store, keys, selected, documents, workers.count)
        errors: dict[str, EdgeattnError] = {}
        done = 0
        if not options.dry_run and (selected or _table(jobs, documents) != store.read(TABLE)):
            outcomes = workers.run(selected, plan.results, failed)
            # Closed at once after an interruption, so that no other job starts.
            with store.exclusive(), contextlib.closing(outcomes):
                for outcome in outcomes:
                    if outcome.error is not None:
                        errors[outcome.job.label] = outcome.error
                    documents |= {item["key"]: item for item in outcome.documents}
                    done += outcome.error is None
                    progress.report(f"{done} of {counted(len(selected), 'bundle')}")
                store.write(_table(jobs, documents), TABLE)
    return SweepSummary(
        results=plan.results,
        bundles=len(chosen),
        pending=tuple(job.label for job in pending),
        selected=len(selected),
        done=done,
        rows=tuple(row for job in jobs for row in rows_of(job, documents)),
        errors=errors,
        estimate_s=estimate,
        dry_run=options.dry_run,
    )


@contextlib.contextmanager
def _workers(options: SweepOptions) -> Iterator[LocalWorkers | DaskWorkers]:
    if options.scheduler is None:
        yield LocalWorkers(options.jobs)
        return
    if options.jobs is not None:
        raise UsageError(
            "--jobs has no effect with --scheduler, which has its own workers.", hint="Omit --jobs."
        )
    with dask_workers(options.scheduler) as workers:
        yield workers


def _documents(store: Store, keys: frozenset[str], jobs: Sequence[Job]) -> dict[str, Document]:
    """The results of the jobs that are in the store, by key."""
    wanted = {key for job in jobs for key in job.keys} & keys
    documents = {key: store.document(key) for key in sorted(wanted)}
    return {key: item for key, item in documents.items() if item is not None}


def _unique(jobs: Iterable[Job]) -> list[Job]:
    """One job for each set of results: equal files under two names are converted once."""
    return list({tuple(job.keys): job for job in jobs}.values())


def _table(jobs: Sequence[Job], documents: Mapping[str, Document]) -> bytes:
    return to_parquet([row for job in jobs for row in rows_of(job, documents)])


def _estimate(
    store: Store,
    keys: frozenset[str],
    jobs: Sequence[Job],
    documents: Mapping[str, Document],
    workers: int,
) -> float | None:
    """Seconds that the jobs may take, from the median of results in the store."""
    timed: list[Document | None] = [*documents.values()]
    timed = timed or [store.document(key) for key in sorted(keys)[:TIMED]]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for item in timed:
        if item is not None and "seconds" in item:
            seconds[item["status"] == CONVERTED].append(item["seconds"])
    if not jobs:
        return 0.0
    if not seconds[True]:
        return None
    conversion = statistics.median(seconds[True])
    evaluation = statistics.median(seconds[False] or seconds[True])
    total = sum(
        conversion * (job.key not in documents)
        + evaluation * sum(job.evaluation_key(item) not in documents for item in job.data)
        for job in jobs
    )
    return float(total / min(workers, len(jobs)))
