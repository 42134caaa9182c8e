"""Pools of boards, on which the passing artifacts of a sweep are measured and validated.

A board is a Dask worker with one thread and one unit of a resource named as its pool, so it has one
job at a time. The worker runs on a gateway, which reaches the board over ssh.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeattn import progress
from edgeattn.benchmark.board import BoardAddress, check_board
from edgeattn.cluster.libraries import DASK, require
from edgeattn.cluster.scheduler import connect
from edgeattn.errors import DeviceError, EdgeattnError, UsageError
from edgeattn_converters.sweep.device_jobs import TABLE, jobs_for, measured_rows, to_parquet
from edgeattn_converters.sweep.store import Document, Store

if TYPE_CHECKING:
    from edgeattn_converters.sweep.table import Row

# Boards that may be lost during one job before the job is at fault.
ATTEMPTS = 2
# Seconds between looks at which boards are left.
POLL_S = 5.0
# Seconds to wait for boards that join a scheduler.
JOIN_S = 30.0
_JOINED = "dask worker ADDRESS --nthreads 1 --no-nanny --resources {name}=1 --preload "
JOIN = _JOINED + "edgeattn_converters.sweep.board_worker --board USER@HOST"


@dataclass(frozen=True)
class Pool:
    """Boards of one kind. Without ``boards``, those that joined the scheduler by themselves."""

    name: str
    boards: tuple[BoardAddress, ...] = ()


@dataclass(frozen=True)
class DeviceSummary:
    """What was measured.

    Attributes:
        rows: The rows of the table.
        lost: Why a board was removed from its pool, by its address.
        errors: Why a model was not measured, by model and pool.
    """

    rows: tuple[Row, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"rows": len(self.rows), "lost": dict(self.lost), "errors": dict(self.errors)}


class BoardPools:
    """Pools of boards, on a local scheduler or on the one at the address ``scheduler``."""

    def __init__(self, pools: Sequence[Pool], scheduler: str | None) -> None:
        require(*DASK, purpose="--device")
        self._pools, self._scheduler = tuple(pools), scheduler
        self._lost: dict[str, str] = {}

    def check(self) -> None:
        """Remove boards that do not respond; :class:`DeviceError` if none of a pool is left."""
        self._pools, self._lost = check_pools(self._pools)
        if self._scheduler is not None:
            with connected_pools(self._pools, self._scheduler) as client:
                wait_for_boards(client, [pool.name for pool in self._pools])

    def measure(self, rows: Sequence[Row], results: str) -> DeviceSummary:
        """Measure what passes on each pool, unless the results are in the store already."""
        jobs = jobs_for(rows, [pool.name for pool in self._pools], results)
        with connected_pools(self._pools, self._scheduler) as client:
            return measure_on_boards(jobs, client, results, self._lost)


def parse_pools(
    values: Sequence[str], python: str | None, config: Path | None, *, scheduler: bool
) -> tuple[Pool, ...]:
    """The pools of ``--device NAME=USER@HOST,...``, or of ``--device NAME`` with a scheduler."""
    from edgeattn.targets.ssh import parse_destination

    pools = []
    for value in values:
        name, equals, hosts = value.partition("=")
        if not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(
                f"--device {value}: {name!r} is no name of a pool.",
                hint="Example: --device pi5=pi@pi5-1.local,pi@pi5-2.local",
            )
        if bool(equals) == scheduler:
            raise UsageError(
                f"--device {value}: "
                + (
                    "boards join the scheduler, they are not listed."
                    if scheduler
                    else "no boards are listed."
                ),
                hint=f"Let each join with: {JOIN.format(name=name)}"
                if scheduler
                else f"List them: --device {name}=USER@HOST,USER@HOST",
            )
        boards = tuple(
            BoardAddress(parse_destination(host), python, config)
            for host in hosts.split(",")
            if equals
        )
        pools.append(Pool(name, boards))
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise UsageError("--device: a pool occurs twice.", hint="List its boards in one option.")
    return tuple(pools)


def check_pools(pools: Sequence[Pool]) -> tuple[tuple[Pool, ...], dict[str, str]]:
    """The pools without boards that do not respond, and the reasons.

    Raises :class:`DeviceError` if no board of a pool is left.
    """
    lost, remaining = {}, []
    for pool in pools:
        boards = []
        for address in pool.boards:
            try:
                check_board(address, ())
                boards.append(address)
            except DeviceError as error:
                lost[address.destination] = error.message
        if pool.boards and not boards:
            reasons = "; ".join(lost[address.destination] for address in pool.boards)
            raise DeviceError(
                f"No board of {pool.name} responds: {reasons}",
                hint="Check a board: edgeattn doctor USER@HOST",
            )
        remaining.append(Pool(pool.name, tuple(boards)))
    return tuple(remaining), lost


def measure(job: Mapping[str, Any]) -> Document:
    """On a worker: the document of a job, or why the board of this worker is lost."""
    from distributed import get_worker

    worker: Any = get_worker()
    address: BoardAddress = worker.edgeattn_board
    # Dask may start another job before the worker is retired: the board gets no second one.
    known = getattr(worker, "edgeattn_lost", None)
    lost = {"lost": address.destination, "worker": worker.address, "reason": known}
    if known is not None:
        return {**lost, "ran": False}
    try:
        rows = measured_rows(job, address)
    except DeviceError as error:
        worker.edgeattn_lost = error.message
        return {**lost, "ran": True, "reason": error.message}
    return {"key": job["key"], "status": "measured", "rows": rows}


@contextlib.contextmanager
def connected_pools(pools: Sequence[Pool], scheduler: str | None) -> Iterator[Any]:
    """A client of a scheduler whose workers are the boards; without one, of a local scheduler."""
    from distributed import Client, Scheduler, SpecCluster, Worker

    if scheduler is not None:
        # distributed.wait needs a current client.
        with connect(scheduler) as client, client.as_current():
            yield client
        return
    workers = {
        f"{pool.name} {address.destination}": {
            "cls": Worker,
            "options": {
                "nthreads": 1,
                "resources": {pool.name: 1},
                "preload": ["edgeattn_converters.sweep.board_worker"],
                "preload_argv": [_arguments(address)],
            },
        }
        for pool in pools
        for address in pool.boards
    }
    local = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False},
    }
    with (
        SpecCluster(workers, local, silence_logs=logging.ERROR) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(len(workers))
        yield client


def wait_for_boards(client: Any, names: Sequence[str]) -> None:
    """Wait for a board of each pool; :class:`DeviceError` if none joins within :data:`JOIN_S`."""
    end = time.monotonic() + JOIN_S
    while missing := set(names) - _resources(client):
        if time.monotonic() > end:
            name = sorted(missing)[0]
            raise DeviceError(
                f"No board has joined the scheduler as {name}.",
                hint=f"Let each join with: {JOIN.format(name=name)}",
            )
        progress.report(f"waiting for boards: {', '.join(sorted(missing))}")
        time.sleep(0.5)


def _resources(client: Any) -> set[str]:
    """The names of the pools that have boards."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {name for worker in workers for name in worker["resources"]}


