"""Comparisons with tf_keras, which start a process, in some tests of this folder; and policies."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator

import pytest

# Compares the models of all tests.
ALL = "EDGEATTN_COMPARE_ALL"


@pytest.fixture(autouse=True)
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the comparison, but in tests marked ``compared`` and in a third of the long ones,
    always the same: it takes seconds. ``compared(quick=False)`` marks the long variants only."""
    node = request.node
    marker, is_long = node.get_closest_marker("compared"), node.get_closest_marker("long")
    is_marked = marker and (is_long or marker.kwargs.get("quick", True))
    is_third = is_long and zlib.crc32(node.nodeid.encode()) % 3 == 0
    if os.environ.get(ALL) or is_marked or is_third:
        return
    leave_out(monkeypatch)


@pytest.fixture(autouse=True)
def default_policies() -> Iterator[None]:
    """Restore them: a policy that a program sets does not follow ``floatx`` any more."""
    yield
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].mixed_precision.set_global_policy(None)
    if "keras" in sys.modules:
        from keras.src.backend.common import global_state

        global_state.set_global_attribute("dtype_policy", None)


@pytest.fixture
def not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it out in a test of notes that a comparison replaces."""
    leave_out(monkeypatch)


def leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeattn_converters.loading.with_tf_keras import tf_keras_check

    monkeypatch.setattr(tf_keras_check, "with_comparison", lambda loaded, *_: loaded)
