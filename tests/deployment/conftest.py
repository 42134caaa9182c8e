"""The device of the deployment tests, and two bundles for it."""

import signal

import artifacts
import local_device
import pytest
from local_device import end_process

from edgeattn.deployment.on_device import steps
from edgeattn.device import runtime_check
from edgeattn.runners import isolated
from edgeattn.targets import connection
from edgeattn.targets.on_device import session
from edgeattn.validation import validate as validation


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The device's home folder. A NumPy model replaces the runtimes; pieces have 700 bytes."""
    for module, name in (
        (validation, "validate_isolated"),
        (isolated, "IsolatedRunner"),
        (runtime_check, "check_runtimes"),
        (session, "IDLE_TIMEOUT"),
        (steps, "LOCK_TIMEOUT"),
        (connection, "PIECE_SIZE"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    local_device.replace_runtimes()
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    yield folder
    end_process()
    signal.alarm(0)


@pytest.fixture
def old(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "old.edge", count=64)


@pytest.fixture
def new(tmp_path):
    return artifacts.write_dense_bundle(tmp_path / "new.edge", count=80)
