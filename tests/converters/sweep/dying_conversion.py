"""Loaded by Dask workers in tests: jobs convert and validate, and some kill their worker.

The model ``once`` kills its first worker after its bundle is stored and before its document is, and
``poison`` kills every worker at once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeattn_converters.sweep import execution
from edgeattn_converters.sweep.store import Store

run_job = execution.run


def run(job: Mapping[str, Any], results: str) -> list[dict[str, Any]]:
    label = job["label"]
    log = Path(results, "attempts")
    log.parent.mkdir(exist_ok=True)
    first = not log.exists() or label not in log.read_text().split()
    with log.open("a") as file:
        file.write(f"{label}\n")
    if label == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if label == "once" and first:
        write_bundle = Store.write_bundle

        def killed(store: Store, key: str, folder: Path) -> None:
            write_bundle(store, key, folder)
            os.kill(os.getpid(), signal.SIGKILL)

        Store.write_bundle = killed
    return run_job(job, results)


def dask_setup(_: object) -> None:
    execution.run = run
