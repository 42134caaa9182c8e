"""Comparisons with tf_keras, which start a process, in some of the tests of this folder only."""

from __future__ import annotations

import os

import pytest

# Compares the models of all tests.
ALL = "EDGEATTN_COMPARE_ALL"


@pytest.fixture(autouse=True)
def compared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the comparison in tests that are neither long nor marked ``compared``."""
    if os.environ.get(ALL) or any(map(request.node.get_closest_marker, ("long", "compared"))):
        return
    from edgeattn_converters.loading import tf_keras_check

    monkeypatch.setattr(tf_keras_check, "with_comparison", lambda loaded, *_: loaded)
