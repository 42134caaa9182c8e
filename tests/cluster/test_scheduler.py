"""The workers of a Dask scheduler: versions, workers that die, and a scheduler that restarts."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dask_cluster import dask_cluster

from edgeattn.errors import DeviceError, EdgeattnError, UsageError

pytest.importorskip("distributed", reason="dask is not installed")

from cluster.worker_calls import blocked, echo

from edgeattn.cluster import scheduler
from edgeattn.cluster.scheduler import Cluster, common_versions, open_cluster


class FakeClient:
    """A client whose scheduler and workers report these versions."""

    def __init__(self, scheduler: str, *edgeattn: str, name: str = "edgeattn") -> None:
        self._scheduler, self._edgeattn, self._name = scheduler, edgeattn, name

    def get_versions(self, **_: object) -> dict[str, Any]:
        same = {"packages": {"distributed": "2"}}
        return {
            "client": same,
            "scheduler": {"packages": {"distributed": self._scheduler}},
            "workers": {f"w{index}": same for index, _ in enumerate(self._edgeattn)},
        }

    def run(self, _: object) -> dict[str, dict[str, str]]:
        return {f"w{index}": {self._name: item} for index, item in enumerate(self._edgeattn)}


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (FakeClient("1", "1"), "the scheduler has distributed 1, and this process has 2"),
        (FakeClient("2", "1", "2"), "different versions of edgeattn: 1 on w0, 2 on w1"),
        (
            FakeClient("2", "a", "b", name="edgeattn source"),
            "different versions of edgeattn source: a on w0, b on w1",
        ),
        (FakeClient("2"), "has no workers"),
    ],
)
def test_other_versions(client: FakeClient, message: str) -> None:
    with pytest.raises(EdgeattnError, match=message):
        common_versions(client)
    assert common_versions(FakeClient("2", "1", "1")) == {"edgeattn": "1"}


def test_other_versions_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster.__new__(Cluster)
    cluster.versions, cluster._client = {"edgeattn": "1"}, FakeClient("2", "2")
    with pytest.raises(UsageError, match="edgeattn was 1 on the Dask workers, and is 2 since"):
        cluster._check_same_versions()


def wait_for(name: str, log: Path, thread: threading.Thread) -> None:
    while name not in log.read_text().split():
        assert thread.is_alive()
        time.sleep(0.05)


@pytest.mark.long
def test_a_scheduler_that_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {name: (str(tmp_path), name) for name in ("blocked", "first", "second")}
    log = tmp_path / "calls"
    with dask_cluster(tmp_path / "cluster", 1) as dask, open_cluster(dask.address) as cluster:
        assert [item.value for item in cluster.run(echo, {0: (str(tmp_path), "a")})] == ["a"]
        ended: list[Any] = []
        thread = threading.Thread(target=lambda: ended.extend(cluster.run(blocked, calls)))
        thread.start()
        wait_for("blocked", log, thread)
        dask.kill_scheduler()
        (tmp_path / "go").touch()
        dask.start_scheduler()
        dask.start_workers(1)
        thread.join()
        assert sorted((item.item, item.value, item.error) for item in ended) == [
            (name, name, None) for name in ("blocked", "first", "second")
        ]
        assert log.read_text().split().count("blocked") == 2
        # Only now, when nothing responds any more: a busy machine takes longer to connect.
        monkeypatch.setattr(scheduler, "CONNECT_S", 1.0)
        monkeypatch.setattr(scheduler, "RESTART_S", 1.0)
        (tmp_path / "go").unlink()
        calls = {"again": (str(tmp_path), "again")}
        errors: list[Any] = []

        def run() -> None:
            with pytest.raises(DeviceError, match="was lost") as raised:
                list(cluster.run(blocked, calls))
            errors.append(raised.value)

        thread = threading.Thread(target=run)
        thread.start()
        wait_for("again", log, thread)
        dask.kill_scheduler()
        (tmp_path / "go").touch()
        thread.join()
        assert errors[0].exit_code == 5
