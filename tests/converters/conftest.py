"""TensorFlow for the tests of the host's half: quiet, on the CPU, imported once a process."""

from __future__ import annotations

import os

import pytest

from edgeattn.process.worker import SANDBOX
from edgeattn_converters.worker.processes import ENVIRONMENT

# Before anything imports Keras: the environment that conversion stages run in.
NOT_FOR_TESTS = ("PYTHONWARNINGS", SANDBOX)
os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in NOT_FOR_TESTS})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """TensorFlow, Keras and tf2onnx warn of their own doings; the tests are about ours."""
    for item in items:
        if "converters" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))
