"""Limits of consecutive calls, in one thread. Deadlines are past at once, or never."""

import threading

import pytest

from edgeattn.process.watchdog import Watchdog

NEVER = 1e9


@pytest.fixture
def expired():
    return threading.Semaphore(0)


@pytest.fixture
def watchdog(expired):
    watchdog = Watchdog(expired.release)
    yield watchdog
    watchdog.close()


def test_a_call_that_exceeds_its_limit(watchdog, expired):
    watchdog.start(0)
    assert expired.acquire(timeout=60)
    assert watchdog.stop()
    # Only that call, and only once.
    assert not watchdog.stop()
    assert not expired.acquire(blocking=False)


def test_a_call_that_does_not(watchdog, expired):
    watchdog.start(NEVER)
    assert not watchdog.stop()
    assert not expired.acquire(blocking=False)


@pytest.mark.parametrize("limits", [(NEVER, 0), (0, NEVER, 0), (NEVER, NEVER, 0)])
def test_each_call_has_its_own_limit(watchdog, expired, limits):
    for limit in limits:
        watchdog.start(limit)
        assert limit == NEVER or expired.acquire(timeout=60)
        assert watchdog.stop() == (limit == 0)


def test_one_thread_serves_all_calls_until_it_is_closed(watchdog, expired):
    before = set(threading.enumerate())
    for _ in range(3):
        watchdog.start(NEVER)
        watchdog.stop()
    (thread,) = set(threading.enumerate()) - before
    watchdog.close()
    thread.join(60)
    assert not thread.is_alive()
    # The next call starts another one.
    watchdog.start(0)
    assert expired.acquire(timeout=60)
