"""Latencies of candidates on one board of a pool; if it fails, on another one.

Latencies of two boards cannot be compared, so one board measures all candidates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn.benchmark.board import BoardAddress, check_board, cool_down
from edgeattn.errors import DeviceError, EdgeattnError
from edgeattn_converters.boards.calls import BoardCall, run_on_boards
from edgeattn_converters.boards.pools import Pool, check_pools, connected_pools, wait_for_boards
from edgeattn_converters.tuning.evaluation import files_without_artifacts
from edgeattn_converters.tuning.latency import (
    Candidates,
    Choice,
    MeasuringDevice,
    choose,
    choose_on_board,
)


@dataclass(frozen=True)
class CheckedPool:
    """A pool of which at least one board runs files of all ``formats``.

    ``scheduler`` is the address of the one that the boards joined, if they did, and ``lost`` has
    the boards that do not respond, with the reasons.
    """

    pool: Pool
    scheduler: str | None
    formats: tuple[str, ...]
    lost: Mapping[str, str]

    def choose(self, candidates: Candidates) -> Choice:
        """Measure the candidates on a cool board of the pool, and choose one.

        Raises :class:`DeviceError` if all boards fail.
        """
        artifacts = candidates.artifacts.values()
        if not artifacts:
            return choose(candidates)
        files = files_without_artifacts(candidates.folder)
        files += tuple((a.path, (candidates.folder / a.path).read_bytes()) for a in artifacts)
        request = _Request(candidates, self.formats, files)
        lost = dict(self.lost)
        choice: Choice = _run(self.pool, self.scheduler, _choose, request, lost)
        return replace(choice, lost=lost)


def check_pool(pool: Pool, scheduler: str | None, formats: tuple[str, ...]) -> CheckedPool:
    """The pool without boards that do not respond.

    Raises :class:`DeviceError` if none is left, and :class:`RuntimeUnavailableError` if one cannot
    run files of all ``formats``.
    """
    if scheduler is None:
        (checked,), lost = check_pools((pool,), formats)
        return CheckedPool(checked, None, formats, lost)
    lost = {}
    _run(pool, scheduler, _check, formats, lost)
    return CheckedPool(pool, scheduler, formats, lost)


def _run(
    pool: Pool, scheduler: str | None, function: Any, argument: Any, lost: dict[str, str]
) -> Any:
    """The value of ``function(argument, address)`` for a board of the pool."""
    with connected_pools((pool,), scheduler) as client:
        if scheduler is not None:
            wait_for_boards(client, (pool,))
        (ended,) = run_on_boards([BoardCall(pool.name, function, argument)], client, lost)
    if ended.error is None:
        return ended.value
    if isinstance(ended.error, DeviceError):
        reasons = "; ".join(f"{board}: {reason}" for board, reason in lost.items())
        raise DeviceError(
            f"No board of {pool.name} has measured: {reasons or ended.error.message}",
            hint="Check the boards: edgeattn doctor USER@HOST. Rerun the command to resume.",
        ) from ended.error
    if isinstance(ended.error, EdgeattnError):
        raise ended.error
    raise EdgeattnError(f"{type(ended.error).__name__}: {ended.error}") from ended.error


@dataclass(frozen=True)
class _Request:
    """Candidates, and the names and contents of their files and of those of the bundle."""

    candidates: Candidates
    formats: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]


def _check(formats: tuple[str, ...], address: BoardAddress) -> None:
    """On a gateway: check that the board runs files of all ``formats``."""
    check_board(address, formats)


def _choose(request: _Request, address: BoardAddress) -> Choice:
    """On a gateway: measure on the board once it is cool."""
    device = check_board(address, request.formats)
    cool_down(address)
    with tempfile.TemporaryDirectory(prefix="edgeattn-tune-") as name:
        for path, content in request.files:
            (Path(name) / path).write_bytes(content)
        candidates = replace(request.candidates, folder=Path(name))
        return choose_on_board(candidates, MeasuringDevice(address, device))
