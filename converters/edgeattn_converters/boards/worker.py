"""A board joins a Dask scheduler: a preload module of ``dask worker`` on a gateway.

    dask worker tcp://HOST:8786 --nthreads 1 --no-nanny --resources pi5=1 \\
        --preload edgeattn_converters.boards.worker --board pi@pi5-1.local

The board needs only the light half of edgeattn and sshd. ``pi5`` is the name of its pool.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeattn.benchmark.board import BoardAddress, check_board
from edgeattn.errors import UsageError


@click.command()
@click.option("--board", required=True, metavar="USER@HOST")
@click.option("--board-python", metavar="PATH")
@click.option("--board-ssh-config", type=click.Path(path_type=Path))
@click.option("--board-checked", is_flag=True)
def dask_setup(
    worker: Any,
    board: str,
    board_python: str | None,
    board_ssh_config: Path | None,
    board_checked: bool,
) -> None:
    """Let ``worker`` run jobs on a board; raises :class:`DeviceError` if it does not respond."""
    if worker.state.nthreads != 1:
        # Jobs that run at the same time on one board would measure each other.
        raise UsageError(
            f"The Dask worker of {board} has {worker.state.nthreads} threads.",
            hint="Pass --nthreads 1.",
        )
    address = BoardAddress(board, board_python, board_ssh_config)
    if not board_checked:
        check_board(address, ())
    worker.edgeattn_board = address
