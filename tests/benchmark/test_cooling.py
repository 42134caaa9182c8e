"""A board must be cool and not throttled before it measures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgeattn.benchmark.board import COOL_C, COOL_DOWN_S, COOL_POLL_S, BoardAddress, cool_down
from edgeattn.errors import DeviceError

BOARD = BoardAddress("pi@board")


def readings(*states):
    """A function that returns these temperatures and active conditions, the last one for ever."""
    remaining = [
        SimpleNamespace(temperature_c=celsius, conditions=None if now is None else {"now": now})
        for celsius, now in states
    ]

    def read(address):
        assert address is BOARD
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]

    return read


@pytest.mark.parametrize(
    ("states", "waits"),
    [
        ([(40.0, ())], 0),
        ([(None, None)], 0),
        ([(COOL_C, ()), (COOL_C - 0.1, ())], 1),
        ([(80.0, ("throttled",)), (60.0, ("throttled",)), (50.0, ())], 2),
    ],
)
def test_it_waits_until_the_board_is_cool(states, waits):
    waited = []
    cool_down(BOARD, readings(*states), waited.append)
    assert waited == [COOL_POLL_S] * waits


def test_a_board_that_stays_hot_is_an_error():
    waited = []
    with pytest.raises(
        DeviceError, match=r"pi@board did not cool down within 600 s: 82\.0 °C"
    ) as e:
        cool_down(BOARD, readings((82.0, ("throttled",))), waited.append)
    assert "throttled" in e.value.message
    assert sum(waited) == COOL_DOWN_S