def _arguments(address: BoardAddress) -> list[str]:
    return [
        *("--board", address.destination, "--board-checked"),
        *([] if address.python is None else ["--board-python", address.python]),
        *([] if address.config is None else ["--board-ssh-config", str(address.config)]),
    ]


def measure_on_boards(
    jobs: Sequence[Mapping[str, Any]], client: Any, results: str, lost: Mapping[str, str]
) -> DeviceSummary:
    """Measure the jobs whose results are not in the store, and write the table.

    A board that fails is removed from its pool, and its job runs on another one. ``lost`` are the
    boards that were removed before.
    """
    store = Store(results)
    keys = store.keys()
    documents = {job["key"]: store.document(job["key"]) for job in jobs if job["key"] in keys}
    pending = [job for job in jobs if documents.get(job["key"]) is None]
    all_lost, errors = dict(lost), {}
    if pending:
        with store.exclusive():
            for job, outcome in _outcomes(pending, client, all_lost):
                if isinstance(outcome, str):
                    errors[job["label"]] = outcome
                else:
                    store.write_document(outcome)
                    documents[job["key"]] = outcome
            rows = _rows(jobs, documents)
            store.write(to_parquet(rows), TABLE)
    return DeviceSummary(tuple(_rows(jobs, documents)), all_lost, errors)


def _close_worker(address: str, dask_scheduler: Any) -> None:
    """On the scheduler: end a worker; others get its jobs."""
    dask_scheduler.close_worker(address)


def _rows(jobs: Sequence[Mapping[str, Any]], documents: Mapping[str, Document | None]) -> list[Row]:
    known = [documents.get(job["key"]) for job in jobs]
    return [row for document in known if document is not None for row in document["rows"]]


def _outcomes(
    jobs: Sequence[Mapping[str, Any]], client: Any, lost: dict[str, str]
) -> Iterator[tuple[Mapping[str, Any], Document | str]]:
    """The jobs as they end, each with its document or the reason why it has none."""
    from distributed import wait

    def submit(job: Mapping[str, Any]) -> Any:
        return client.submit(measure, job, resources={job["device"]: 1}, pure=False)

    attempts: dict[str, int] = {}
    futures = {submit(job): job for job in jobs}
    while futures:
        try:
            done = wait(list(futures), timeout=POLL_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        for future in done:
            job = futures.pop(future)
            try:
                outcome: Document = future.result(POLL_S)
            except Exception as error:  # one job must not end the others
                if future.status != "error":
                    # The result was on a worker that has ended: it is computed again.
                    futures[future] = job
                    continue
                message = error.message if isinstance(error, EdgeattnError) else str(error)
                yield job, f"{type(error).__name__}: {message}"
                continue
            if "lost" not in outcome:
                yield job, outcome
                continue
            lost[outcome["lost"]] = outcome["reason"]
            progress.report(f"{outcome['lost']} was removed: {outcome['reason']}")
            # Not retire_workers: it would wait until another worker has the results of this one.
            client.run_on_scheduler(_close_worker, address=outcome["worker"])
            attempts[job["key"]] = attempts.get(job["key"], 0) + outcome["ran"]
            if attempts[job["key"]] < ATTEMPTS:
                futures[submit(job)] = job
            else:
                yield job, f"{ATTEMPTS} boards failed with it: {outcome['reason']}"
        remaining = _resources(client)
        for future, job in list(futures.items()):
            if job["device"] not in remaining:
                del futures[future]
                future.cancel()
                yield job, f"No board of {job['device']} is left."
