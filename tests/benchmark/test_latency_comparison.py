"""Latencies compared in rounds: their order, void rounds, and what counts as a difference."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from artifacts import write_dense_bundle

from edgeattn.benchmark.comparison import (
    MAX_VOID,
    Comparison,
    compare_latencies,
    compare_on_this_device,
    parse_latencies,
)
from edgeattn.errors import DeviceError
from edgeattn.process.worker import WorkerDiedError
from edgeattn.targets.target import local_target

INPUTS = {"input/x": np.zeros((1, 3), np.float32)}


class SimulatedTarget:
    """Workers whose runs take the times that ``block`` returns, in milliseconds.

    ``block(number, round)`` is called for each block, and may raise an error. ``throttled`` says
    whether a block is throttled. ``blocks`` are the numbers of the artifacts in the order in which
    they ran.
    """

    folder = "none"

    def __init__(self, block, throttled=lambda number, round: False):
        self.blocks = []
        self._block, self._throttled, self._started = block, throttled, 0

    @contextlib.contextmanager
    def start(self):
        number, self._started = self._started, self._started + 1
        yield SimulatedWorker(self, number)

    def run(self, number):
        self.blocks.append(number)
        round = self.blocks.count(number)
        times = np.int64(np.asarray(self._block(number, round)) * 1e6)
        return bool(self._throttled(number, round)), times


class SimulatedWorker:
    def __init__(self, target, number):
        self._target, self._number, self._warm = target, number, False

    def call(self, function, arguments, tensors=None, **limits):
        if function.endswith(":load"):
            return {"runtime": "simulated 1.0", "load_ms": 1.0}, {}
        throttled, times = False, np.array([1], np.int64)
        if self._warm:
            throttled, times = self._target.run(self._number)
        self._warm = True
        conditions = {"throttled": throttled, "temperature_c": None, "memory_bytes": 1}
        return conditions, {"nanoseconds": times}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_dense_bundle(tmp_path_factory.mktemp("b") / "b.edge").manifest.artifacts[0]


def compare(target, artifact, count, rounds=25):
    return compare_latencies([artifact] * count, target, INPUTS, Comparison(rounds=rounds))


def test_every_round_has_one_block_of_each_artifact_in_changing_order(artifact):
    target = SimulatedTarget(lambda number, round: [number + 1.0, number + 3.0])
    results = compare(target, artifact, 3, rounds=8)
    rounds = [target.blocks[start : start + 3] for start in range(0, 24, 3)]
    assert len(target.blocks) == 24
    assert all(sorted(round) == [0, 1, 2] for round in rounds)
    assert len({tuple(round) for round in rounds}) > 2
    # The value of a round is the median of its runs.
    assert [result.estimate for result in results] == [(n, n, n) for n in (2.0, 3.0, 4.0)]
    assert results[0].runtime == "simulated 1.0"


def test_throttled_rounds_are_void_and_repeated(artifact):
    target = SimulatedTarget(
        lambda number, round: [9.0 if number == 0 and round in (2, 3) else 1.0],
        lambda number, round: number == 0 and round in (2, 3),
    )
    first, second = compare(target, artifact, 2, rounds=7)
    assert (first.void, first.estimate) == (2, (1.0, 1.0, 1.0))
    assert (second.void, len(second.rounds_ms)) == (0, 7)


def test_a_board_that_stays_throttled_measures_nothing(artifact):
    target = SimulatedTarget(lambda number, round: [1.0], lambda number, round: True)
    (result,) = compare(target, artifact, 1)
    assert (result.estimate, result.void) == (None, MAX_VOID)
    assert "throttled in 25 rounds" in result.reason


def test_an_artifact_that_crashes_has_no_interval_and_the_others_do(artifact):
    def block(number, round):
        if number == 1 and round == 9:
            raise WorkerDiedError("ended with signal 11")
        return [1.0]

    first, second = compare(SimulatedTarget(block), artifact, 2, rounds=10)
    assert first.estimate == (1.0, 1.0, 1.0)
    assert second.estimate is None
    assert "signal 11" in second.reason


def test_the_time_limit_leaves_enough_rounds_for_an_interval(artifact):
    target = SimulatedTarget(lambda number, round: [1.0])
    results = compare_latencies([artifact] * 2, target, INPUTS, Comparison(seconds=0.0))
    # Two artifacts: 0.5^7 is less than 0.025 / 2.
    assert [len(result.rounds_ms) for result in results] == [7, 7]


def test_real_artifacts(tmp_path):
    bundle = write_dense_bundle(tmp_path / "b.edge")
    artifacts = [*bundle.manifest.artifacts, replace(bundle.manifest.artifacts[0], sha256="0" * 64)]
    inputs = {"input/x": bundle.reference()["input/x"]}
    results = compare_latencies(artifacts, local_target(bundle), inputs, Comparison(rounds=6))
    for result in results[:2]:
        median, low, high = result.estimate
        assert 0 < low <= median <= high
    assert results[2].estimate is None
    assert "was changed" in results[2].reason or "differs" in results[2].reason


def test_replies_of_a_device_are_checked():
    valid = {"rounds_ms": [1.0] * 6, "runtime": "x 1", "void": 0, "reason": None}
    (parsed,) = parse_latencies([valid], 1)
    assert parsed.estimate == (1.0, 1.0, 1.0)
    failed = {**valid, "rounds_ms": [], "reason": "no\nruntime"}
    assert parse_latencies([failed], 1)[0].reason == "no runtime"
    for change in (
        {"rounds_ms": [1.0] * 5},
        {"rounds_ms": [float("nan")] * 6},
        {"rounds_ms": [-1.0] * 6},
        {"rounds_ms": [True] * 6},
        {"runtime": "x\x1b[0m"},
        {"void": "0"},
    ):
        with pytest.raises(DeviceError, match="malformed reply"):
            parse_latencies([{**valid, **change}], 1)
    for reply in ([valid, valid], None, {}, [None]):
        with pytest.raises(DeviceError, match="malformed reply"):
            parse_latencies(reply, 1)


def test_the_function_of_the_device_returns_what_is_parsed(tmp_path, monkeypatch):
    from edgeattn.targets.on_device import session

    monkeypatch.setattr(session, "IDLE_TIMEOUT", 0)
    bundle = write_dense_bundle(tmp_path / "b.edge", formats=("onnx",))
    reply = compare_on_this_device(
        str(bundle.path),
        [item.to_json() for item in bundle.manifest.artifacts],
        {"rounds": 6, "seconds": 1.0},
        {"seconds": 60.0},
        {"input/x": bundle.reference()["input/x"]},
    )
    (result,) = parse_latencies(reply, 1)
    assert result.estimate is not None
