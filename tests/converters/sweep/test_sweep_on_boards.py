"""The artifacts of a sweep, measured on boards of a pool, some of which fail."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import artifacts
import pytest

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
pytest.importorskip("distributed", reason="dask is not installed")

import psutil
import pyarrow.parquet as pq

from edgeattn.benchmark import board
from edgeattn.benchmark.board import Board, BoardAddress
from edgeattn.benchmark.comparison import Comparison, compare_latencies
from edgeattn.errors import DeviceError, UsageError
from edgeattn.targets.target import Target
from edgeattn_converters.boards import calls
from edgeattn_converters.boards import pools as board_pools
from edgeattn_converters.boards.pools import Pool, check_pools, connected_pools, parse_pools
from edgeattn_converters.boards.worker import dask_setup
from edgeattn_converters.sweep import boards, device_jobs
from edgeattn_converters.sweep.boards import measure_on_boards
from edgeattn_converters.sweep.device_jobs import _places, jobs_for
from edgeattn_converters.sweep.store import Store

KEY = "0" * 64


def row(model="m", format="onnx", scheme="float32", verdict="pass", **others):
    return {
        "model": model,
        "target": None,
        "lowering": "auto",
        "format": format,
        "scheme": scheme,
        "bundle": f"bundles/{KEY}.edge",
        "path": f"{model}.{scheme}.{format}",
        "sha256": "1" * 64,
        "verdict": verdict,
        **others,
    }


def test_options():
    (pool,) = parse_pools(["pi5=pi@a,ssh://pi@b:22"], "env/bin/python", None, scheduler=False)
    assert (pool.name, [board.destination for board in pool.boards]) == (
        "pi5",
        ["pi@a", "ssh://pi@b:22"],
    )
    assert {board.python for board in pool.boards} == {"env/bin/python"}
    assert parse_pools(["pi5"], None, None, scheduler=True) == (Pool("pi5"),)
    assert parse_pools(["pi5=3"], None, None, scheduler=True) == (Pool("pi5", minimum=3),)
    for value, scheduler, message in (
        ("pi5", False, "no boards are listed"),
        ("pi5=3", False, "no boards are listed"),
        ("pi5=pi@a", True, "boards join the scheduler"),
        ("pi5=0", True, "at least one board"),
        ("=pi@a", False, "no name of a pool"),
        ("pi5=", False, "Not a host"),
        ("pi5=pi@a,-oX", False, "Not a host"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_pools([value], None, None, scheduler=scheduler)
    for values, name in ((["a=x", "a=y"], "pool a"), (["a=x,y", "b=x"], "board x")):
        with pytest.raises(UsageError, match=f"the {name} occurs twice"):
            parse_pools(values, None, None, scheduler=False)
    for python, config in (("python", None), (None, Path("config"))):
        with pytest.raises(UsageError, match="no effect with --scheduler") as caught:
            parse_pools(["pi5"], python, config, scheduler=True)
        assert "--board-python" in caught.value.hint or "--board-ssh-config" in caught.value.hint


def test_jobs_have_the_artifacts_that_pass_on_all_datasets():
    rows = [
        row(data="a"),
        row(data="b"),
        row(scheme="int8", data="a"),
        row(scheme="int8", data="b", verdict="fail"),
        row(lowering="fused", bundle="bundles/1.edge"),
        row(model="other"),
        row(model="failed", verdict="fail"),
        {"model": "none", "target": None, "bundle": None, "path": None, "verdict": None},
    ]
    jobs = jobs_for(rows, ["pi4", "pi5"], "results")
    assert [(job["label"], len(job["artifacts"])) for job in jobs] == [
        ("m on pi4", 2),
        ("other on pi4", 1),
        ("m on pi5", 2),
        ("other on pi5", 1),
    ]
    assert len({job["key"] for job in jobs}) == 4
    assert jobs == jobs_for(rows, ["pi4", "pi5"], "results")


def test_places():
    estimates = [(1.0, 0.9, 1.1), None, (1.05, 1.0, 1.2), (2.0, 1.9, 2.1)]
    assert _places(estimates) == [
        "no difference measured",
        None,
        "no difference measured",
        "slower",
    ]
    assert _places(estimates[2:]) == ["fastest", "slower"]
    assert _places([None]) == [None]


def test_boards_that_do_not_respond_are_removed_at_the_start(monkeypatch):
    def check(address, formats):
        if address.destination.startswith("dead"):
            raise DeviceError(f"{address.destination}: no route")

    monkeypatch.setattr(board_pools, "check_board", check)
    pools = (
        Pool("a", (BoardAddress("dead1"), BoardAddress("alive"))),
        Pool("b", (BoardAddress("alive"),)),
    )
    left, lost = check_pools(pools)
    assert left == (Pool("a", (BoardAddress("alive"),)), pools[1])
    assert lost == {"dead1": "dead1: no route"}
    with pytest.raises(DeviceError, match="No board of c responds: dead2: no route"):
        check_pools((Pool("c", (BoardAddress("dead2"),)),))


@pytest.fixture
def fake_boards(monkeypatch):
    """Boards whose jobs are counted; those whose name begins with "dead" fail."""
    running, ran, most = Counter(), [], Counter()
    lock = threading.Lock()

    def measured_rows(job, address):
        name = address.destination
        with lock:
            running[name] += 1
            most[name] = max(most[name], running[name])
        time.sleep(0.02)
        with lock:
            running[name] -= 1
            ran.append((name, job["label"]))
        if name.startswith("dead"):
            raise DeviceError(f"{name}: connection lost")
        return [{**item, "device": job["device"], "board": name} for item in job["artifacts"]]

    monkeypatch.setattr(boards, "measured_rows", measured_rows)
    monkeypatch.setattr(calls, "POLL_S", 0.2)
    return ran, most


def run(tmp_path, pools, count):
    rows = [row(model=f"m{number}") for number in range(count)]
    jobs = jobs_for(rows, [pool.name for pool in pools], str(tmp_path))
    with connected_pools(pools, None) as client:
        return measure_on_boards(jobs, client, str(tmp_path), {})


def test_a_board_has_one_job_at_a_time_and_one_that_dies_is_removed(tmp_path, fake_boards):
    ran, most = fake_boards
    pools = (
        Pool("pi5", (BoardAddress("a"), BoardAddress("dead"), BoardAddress("b"))),
        Pool("pi4", (BoardAddress("c"),)),
    )
    summary = run(tmp_path, pools, 6)
    assert summary.lost == {"dead": "dead: connection lost"}
    assert summary.errors == {}
    assert set(most.values()) == {1}
    assert sum(name == "dead" for name, _ in ran) == 1
    assert {row["board"] for row in summary.rows if row["device"] == "pi4"} == {"c"}
    assert {row["board"] for row in summary.rows if row["device"] == "pi5"} == {"a", "b"}
    assert len(summary.rows) == 12
    table = pq.read_table(tmp_path / "devices.parquet").to_pylist()
    assert [(row["device"], row["model"]) for row in table] == [
        (device, f"m{number}") for device in ("pi5", "pi4") for number in range(6)
    ]
    # Results that are stored are not measured again.
    before = len(ran)
    again = run(tmp_path, (Pool("pi5", (BoardAddress("a"),)),), 6)
    assert (len(ran), len(again.rows)) == (before, 6)


def test_a_pool_whose_boards_all_die(tmp_path, fake_boards):
    summary = run(tmp_path, (Pool("pi5", (BoardAddress("dead1"), BoardAddress("dead2"))),), 3)
    assert set(summary.lost) == {"dead1", "dead2"}
    assert len(summary.errors) == 3
    assert set(summary.errors.values()) <= {
        "No board of pi5 is left.",
        "2 boards failed with it: dead1: connection lost",
        "2 boards failed with it: dead2: connection lost",
    }
    assert summary.rows == ()


class Here(Board):
    """A board that is this machine."""

    def compare(self, artifacts, inputs, comparison=None):
        return compare_latencies(artifacts, self.target, inputs, Comparison(rounds=7))


@pytest.fixture
def copied(monkeypatch):
    """The files that were copied to boards, which all are this machine, without ssh."""
    files_by_board = {}

    @contextlib.contextmanager
    def open_board(address, folder, files):
        files_by_board.setdefault(address.destination, {}).update(files)
        yield Here(Target(address.destination, str(folder)), SimpleNamespace())

    monkeypatch.setattr(device_jobs, "open_board", open_board)
    return files_by_board


@pytest.fixture
def dense_rows(tmp_path):
    """The rows of a sweep of a model whose bundle is in the store."""
    bundle = artifacts.write_dense_bundle(tmp_path / "dense.edge")
    Store(str(tmp_path / "results")).write_bundle(KEY, bundle.path)
    return [
        row(model="dense", format=item.format, path=item.path, sha256=item.sha256)
        for item in bundle.manifest.artifacts
    ]


def test_bundles_are_measured_on_a_board(tmp_path, monkeypatch, copied, dense_rows):
    monkeypatch.setattr(device_jobs, "cool_down", lambda address: None)
    (job,) = jobs_for(dense_rows, ["pi5"], str(tmp_path / "results"))
    measured = device_jobs.measured_rows(job, BoardAddress("here"))
    expected = {f"{KEY}.edge/{item['path']}": item["sha256"] for item in dense_rows}
    assert copied == {"here": expected}
    assert [(item["format"], item["verdict"], item["board"]) for item in measured] == [
        ("tflite", "pass", "here"),
        ("onnx", "pass", "here"),
    ]
    for item in measured:
        assert 0 < item["low_ms"] <= item["p50_ms"] <= item["high_ms"]
        assert item["latency"] in ("fastest", "no difference measured", "slower")
    json.dumps(measured)


@pytest.mark.parametrize(
    ("temperature", "now", "reason"),
    [(82.0, (), "82.0 °C."), (40.0, ("throttled",), "40.0 °C, throttled.")],
)
def test_a_hot_or_throttled_board_measures_nothing(
    tmp_path, monkeypatch, copied, dense_rows, temperature, now, reason
):
    """It is removed from its pool, and its model is measured on a cool one."""
    tried = threading.Event()

    def describe(address):
        if address.destination == "hot":
            tried.set()
            return SimpleNamespace(temperature_c=temperature, conditions={"now": now})
        # Not before the other one has a job.
        assert tried.wait(60)
        return SimpleNamespace(temperature_c=50.0, conditions={"now": ()})

    monkeypatch.setattr(board, "_describe", describe)
    monkeypatch.setattr(board, "COOL_DOWN_S", 0.0)
    rows = [*dense_rows[:1], {**dense_rows[0], "model": "other"}]
    pools = (Pool("pi5", (BoardAddress("hot"), BoardAddress("cool"))),)
    jobs = jobs_for(rows, ["pi5"], str(tmp_path / "results"))
    with connected_pools(pools, None) as client:
        summary = measure_on_boards(jobs, client, str(tmp_path / "results"), {})
    assert summary.lost == {"hot": f"hot did not cool down within 0 s: {reason}"}
    assert summary.errors == {}
    assert [(item["model"], item["board"]) for item in summary.rows] == [
        ("dense", "cool"),
        ("other", "cool"),
    ]
    assert list(copied) == ["cool"]


def test_commands(tmp_path, edgeattn):
    plan = tmp_path / "plan.toml"
    plan.write_text('results = "results"\n')
    result = edgeattn("sweep", plan, "--python", "x")
    assert (result.code, "no effect without --device" in result.err) == (2, True)
    result = edgeattn("sweep", plan, "--device", "pi5")
    assert (result.code, "no boards are listed" in result.err) == (2, True)
    assert [path.name for path in Path(tmp_path).iterdir()] == ["plan.toml"]


def test_nothing_listens_on_a_network(tmp_path):
    """Whoever reaches a Dask worker can run programs on it."""
    process = psutil.Process()

    def listening():
        return {item.laddr for item in process.net_connections("inet") if item.status == "LISTEN"}

    before = listening()
    with connected_pools((Pool("pi5", (BoardAddress("a"), BoardAddress("b"))),), None):
        added = listening() - before
    assert len(added) >= 3
    assert {address.ip for address in added} == {"127.0.0.1"}


def test_pools_that_no_board_joined(monkeypatch):
    monkeypatch.setattr(board_pools, "JOIN_S", 0.0)
    others = (Pool("pi4", (BoardAddress("a"), BoardAddress("b"))),)
    with connected_pools(others, None) as client:
        address = client.scheduler.address
        boards.BoardPools((Pool("pi4", minimum=2),), address).check()
        for pool, message in (
            (Pool("pi5"), "No board has joined the scheduler as pi5"),
            (Pool("pi4", minimum=3), "2 of 3 boards have joined the scheduler as pi4"),
        ):
            with pytest.raises(DeviceError, match=message) as caught:
                boards.BoardPools((pool,), address).check()
            assert f"--resources {pool.name}=1" in caught.value.hint
    # Nothing listens there, so that no machine is too slow for it.
    monkeypatch.setattr("edgeattn.cluster.scheduler.CONNECT_S", 1.0)
    with pytest.raises(DeviceError, match="does not respond"):
        boards.BoardPools((Pool("pi5"),), "tcp://127.0.0.1:9").check()


def test_workers_that_measure_nothing_right(monkeypatch):
    """Two workers with one board, which would measure each other, and one without a board."""
    monkeypatch.setattr(board_pools, "JOIN_S", 0.0)
    pools = (Pool("pi5", (BoardAddress("a"),)), Pool("pi4", (BoardAddress("a"),)))
    with connected_pools(pools, None) as client:
        check = boards.BoardPools((Pool("pi5"), Pool("pi4")), client.scheduler.address).check
        with pytest.raises(UsageError, match="have the same board, a"):
            check()

        def lose_board(dask_worker):
            del dask_worker.edgeattn_board

        client.run(lose_board)
        with pytest.raises(UsageError, match="has the resource pi5 and no board") as caught:
            check()
        assert "--resources pi5=1" in caught.value.hint
        (ended,) = calls.run_on_boards([calls.BoardCall("pi5", print, None)], client, {})
        assert isinstance(ended.error, UsageError)


def test_a_worker_with_several_threads_is_refused():
    worker = SimpleNamespace(state=SimpleNamespace(nthreads=4))
    with pytest.raises(UsageError, match="has 4 threads"):
        dask_setup.callback(worker, "pi@a", None, None, True)
    worker.state.nthreads = 1
    dask_setup.callback(worker, "pi@a", None, None, True)
    assert worker.edgeattn_board == BoardAddress("pi@a")
