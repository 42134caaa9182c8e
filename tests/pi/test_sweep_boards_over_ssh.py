"""Boards reached over ssh that join a Dask scheduler and measure the bundles of a sweep."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import artifacts
import pytest
from sshd import DIES_WHILE_IT_MEASURES, local_sshd, python_on_board

from tuning_candidates import candidates_of

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
pytest.importorskip("distributed", reason="dask is not installed")

import pyarrow.parquet as pq

from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import DeviceError
from edgeattn_converters.boards.pools import JOIN, Pool, parse_pools
from edgeattn_converters.sweep.boards import BoardPools
from edgeattn_converters.sweep.store import Store
from edgeattn_converters.tuning.device_pool import check_pool

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[2]
KEY = "0" * 64
SEARCH_PATH = f"{PROJECT}:{PROJECT}/converters:{':'.join(sys.path)}"


@pytest.fixture(scope="module")
def board(server, board_home):
    """The host, the ssh configuration and the Python of a board."""
    return server.host, server.config, python_on_board(board_home)


@pytest.fixture
def rows(tmp_path):
    """The rows of a sweep of one model, whose bundle is in the store."""
    bundle = artifacts.write_dense_bundle(tmp_path / "dense.edge")
    Store(str(tmp_path / "results")).write_bundle(KEY, bundle.path)
    return [
        {
            "model": "dense",
            "target": None,
            "lowering": "auto",
            "verdict": "pass",
            "format": item.format,
            "scheme": item.scheme,
            "path": item.path,
            "sha256": item.sha256,
            "bundle": f"bundles/{KEY}.edge",
        }
        for item in bundle.manifest.artifacts
    ]


def check(summary, host):
    assert (summary.lost, summary.errors) == ({}, {})
    assert [(row["format"], row["verdict"]) for row in summary.rows] == [
        ("tflite", "pass"),
        ("onnx", "pass"),
    ]
    assert all(row["board"] == host and row["p50_ms"] > 0 for row in summary.rows)


def test_boards_that_are_listed(board, rows, tmp_path):
    host, config, python = board
    listed = parse_pools([f"pi5={host},nobody@{host}"], python, config, scheduler=False)
    pools = BoardPools(listed, None)
    pools.check()
    summary = pools.measure(rows, str(tmp_path / "results"))
    assert list(summary.lost) == [f"nobody@{host}"]
    assert [row["verdict"] for row in summary.rows] == ["pass", "pass"]
    with pytest.raises(DeviceError, match="No board of pi5 responds"):
        BoardPools(
            parse_pools([f"pi5=nobody@{host}"], python, config, scheduler=False), None
        ).check()


def test_a_board_that_dies_in_the_middle(server, board_home, rows, tmp_path):
    """Its process is killed while it measures: another board has its model."""
    dying_home = tmp_path / "dying"
    stub = dying_home / "stub" / "sitecustomize"
    for folder in (board_home / "edge/bin", dying_home / "edge/bin", stub):
        folder.mkdir(parents=True)
    (stub / "__init__.py").write_text(DIES_WHILE_IT_MEASURES)
    # Found by both hosts where deploy --install puts it.
    python_on_board(board_home, "edge/bin/python")
    path = f"PYTHONPATH={stub.parent}:{PROJECT}:{':'.join(sys.path)}"
    python_on_board(dying_home, "edge/bin/python", path)
    with local_sshd(dying_home, "dying") as dying:
        config = tmp_path / "config"
        config.write_text(server.config.read_text() + dying.config.read_text())
        hosts = f"pi5={dying.host},{server.host}"
        pools = BoardPools(parse_pools([hosts], None, config, scheduler=False), None)
        pools.check()
        others = [{**item, "model": f"model {n}"} for n in range(4) for item in rows]
        summary = pools.measure(others, str(tmp_path / "results"))
    assert list(summary.lost) == ["dying"]
    assert summary.errors == {}
    assert [(row["model"], row["board"], row["verdict"]) for row in summary.rows] == [
        (row["model"], server.host, "pass") for row in others
    ]


def start(folder, name, *arguments):
    command = [sys.executable, "-m", f"distributed.cli.{name}", *map(str, arguments)]
    environment = {"PYTHONPATH": SEARCH_PATH, "PATH": "/usr/bin:/bin"}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)


def test_a_board_that_joins_a_scheduler(board, rows, tmp_path):
    """By the command that messages and docs/sweeps.md have."""
    host, config, python = board
    options = JOIN.format(name="pi5").replace("USER@HOST", host).split()[3:]
    scheduler = tmp_path / "scheduler.json"
    processes = [
        start(
            *(tmp_path, "dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--no-dashboard", "--scheduler-file", scheduler),
        )
    ]
    try:
        end = time.monotonic() + 120
        while not scheduler.is_file():
            assert processes[0].poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        address = json.loads(scheduler.read_text())["address"]
        processes.append(
            start(
                *(tmp_path, "dask_worker", address, *options),
                *("--board-ssh-config", config, "--board-python", python),
            )
        )
        pools = BoardPools(parse_pools(["pi5"], None, None, scheduler=True), address)
        pools.check()
        check(pools.measure(rows, str(tmp_path / "results")), host)
        assert (tmp_path / "results" / "devices.parquet").is_file()
        # The candidates of a search, too, on the same board.
        candidates = candidates_of(Bundle.open(tmp_path / "dense.edge"))
        choice = check_pool(Pool("pi5"), address, ("tflite", "onnx")).choose(candidates)
        assert (choice.lost, choice.measured["on"]) == ({}, host)
        assert all(result.p50_ms > 0 for result in choice.results)
        assert choice.chosen in choice.results
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_the_command(board, tmp_path):
    """From a Keras file to the latencies on two boards, one of which does not respond."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    host, config, python = board
    model = PROJECT / "sample_models" / "find_max" / "model.h5"
    (tmp_path / "plan.toml").write_text(
        'results = "results"\nschemes = ["float32"]\nformats = ["tflite"]\n'
        'lowerings = ["auto", "fused"]\n'
        f'[[models]]\npath = "{model}"\ndata = ["{model.with_name("samples.npz")}"]\n'
    )
    command = [
        *(sys.executable, "-P", "-m", "edgeattn", "sweep", "plan.toml"),
        *("--device", f"pi5=nobody@{host},{host}", "--ssh-config", config, "--python", python),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"nobody@{host} was removed: " in done.stdout
    assert "Measured: 2 pass on pi5" in done.stdout
    again = subprocess.run(
        [*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    document = json.loads(again.stdout)
    assert (document["done"], document["devices"]["rows"]) == (0, 2)
    rows = pq.read_table(tmp_path / "results" / "devices.parquet").to_pylist()
    assert [(row["lowering"], row["verdict"], row["board"]) for row in rows] == [
        ("auto", "pass", host),
        ("fused", "pass", host),
    ]
    assert {row["latency"] for row in rows} <= {"fastest", "slower", "no difference measured"}
