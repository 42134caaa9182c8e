"""A Dask scheduler on the loopback interface, and workers of it, as processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DASK = [sys.executable, "-m", "dask"]


@dataclass
class DaskCluster:
    """A scheduler and workers; a worker that dies is restarted by its nanny."""

    folder: Path
    preload: Path | None = None
    address: str = "tcp://127.0.0.1:0"
    scheduler: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    workers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_scheduler(self) -> None:
        """Start it, at the same port as before if there was one."""
        port = self.address.rpartition(":")[2]
        arguments = [*DASK, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
        self.address = self._start(self.scheduler, arguments, r"(tcp://127[\d.:]+)")[1]

    def start_workers(self, count: int) -> None:
        arguments = [*DASK, "worker", self.address, "--nworkers", str(count), "--nthreads", "1"]
        arguments += ["--no-dashboard", "--host", "127.0.0.1", "--local-directory", "."]
        if self.preload is not None:
            arguments += ["--preload", str(self.preload)]
        self._start(self.workers, arguments, r"(?s)" + r".*Registered to" * count)

    def kill_scheduler(self) -> None:
        """As a power cut ends it."""
        process = self._processes[0]
        process.kill()
        process.wait()
        self.scheduler.close()
        self._processes.remove(process)

    def _start(
        self, stack: contextlib.ExitStack, arguments: list[str], ready: str
    ) -> re.Match[str]:
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())}
        file = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            arguments, cwd=self.folder, stdout=file, stderr=file, env=environment
        )
        self._processes.append(process)
        stack.callback(_end, process)
        end = time.monotonic() + 300
        while not (match := re.search(ready, log.read_text())):
            assert time.monotonic() < end, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        return match


def _import_path() -> list[str]:
    tests = Path(__file__).parent
    return [str(path) for path in (tests, tests / "converters", *map(Path, filter(None, sys.path)))]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    process.kill()
    process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int, preload: Path | None = None) -> Iterator[DaskCluster]:
    """A cluster whose logs are in ``folder``; every worker loads the module ``preload``."""
    folder.mkdir()
    cluster = DaskCluster(folder, preload)
    with cluster.scheduler, cluster.workers:
        cluster.start_scheduler()
        if workers:
            cluster.start_workers(workers)
        yield cluster
