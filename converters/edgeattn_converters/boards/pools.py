"""Pools of boards as workers of a Dask scheduler.

A board is a Dask worker with one thread and one unit of a resource named as its pool, so it has one
job at a time. The worker runs on a gateway, which reaches the board over ssh.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.benchmark.board import BoardAddress, check_board
from edgeattn.cluster.scheduler import connect
from edgeattn.errors import DeviceError, UsageError

# Seconds to wait for boards that join a scheduler.
JOIN_S = 30.0
_JOINED = "dask worker ADDRESS --nthreads 1 --no-nanny --resources {name}=1 --preload "
# By default, workers and the HTTP server of a scheduler listen on all interfaces.
_LOOPBACK = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
JOIN = _JOINED + "edgeattn_converters.boards.worker --board USER@HOST"


@dataclass(frozen=True)
class Pool:
    """Boards of one kind. Without ``boards``, those that joined the scheduler by themselves.

    ``minimum`` is the number of boards that must have joined at the start.
    """

    name: str
    boards: tuple[BoardAddress, ...] = ()
    minimum: int = 1

    @property
    def join_hint(self) -> str:
        return f"Let each board join with: {JOIN.format(name=self.name)}"


def parse_pools(
    values: Sequence[str], python: str | None, config: Path | None, *, scheduler: bool
) -> tuple[Pool, ...]:
    """The pools of ``--device NAME=USER@HOST,...``.

    With a scheduler, those of ``--device NAME`` or ``--device NAME=COUNT``.
    """
    for option, value in (("--python", python), ("--ssh-config", config)):
        if scheduler and value is not None:
            raise UsageError(
                f"{option} has no effect with --scheduler: gateways reach the boards.",
                hint=f"Pass --board-{option.removeprefix('--')} to dask worker.",
            )
    pools = [_parse_pool(value, python, config, scheduler=scheduler) for value in values]
    for kind, names in (
        ("pool", [pool.name for pool in pools]),
        ("board", [board.destination for pool in pools for board in pool.boards]),
    ):
        name, count = Counter(names).most_common(1)[0] if names else ("", 0)
        if count > 1:
            raise UsageError(
                f"--device: the {kind} {name} occurs twice.",
                hint="List all boards of a pool in one option, and each board once.",
            )
    return tuple(pools)


def _parse_pool(value: str, python: str | None, config: Path | None, *, scheduler: bool) -> Pool:
    from edgeattn.targets.ssh import parse_destination

    name, equals, rest = value.partition("=")
    is_count = rest.isascii() and rest.isdecimal()
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"--device {value}: {name!r} is no name of a pool.",
            hint="Example: --device pi5=pi@pi5-1.local,pi@pi5-2.local",
        )
    if scheduler:
        pool = Pool(name)
        if not equals:
            return pool
        if not is_count:
            raise UsageError(
                f"--device {value}: boards join the scheduler, they are not listed.",
                hint=pool.join_hint,
            )
        if int(rest) < 1:
            raise UsageError(f"--device {value}: expected at least one board.")
        return replace(pool, minimum=int(rest))
    if not equals or is_count:
        raise UsageError(
            f"--device {value}: no boards are listed.",
            hint=f"List them: --device {name}=USER@HOST,USER@HOST",
        )
    return Pool(
        name, tuple(BoardAddress(parse_destination(x), python, config) for x in rest.split(","))
    )


def check_pools(
    pools: Sequence[Pool], formats: Sequence[str] = ()
) -> tuple[tuple[Pool, ...], dict[str, str]]:
    """The pools without boards that do not respond, and the reasons.

    Raises :class:`DeviceError` if no board of a pool is left, and
    :class:`RuntimeUnavailableError` if one cannot run files of all ``formats``.
    """
    lost, remaining = {}, []
    for pool in pools:
        boards = []
        for address in pool.boards:
            try:
                check_board(address, formats)
                boards.append(address)
            except DeviceError as error:
                lost[address.destination] = error.message
        if pool.boards and not boards:
            reasons = "; ".join(lost[address.destination] for address in pool.boards)
            raise DeviceError(
                f"No board of {pool.name} responds: {reasons}",
                hint="Check a board: edgeattn doctor USER@HOST",
            )
        remaining.append(replace(pool, boards=tuple(boards)))
    return tuple(remaining), lost


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
                **_LOOPBACK,
                "nthreads": 1,
                "resources": {pool.name: 1},
                "preload": ["edgeattn_converters.boards.worker"],
                "preload_argv": [_arguments(address)],
            },
        }
        for pool in pools
        for address in pool.boards
    }
    local = {
        "cls": Scheduler,
        "options": {**_LOOPBACK, "port": 0, "dashboard": False},
    }
    with (
        SpecCluster(workers, local, silence_logs=logging.ERROR) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(len(workers))
        yield client


def _arguments(address: BoardAddress) -> list[str]:
    return [
        *("--board", address.destination, "--board-checked"),
        *([] if address.python is None else ["--board-python", address.python]),
        *([] if address.config is None else ["--board-ssh-config", str(address.config)]),
    ]


def wait_for_boards(client: Any, pools: Sequence[Pool]) -> None:
    """Wait for the boards of each pool to join the scheduler, and check them.

    Raises :class:`DeviceError` if too few have joined after :data:`JOIN_S`, and
    :class:`UsageError` if a worker has the resource of a pool and no board, or two have the same.
    """
    end = time.monotonic() + JOIN_S
    joined = workers_by_pool(client)
    while missing := [pool for pool in pools if len(joined.get(pool.name, ())) < pool.minimum]:
        if time.monotonic() > end:
            pool = missing[0]
            count = len(joined.get(pool.name, ()))
            which = "No board has" if not count else f"{count} of {pool.minimum} boards have"
            raise DeviceError(f"{which} joined the scheduler as {pool.name}.", hint=pool.join_hint)
        progress.report(f"waiting for boards: {', '.join(pool.name for pool in missing)}")
        time.sleep(0.5)
        joined = workers_by_pool(client)
    _check_joined(client, pools, joined)


def _check_joined(client: Any, pools: Sequence[Pool], joined: dict[str, list[str]]) -> None:
    seen: dict[str, str] = {}
    for pool in pools:
        boards = client.run(_board_of_worker, workers=joined[pool.name])
        for worker, board in boards.items():
            if board is None:
                raise UsageError(
                    f"The Dask worker {worker} has the resource {pool.name} and no board.",
                    hint=f"Start it with: {JOIN.format(name=pool.name)}",
                )
            if board in seen:
                raise UsageError(
                    f"The Dask workers {seen[board]} and {worker} have the same board, {board}.",
                    hint="End one of them: they would measure at the same time.",
                )
            seen[board] = worker


def _board_of_worker(dask_worker: Any) -> str | None:
    """On a worker: how its board is reached."""
    address: BoardAddress | None = getattr(dask_worker, "edgeattn_board", None)
    return None if address is None else address.destination


def workers_by_pool(client: Any) -> dict[str, list[str]]:
    """The addresses of the workers by each of their resources."""
    workers: dict[str, list[str]] = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        for name in worker["resources"]:
            workers.setdefault(name, []).append(address)
    return workers
