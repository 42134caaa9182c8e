"""``tune --device``: one board of a pool measures all candidates; if it fails, another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import artifacts
import pytest

from tuning_candidates import candidates_of

pytest.importorskip("distributed", reason="dask is not installed")

from distributed import get_worker

from edgeattn.benchmark.board import BoardAddress
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import DeviceError, RuntimeUnavailableError
from edgeattn_converters.boards import pools
from edgeattn_converters.boards.pools import Pool, connected_pools
from edgeattn_converters.tuning import device_pool
from edgeattn_converters.tuning.device_pool import CheckedPool, check_pool
from edgeattn_converters.tuning.evaluation import CandidateEvaluator
from edgeattn_converters.tuning.latency import Choice, choose
from edgeattn_converters.tuning.search import Candidate, Result

DIGITS = Path(__file__).parents[3] / "sample_models" / "digits"
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
        assert all(map(len, candidates.inputs.values()))
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


@pytest.mark.long
def test_one_command_converts_on_workers_and_measures_on_a_board(
    tmp_path, monkeypatch, edgeattn, log
):
    """``tune --scheduler --device``: one of the two boards fails while it measures."""
    monkeypatch.chdir(tmp_path)
    for name in ("model.h5", "samples.npz"):
        (tmp_path / name).write_bytes((DIGITS / name).read_bytes())
    choose_on_fake_board, evaluate_here = device_pool.choose_on_board, CandidateEvaluator.evaluate

    def choose_on_board(candidates, on):
        measured = choose_on_fake_board(candidates, on).measured
        here = choose(candidates)
        return replace(here, measured={**here.measured, **measured})

    def evaluate(self, candidate, *arguments):
        try:
            place = get_worker() and "a worker"
        except ValueError:
            place = "this process"
        log.append((place, candidate.scheme))
        return evaluate_here(self, candidate, *arguments)

    monkeypatch.setattr(device_pool, "choose_on_board", choose_on_board)
    monkeypatch.setattr(CandidateEvaluator, "evaluate", evaluate)
    command = ["tune", "model.h5", "--data", "samples.npz", "--format", "onnx", "--most", "2"]
    command += ["--scheme", "float32", "--scheme", "float16", "--for", "latency"]
    command += ["--device", "pi5=2", "--plot", "plot.svg"]
    with connected_pools((pool("dies1a", "dies1b"),), None) as client:
        address = client.scheduler.address
        result = edgeattn(*command, "--scheduler", address, "--json")
        assert result.code == 0, result.err
        document = result.document
        ((lost, reason),) = document["lost"].items()
        board = document["latency"]["on"]
        assert ({lost, board}, document["latency"]["device"]) == ({"dies1a", "dies1b"}, "a Pi")
        assert "connection lost" in reason
        # Before the conversions, a board is checked; one measures after them, or another one.
        conversions = [k for k, (name, _) in enumerate(log) if name == "a worker"]
        assert sorted(log[k][1] for k in conversions) == ["float16", "float32"]
        before = [event for _, event in log[: conversions[0]]]
        after = [event for _, event in log[conversions[-1] + 1 :]]
        assert set(before) == {("onnx",)}, log
        assert after[:3] == after[-3:] == [("onnx",), "cool", "measured"], log
        measured = [name for name, event in log if event == "measured"]
        assert (measured[0], measured[-1]) == (lost, board)
        assert {entry["scheme"] for entry in document["tried"]} == {"float32", "float16"}
        assert all(entry["p50_ms"] > 0 for entry in document["tried"])
        assert document["chosen"]["verdict"] == "pass"
        assert Path("plot.svg").stat().st_size
    bundle = Bundle.open(tmp_path / "model.tuned.edge")
    (artifact,) = bundle.manifest.artifacts
    assert artifact.scheme == document["chosen"]["scheme"]
