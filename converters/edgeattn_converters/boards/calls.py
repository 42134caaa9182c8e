"""Calls on boards of a pool, one a board at a time, of which some boards may fail."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeattn import progress
from edgeattn.benchmark.board import BoardAddress
from edgeattn.errors import DeviceError, UsageError
from edgeattn_converters.boards.pools import JOIN, workers_by_pool

# Boards that may be lost during one call before the call is at fault.
ATTEMPTS = 2
# Seconds between looks at which boards are left.
POLL_S = 5.0


@dataclass(frozen=True, eq=False)
class BoardCall:
    """A call of ``function(argument, address)`` for any board of a pool.

    The function runs on a gateway and raises :class:`DeviceError` if the board fails.
    """

    pool: str
    function: Callable[[Any, BoardAddress], Any]
    argument: Any


@dataclass(frozen=True)
class EndedBoardCall:
    """A call that ended: its value, or its error."""

    call: BoardCall
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class _LostBoard:
    """A board that failed, and whether it did so during this call."""

    destination: str
    worker: str
    reason: str
    during_call: bool


def run_on_boards(
    calls: Sequence[BoardCall], client: Any, lost: dict[str, str]
) -> Iterator[EndedBoardCall]:
    """The calls as they end.

    A board that fails is removed from its pool, and its call runs on another one. It is added to
    ``lost``, with the reason. A call that loses :data:`ATTEMPTS` boards, or for which none is left,
    ends with a :class:`DeviceError`.
    """
    from distributed import wait

    attempts: dict[BoardCall, int] = {}
    futures = {_submit(client, call): call for call in calls}
    while futures:
        try:
            done = wait(list(futures), timeout=POLL_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            done = set()
        for future in done:
            call = futures.pop(future)
            try:
                value = future.result(POLL_S)
            except Exception as error:  # one call must not end the others
                if future.status == "error":
                    yield EndedBoardCall(call, error=error)
                else:
                    # The result was on a worker that has ended: it is computed again.
                    futures[future] = call
                continue
            if not isinstance(value, _LostBoard):
                yield EndedBoardCall(call, value)
                continue
            lost[value.destination] = value.reason
            progress.report(f"{value.destination} was removed: {value.reason}")
            # Not retire_workers: it would wait until another worker has the results of this one.
            client.run_on_scheduler(_close_worker, address=value.worker)
            attempts[call] = attempts.get(call, 0) + value.during_call
            if attempts[call] < ATTEMPTS:
                futures[_submit(client, call)] = call
            else:
                failed = DeviceError(f"{ATTEMPTS} boards failed with it: {value.reason}")
                yield EndedBoardCall(call, error=failed)
        remaining = workers_by_pool(client)
        for future, call in list(futures.items()):
            if call.pool not in remaining:
                del futures[future]
                future.cancel()
                yield EndedBoardCall(call, error=DeviceError(f"No board of {call.pool} is left."))


def _submit(client: Any, call: BoardCall) -> Any:
    with warnings.catch_warnings():
        # Of arguments of many megabytes, the files of a search.
        warnings.simplefilter("ignore")
        return client.submit(_call_on_board, call, resources={call.pool: 1}, pure=False)


def _call_on_board(call: BoardCall) -> Any:
    """On a worker: the value of the call, or why the board of this worker is lost."""
    from distributed import get_worker

    worker: Any = get_worker()
    address: BoardAddress | None = getattr(worker, "edgeattn_board", None)
    if address is None:
        raise UsageError(
            f"The Dask worker {worker.address} has the resource {call.pool} and no board.",
            hint=f"Start it with: {JOIN.format(name=call.pool)}",
        )
    # Dask may start another call before the worker is closed: the board gets no second one.
    known = getattr(worker, "edgeattn_lost", None)
    if known is not None:
        return _LostBoard(address.destination, worker.address, known, during_call=False)
    try:
        return call.function(call.argument, address)
    except DeviceError as error:
        worker.edgeattn_lost = error.message
        return _LostBoard(address.destination, worker.address, error.message, during_call=True)


def _close_worker(address: str, dask_scheduler: Any) -> None:
    """On the scheduler: end a worker; others get its calls."""
    dask_scheduler.close_worker(address)
