"""The passing artifacts of a sweep, measured and validated on pools of boards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeattn.benchmark.board import BoardAddress
from edgeattn.cluster.libraries import DASK, require
from edgeattn.errors import DeviceError, EdgeattnError
from edgeattn_converters.boards.calls import BoardCall, run_on_boards
from edgeattn_converters.boards.pools import Pool, check_pools, connected_pools, wait_for_boards
from edgeattn_converters.sweep.device_jobs import TABLE, jobs_for, measured_rows, to_parquet
from edgeattn_converters.sweep.store import Document, Store

if TYPE_CHECKING:
    from edgeattn_converters.sweep.table import Row


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
                wait_for_boards(client, self._pools)

    def measure(self, rows: Sequence[Row], results: str) -> DeviceSummary:
        """Measure what passes on each pool, unless the results are in the store already."""
        jobs = jobs_for(rows, [pool.name for pool in self._pools], results)
        with connected_pools(self._pools, self._scheduler) as client:
            return measure_on_boards(jobs, client, results, self._lost)


def measure_on_boards(
    jobs: Sequence[Mapping[str, Any]], client: Any, results: str, lost: Mapping[str, str]
) -> DeviceSummary:
    """Measure the jobs whose results are not in the store, and write the table.

    ``lost`` are the boards that were removed before.
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


def _rows(jobs: Sequence[Mapping[str, Any]], documents: Mapping[str, Document | None]) -> list[Row]:
    known = [documents.get(job["key"]) for job in jobs]
    return [row for document in known if document is not None for row in document["rows"]]


def _outcomes(
    jobs: Sequence[Mapping[str, Any]], client: Any, lost: dict[str, str]
) -> Iterator[tuple[Mapping[str, Any], Document | str]]:
    """The jobs as they end, each with its document or the reason why it has none."""
    calls = [BoardCall(job["device"], measure, job) for job in jobs]
    for ended in run_on_boards(calls, client, lost):
        error = ended.error
        if error is None:
            yield ended.call.argument, ended.value
        elif isinstance(error, DeviceError):
            yield ended.call.argument, error.message
        else:
            message = error.message if isinstance(error, EdgeattnError) else str(error)
            yield ended.call.argument, f"{type(error).__name__}: {message}"


def measure(job: Mapping[str, Any], address: BoardAddress) -> Document:
    """On a gateway: the document of a job."""
    return {"key": job["key"], "status": "measured", "rows": measured_rows(job, address)}
