"""Sessions in forks of one process, and workers that wait for the next work of their thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeattn.errors import UsageError
from edgeattn.process.kept_worker import KeptWorker, KeptWorkers
from edgeattn.process.worker import Worker, WorkerDiedError

PATHS = filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(PATHS)}
FUNCTIONS = "worker_functions"


@pytest.fixture
def forking() -> Iterator[Worker]:
    with Worker(environment=ENVIRONMENT, preload=(FUNCTIONS, "no_such_module")) as worker:
        yield worker


def number(worker: Worker, function: str) -> int:
    return int(worker.call(f"{FUNCTIONS}:{function}")[0])


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_session_knows_nothing_of_the_sessions_before_it(forking: Worker) -> None:
    """Each is a fork of the same process, which has imported the modules and nothing else."""
    parents, forks = set(), set()
    for _ in range(3):
        assert forking.call(f"{FUNCTIONS}:remember", {"value": 1})[0] == [1]
        assert forking.call(f"{FUNCTIONS}:remember", {"value": 2})[0] == [1, 2]
        with pytest.raises(UsageError):
            forking.call(f"{FUNCTIONS}:raise_error", {"kind": "UsageError"})
        parents.add(number(forking, "parent_id"))
        forks.add(number(forking, "process_id"))
        forking.end_session()
    assert parents == {forking._process.pid}  # type: ignore[union-attr]
    assert len(forks) == 3
    # A session starts when the one before it has ended.
    assert number(forking, "process_id") not in forks
    assert not any(map(alive, forks))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("kill", {"number": signal.SIGSEGV}, "died of SIGSEGV"),
        ("kill", {"number": signal.SIGKILL}, "died of SIGKILL"),
        ("exit_with", {"status": 3}, "ended with exit status 3"),
        ("exit_with", {"status": 0}, "ended with exit status 0"),
    ],
)
def test_a_fork_that_dies_is_reported_as_the_worker(
    forking: Worker, function: str, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(WorkerDiedError, match=message):
        forking.call(f"{FUNCTIONS}:{function}", arguments)
    assert not forking.running
    forking.end_session()
    # The next session is one of a new process.
    assert forking.call(f"{FUNCTIONS}:remember", {"value": 1})[0] == [1]


def test_the_limit_of_a_call_does_not_include_the_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``slow`` writes a file when it has been imported."""
    end = tmp_path / "end"
    (tmp_path / "slow.py").write_text(
        f"import pathlib, time\ntime.sleep(0.2)\npathlib.Path({str(end)!r}).touch()\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join((str(tmp_path), ENVIRONMENT["PYTHONPATH"]))}
    limits = []
    with Worker(environment=environment, preload=("slow",)) as worker:
        start = worker._watchdog.start
        monkeypatch.setattr(
            worker._watchdog,
            "start",
            lambda seconds: (limits.append((seconds, end.exists())), start(seconds)),
        )
        with pytest.raises(WorkerDiedError, match=r"took longer than 0\.05 s"):
            worker.call(f"{FUNCTIONS}:sleep", {"seconds": 600}, timeout=0.05)
    assert limits == [(0.05, True)]


def test_a_fork_ends_with_its_process(forking: Worker) -> None:
    fork = number(forking, "process_id")
    forking.close()
    # The kernel ends it when its parent has ended.
    while alive(fork):
        time.sleep(0.01)


def test_an_idle_worker_is_taken_for_its_key_only(worker: Worker) -> None:
    kept = KeptWorker()
    assert kept.take("a") is None
    process = number(worker, "process_id")
    kept.keep(worker, 3600, "a")
    assert kept.take("a") is worker
    assert number(worker, "process_id") == process
    assert kept.take("a") is None
    kept.keep(worker, 3600, "a")
    assert kept.take("b") is None
    assert not worker.running


def test_a_worker_that_died_while_it_was_idle_is_not_taken(worker: Worker) -> None:
    kept = KeptWorker()
    process = number(worker, "process_id")
    kept.keep(worker, 3600)
    os.kill(process, signal.SIGKILL)
    worker._process.wait()  # type: ignore[union-attr]
    assert kept.take() is None


def test_an_idle_worker_ends_after_its_time(worker: Worker) -> None:
    kept = KeptWorker()
    assert number(worker, "process_id")
    kept.keep(worker, 0)
    while worker.running:
        time.sleep(0.01)
    assert kept.take() is None


def test_threads_keep_workers_of_their_own(worker: Worker) -> None:
    kept = KeptWorkers()
    kept.own.keep(worker, 3600)
    taken: list[Worker | None] = []
    thread = threading.Thread(target=lambda: taken.append(kept.own.take()))
    thread.start()
    thread.join()
    assert taken == [None]
    kept.own.close()
