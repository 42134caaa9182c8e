"""``tune --device``: one board of a pool measures all candidates; if it fails, another one."""

from __future__ import annotations

from dataclasses import replace

import artifacts
import pytest

from tuning_candidates import candidates_of

pytest.importorskip("distributed", reason="dask is not installed")

from edgeattn.benchmark.board import BoardAddress
from edgeattn.errors import DeviceError, RuntimeUnavailableError
from edgeattn_converters.boards import pools
from edgeattn_converters.boards.pools import Pool, connected_pools
from edgeattn_converters.tuning import device_pool
from edgeattn_converters.tuning.device_pool import CheckedPool, check_pool
from edgeattn_converters.tuning.latency import Choice
from edgeattn_converters.tuning.search import Candidate, Result

FORMATS = ("tflite", "onnx")


def pool(*boards):
    return Pool("pi5", tuple(map(BoardAddress, boards)))


@pytest.fixture
def candidates(tmp_path):
    """The results of a search, whose files are those of a bundle."""
    return candidates_of(artifacts.write_dense_bundle(tmp_path / "dense.edge"))


@pytest.fixture
def log(monkeypatch):
    """What happened on boards. The name of a board says how it fails, with a 1 only the first."""
    events = []

    def fails(address, kind, event):
        name = address.destination
        first = event not in [happened for _, happened in events]
        events.append((name, event))
        return name.startswith(kind) and (first or "1" not in name)

    def check_board(address, formats):
        if fails(address, "off", formats):
            raise DeviceError(f"{address.destination}: no route")
        if address.destination.startswith("bare"):
            raise RuntimeUnavailableError(f"No runtime for {formats[0]} files works.")
        return "a Pi"

    def cool_down(address):
        if fails(address, "hot", "cool"):
            raise DeviceError(f"{address.destination} did not cool down within 600 s.")

    def choose_on_board(candidates, on):
        # The gateway has copies of all files.
        assert len(candidates.inputs["input/x"])
        for artifact in candidates.artifacts.values():
            assert (candidates.folder / artifact.path).stat().st_size == artifact.bytes
        if fails(on.address, "dies", "measured"):
            raise DeviceError(f"{on.address.destination}: connection lost")
        measured = {"on": on.address.destination, "device": on.device}
        return Choice(candidates.results, candidates.results[0], measured)

    monkeypatch.setattr(pools, "check_board", check_board)
    for function in (check_board, cool_down, choose_on_board):
        monkeypatch.setattr(device_pool, function.__name__, function)
    monkeypatch.setattr("edgeattn_converters.boards.calls.POLL_S", 0.2)
    return events


def test_one_board_measures_all_candidates(candidates, log):
    checked = check_pool(pool("off", "a"), None, FORMATS)
    assert checked == CheckedPool(pool("a"), None, FORMATS, {"off": "off: no route"})
    assert log == [("off", FORMATS), ("a", FORMATS)]
    del log[:]
    choice = checked.choose(candidates)
    assert (choice.results, choice.chosen) == (candidates.results, candidates.results[0])
    assert (choice.measured, choice.lost) == (
        {"on": "a", "device": "a Pi"},
        {"off": "off: no route"},
    )
    assert log == [("a", FORMATS), ("a", "cool"), ("a", "measured")]


@pytest.mark.parametrize(
    ("kind", "reason"), [("hot", "did not cool down within 600 s"), ("dies", "connection lost")]
)
def test_another_board_measures_if_one_fails(candidates, log, kind, reason):
    choice = CheckedPool(pool(f"{kind}1a", f"{kind}1b"), None, FORMATS, {}).choose(candidates)
    ((lost, message),) = choice.lost.items()
    assert reason in message
    assert {lost, choice.measured["on"]} == {f"{kind}1a", f"{kind}1b"}
    assert log[-3:] == [(choice.measured["on"], event) for event in (FORMATS, "cool", "measured")]


def test_two_boards_that_fail_end_the_search(candidates, log):
    with pytest.raises(DeviceError, match="No board of pi5 has measured") as caught:
        CheckedPool(pool("dies a", "dies b", "dies c"), None, FORMATS, {}).choose(candidates)
    assert caught.value.message.count("connection lost") == 2
    assert "Rerun the command to resume" in caught.value.hint


def test_boards_without_a_runtime_end_the_search_before_it_converts(log):
    """Whether they are listed or have joined; they are no lost boards."""
    with pytest.raises(RuntimeUnavailableError, match="No runtime for tflite files"):
        check_pool(pool("bare", "a"), None, FORMATS)
    with connected_pools((pool("bare"),), None) as client:
        with pytest.raises(RuntimeUnavailableError, match="No runtime for tflite files"):
            check_pool(Pool("pi5"), client.scheduler.address, FORMATS)
        assert len(client.scheduler_info()["workers"]) == 1


def test_boards_that_joined_a_scheduler(candidates, log):
    with connected_pools((pool("a"),), None) as client:
        checked = check_pool(Pool("pi5"), client.scheduler.address, FORMATS)
        assert log == [("a", FORMATS)]
        assert checked.choose(candidates).measured == {"on": "a", "device": "a Pi"}


def test_nothing_to_measure_needs_no_board(candidates, log):
    results = (Result(Candidate("onnx", "float32"), "not converted"),)
    choice = CheckedPool(pool("off"), None, FORMATS, {}).choose(
        replace(candidates, results=results)
    )
    assert (choice.results, choice.chosen, log) == (results, None, [])


def test_options(tmp_path, edgeattn):
    for name in ("model.keras", "data.npz"):
        (tmp_path / name).write_bytes(b"none")
    command = ("tune", tmp_path / "model.keras", "--data", tmp_path / "data.npz")
    for arguments, message in (
        (("--on", "pi@a", "--device", "pi5=pi@a"), "--on and --device exclude each other"),
        (("--device", "pi5"), "no boards are listed"),
        (("--device", "pi5=pi@a", "--scheduler", "tcp://127.0.0.1:9"), "boards join the scheduler"),
    ):
        result = edgeattn(*command, *arguments)
        assert (result.code, message in result.err) == (2, True), result.err
    assert len(list(tmp_path.iterdir())) == 2
