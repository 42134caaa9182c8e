"""Loaded by Dask workers in tests: the first shard ends its worker."""

import os
import signal

from edgeattn.evaluation.shards import ShardResult
from edgeattn.validation import dask_shards
from edgeattn.validation.dask_shards import ShardRequest

evaluate_request = dask_shards.evaluate_request


def evaluate(request: ShardRequest) -> ShardResult:
    log = request.bundle.parent / "attempts"
    try:
        log.touch(exist_ok=False)
        first = True
    except FileExistsError:
        first = False
    with log.open("a") as file:
        file.write(f"{request.shard.first}\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate_request(request)


def dask_setup(_: object) -> None:
    dask_shards.evaluate_request = evaluate
