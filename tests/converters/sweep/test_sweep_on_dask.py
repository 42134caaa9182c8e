"""Sweeps on the workers of a Dask scheduler, some of which die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep.sweeps import LUONG, WORDS, write_plan

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
pytest.importorskip("distributed", reason="dask is not installed")

from edgeattn_converters.sweep.table import from_parquet

DASK = [sys.executable, "-m", "dask"]
OPTIONS = 'schemes = ["float32"]\nformats = ["tflite"]\n'


@contextlib.contextmanager
def process(folder: Path, *arguments: str, ready: str) -> Iterator[re.Match[str]]:
    """A process, and what ``ready`` matches in its log."""
    log = folder / f"{len(list(folder.iterdir()))}.log"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (
        log.open("wb") as file,
        subprocess.Popen(arguments, cwd=folder, stdout=file, stderr=file, env=environment) as item,
    ):
        try:
            end = time.monotonic() + 120
            while not (match := re.search(ready, log.read_text())):
                assert time.monotonic() < end, log.read_text()
                assert item.poll() is None, log.read_text()
                time.sleep(0.1)
            yield match
        finally:
            item.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                item.wait(20)
            item.kill()


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a scheduler with some workers, each a process that is restarted if it dies."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        arguments = [*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        match = stack.enter_context(process(folder, *arguments, ready=r"(tcp://127[\d.:]+)"))
        address = match[1]
        if workers:
            arguments = [*DASK, "worker", address, "--nworkers", str(workers), "--nthreads", "1"]
            arguments += ["--no-dashboard", "--host", "127.0.0.1"]
            arguments += ["--preload", str(Path(__file__).with_name("dying_worker.py"))]
            ready = r"(?s)" + r".*Registered to" * workers
            stack.enter_context(process(folder, *arguments, ready=ready))
        yield address


def test_a_scheduler_that_does_not_respond(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    from edgeattn_converters.sweep import workers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "CONNECT_S", 1)
        plan = write_plan(tmp_path, f'path = "{LUONG}"')
        result = edgeattn("sweep", plan, "--scheduler", "tcp://127.0.0.1:9")
        assert (result.code, "does not respond" in result.err) == (5, True), result.err
        result = edgeattn("sweep", plan, "--scheduler", "nowhere://x")
        assert (result.code, "tcp://HOST:8786" in result.err) == (2, True), result.err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


class FakeClient:
    """A client whose scheduler and workers report these versions."""

    def __init__(self, scheduler: str, *edgeattn: str) -> None:
        self._scheduler, self._edgeattn = scheduler, edgeattn

    def get_versions(self, **_: object) -> dict[str, Any]:
        same = {"packages": {"distributed": "2"}}
        return {
            "client": same,
            "scheduler": {"packages": {"distributed": self._scheduler}},
            "workers": {f"w{index}": same for index, _ in enumerate(self._edgeattn)},
        }

    def run(self, _: object) -> dict[str, dict[str, str]]:
        return {f"w{index}": {"edgeattn": item} for index, item in enumerate(self._edgeattn)}

    def scheduler_info(self, **_: object) -> dict[str, Any]:
        return {"workers": dict.fromkeys(self._edgeattn)}


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (FakeClient("1", "1"), "the scheduler has distributed 1, and this process has 2"),
        (FakeClient("2", "1", "2"), "different versions of edgeattn: 1 on w0, 2 on w1"),
        (FakeClient("2"), "has no workers"),
    ],
)
def test_other_versions(client: FakeClient, message: str) -> None:
    from edgeattn.errors import EdgeattnError
    from edgeattn_converters.sweep.workers import DaskWorkers

    with pytest.raises(EdgeattnError, match=message):
        DaskWorkers(client)
    assert DaskWorkers(FakeClient("2", "1", "1")).versions == {"edgeattn": "1"}


@pytest.mark.long
def test_workers_that_die(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    """One model kills every worker, another only the first; the others lose and repeat nothing."""
    for name in ("poison", "once", "good", "fine"):
        (tmp_path / f"{name}.h5").write_text(name)
    tables = [f'path = "{name}.h5"' for name in ("poison", "once", "good", "fine")]
    plan = write_plan(tmp_path, *tables, options=OPTIONS)
    with cluster(tmp_path / "cluster", 2) as address:
        result = edgeattn("sweep", plan, "--scheduler", address, "--json")
        assert result.code == 1, result.err
        assert (result.document["done"], result.document["rows"]) == (4, 4)
        rows = from_parquet((tmp_path / "results" / "table.parquet").read_bytes())
        assert [(row["model"], row["status"]) for row in rows] == [
            ("poison", "failed"),
            *((name, "converted") for name in ("once", "good", "fine")),
        ]
        assert rows[0]["reason"] == ("Every worker that ran this died, also when nothing else ran.")
        again = edgeattn("sweep", plan, "--scheduler", address, "--json")
        assert (again.code, again.document["done"], again.document["rows"]) == (1, 0, 4)
    attempts = (tmp_path / "results" / "attempts").read_text().split()
    assert attempts.count("once") == 2
    assert attempts.count("poison") >= 4


@pytest.mark.long
def test_a_sweep_that_is_killed_resumes(tmp_path: Path, edgeattn: Callable[..., Any]) -> None:
    models = [f'path = "{LUONG}"', f'path = "{WORDS}"\ntime_steps = 7']
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        write_plan(tmp_path / name, *models, options=OPTIONS)
    results = tmp_path / "killed" / "results" / "results"
    command = [sys.executable, "-P", "-m", "edgeattn", "sweep", "plan.toml", "--jobs", "1"]
    with subprocess.Popen(command, cwd=tmp_path / "killed") as running:
        end = time.monotonic() + 300
        while not list(results.glob("*.json")):
            assert time.monotonic() < end
            assert running.poll() is None
            time.sleep(0.05)
        running.kill()
    assert not (tmp_path / "killed" / "results" / "table.parquet").exists()
    first = {path.name: path.read_bytes() for path in results.glob("*.json")}
    resumed = edgeattn("sweep", tmp_path / "killed" / "plan.toml", "--json")
    assert (resumed.code, resumed.document["done"]) == (0, 2 - len(first))
    assert {name: (results / name).read_bytes() for name in first} == first
    assert edgeattn("sweep", tmp_path / "whole" / "plan.toml").code == 0
    tables = [
        (tmp_path / name / "results" / "table.parquet").read_bytes() for name in ("killed", "whole")
    ]
    assert tables[0] == tables[1]
    assert json.loads(next(iter(first.values())))["status"] == "converted"
