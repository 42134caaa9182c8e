"""Loaded by Dask workers in tests: jobs convert nothing, and some kill their worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn_converters.sweep import execution
from edgeattn_converters.sweep.store import Store
from sweep.sweeps import fake_document


def run(job: Mapping[str, Any], results: str) -> list[dict[str, Any]]:
    label = job["label"]
    log = Path(results, "attempts")
    first = not log.exists() or label not in log.read_text().split()
    with log.open("a") as file:
        file.write(f"{label}\n")
    if label == "poison" or (label == "once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    document = fake_document(job["key"], job)
    Store(results).write_document(document)
    return [document]


def dask_setup(_: object) -> None:
    execution.run = run
