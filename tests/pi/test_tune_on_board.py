"""Latencies measured on a board through a real ssh and sshd, and boards that fail."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import artifacts
import pytest
from sshd import DIES_WHILE_IT_MEASURES, python_on_board

from edgeattn.benchmark.board import BoardAddress, check_board, open_board
from edgeattn.benchmark.comparison import Comparison
from edgeattn.errors import DeviceError, RuntimeUnavailableError

PROJECT = Path(__file__).parents[2]
NO_RUNTIME = "raise ImportError('no runtime on this board')\n"


def without_runtimes(home: Path, *modules: str) -> str:
    """A Python that cannot import these runtimes."""
    stubs = home / "-".join(modules)
    for module in modules:
        (stubs / module).mkdir(parents=True)
        (stubs / module / "__init__.py").write_text(NO_RUNTIME)
    path = f"PYTHONPATH={stubs}:{PROJECT}:{':'.join(sys.path)}"
    return python_on_board(home, f"without-{stubs.name}", path)


@pytest.fixture(scope="module")
def address(server, board_home):
    return BoardAddress(server.host, python_on_board(board_home), server.config)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return artifacts.write_dense_bundle(tmp_path_factory.mktemp("bundle") / "dense.edge")


def opened(address, bundle):
    files = {item.path: item.sha256 for item in bundle.manifest.artifacts}
    return open_board(address, bundle.path, files)


def inputs(bundle):
    return {"input/x": bundle.reference()["input/x"]}


def test_artifacts_are_measured_and_validated_on_the_board(address, bundle):
    device = check_board(address, ("tflite", "onnx"))
    assert device.cores == os.cpu_count()
    selected = bundle.manifest.artifacts
    with opened(address, bundle) as board:
        results = board.compare(selected, inputs(bundle), Comparison(rounds=7))
        report = board.validate(bundle, selected)
    assert report.verdict == "pass"
    assert [len(result.rounds_ms) for result in results] == [7, 7]
    assert [result.runtime.split()[0] for result in results] == ["ai-edge-litert", "onnxruntime"]
    for result in results:
        median, low, high = result.estimate
        assert 0 < low <= median <= high


def test_wrong_outputs_do_not_pass_on_the_board(address, tmp_path):
    bias = artifacts.BIAS + 1e-2
    wrong = artifacts.write_dense_bundle(tmp_path / "wrong.edge", formats=("onnx",), bias=bias)
    with opened(address, wrong) as board:
        assert board.validate(wrong, wrong.manifest.artifacts).verdict == "fail"


def test_a_connection_that_is_lost_in_the_middle(address, bundle, server):
    """The process of the board is killed while it measures."""
    processes = f"{server.config.parent}/sshd.pid"
    daemon = Path(processes).read_text().strip()

    def sessions():
        text = subprocess.run(["ps", "-o", "pid=", "--ppid", daemon], capture_output=True).stdout
        return [int(pid) for pid in text.split()]

    with opened(address, bundle) as board:
        connection = board.connection
        call = connection.worker.call

        def call_and_lose(function, *arguments, **keywords):
            if function.endswith(":compare_on_this_device"):
                for pid in sessions():
                    os.kill(pid, signal.SIGKILL)
            return call(function, *arguments, **keywords)

        connection.worker.call = call_and_lose
        with pytest.raises(DeviceError, match=server.host):
            board.compare(bundle.manifest.artifacts, inputs(bundle))


@pytest.mark.long
def test_boards_without_a_runtime(server, board_home):
    both = without_runtimes(board_home, "ai_edge_litert", "tflite_runtime", "onnxruntime")
    with pytest.raises(
        RuntimeUnavailableError, match="No runtime for onnx or tflite files"
    ) as caught:
        check_board(BoardAddress(server.host, both, server.config), ("tflite", "onnx"))
    assert caught.value.exit_code == 5
    assert "--format" not in caught.value.hint
    one = BoardAddress(server.host, without_runtimes(board_home, "onnxruntime"), server.config)
    with pytest.raises(RuntimeUnavailableError, match="No runtime for onnx files") as caught:
        check_board(one, ("tflite", "onnx"))
    assert "--format tflite" in caught.value.hint
    check_board(one, ("tflite",))


@pytest.mark.long
def test_boards_without_this_edgeattn(server, board_home):
    other = board_home / "other"
    (other / "sitecustomize").mkdir(parents=True)
    start = "import edgeattn.version\nedgeattn.version.__version__ = '0.0.1'\n"
    (other / "sitecustomize" / "__init__.py").write_text(start)
    path = f"PYTHONPATH={other}:{PROJECT}:{':'.join(sys.path)}"
    with pytest.raises(DeviceError, match=r"has edgeattn 0\.0\.1, this machine has"):
        check_board(
            BoardAddress(server.host, python_on_board(board_home, "older", path), server.config),
            ("onnx",),
        )
    plain = board_home / "no-edgeattn"
    plain.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    plain.chmod(0o755)
    with pytest.raises(DeviceError, match="No module named") as caught:
        check_board(BoardAddress(server.host, str(plain), server.config), ("onnx",))
    assert "--install" in caught.value.hint


def tune(tmp_path, *arguments):
    """``edgeattn tune`` of a file that is no model: the board is checked before it is read."""
    for name in ("model.keras", "data.npz"):
        (tmp_path / name).write_bytes(b"none")
    return subprocess.run(
        [
            *(sys.executable, "-P", "-m", "edgeattn", "tune", "model.keras", "--data", "data.npz"),
            *arguments,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT}/converters"},
    )


def test_an_unreachable_board_ends_a_search_before_it_converts(server, tmp_path):
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("Port ", "Port 1 # "))
    process = tune(tmp_path, "--on", server.host, "--ssh-config", str(config))
    assert process.returncode == 5
    assert server.host in process.stderr
    assert "Connection refused" in process.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "data.npz", "model.keras"]


def test_options_without_a_board(tmp_path):
    for option in ("--python", "--ssh-config"):
        process = tune(tmp_path, option, "x")
        assert process.returncode == 2
        assert f"{option} has no effect without --on or --device" in process.stderr
    process = tune(tmp_path, "--on", "-oProxyCommand=x")
    assert process.returncode == 2
    assert "Not a host that ssh can reach" in process.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "model.keras"]


@pytest.mark.long
def test_more_artifacts_than_an_sshd_allows_sessions(address, bundle):
    """OpenSSH allows 10 sessions per connection by default."""
    selected = bundle.manifest.artifacts * 6
    with opened(address, bundle) as board:
        results = board.compare(selected, inputs(bundle), Comparison(rounds=1))
    assert all(result.estimate is not None for result in results)


@pytest.mark.long
def test_a_board_that_dies_while_it_measures_a_search(server, board_home, tmp_path):
    """No bundle is written, and the next run measures the files that were converted."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("conversion needs TensorFlow")
    stub = board_home / "dying" / "sitecustomize"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text(DIES_WHILE_IT_MEASURES)
    path = f"PYTHONPATH={stub.parent}:{PROJECT}:{':'.join(sys.path)}"
    model = PROJECT / "sample_models" / "find_max"
    for name in ("model.h5", "samples.npz"):
        shutil.copy(model / name, tmp_path)

    def search(interpreter, *board):
        command = [
            *(sys.executable, "-P", "-m", "edgeattn", "tune", "model.h5", "--data", "samples.npz"),
            *("--format", "onnx", "--scheme", "float32", "--for", "latency", "--json"),
            *(*board, "--ssh-config", str(server.config), "--python", interpreter),
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    died = search(python_on_board(board_home, "dying-python", path), "--on", server.host)
    assert died.returncode == 5, died.stderr
    assert server.host in json.loads(died.stdout)["error"]["message"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".model.tuned.edge.search", "model.h5", "samples.npz"]
    tried = (tmp_path / ".model.tuned.edge.search" / "tried.jsonl").read_text().splitlines()
    # On a pool, one of whose boards does not respond.
    pool = f"pi5=nobody@{server.host},{server.host}"
    done = search(python_on_board(board_home), "--device", pool)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    (chosen,) = document["tried"]
    assert json.loads(tried[1])["artifact"]["bytes"] == chosen["bytes"]
    assert (document["latency"]["on"], chosen["compared_with_fastest"]) == (server.host, "fastest")
    assert list(document["lost"]) == [f"nobody@{server.host}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("model.h5", "model.tuned.edge", "samples.npz")
    ]
