"""One conversion of each model, shared by all tests of planted faults."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle

from .bundles import calibration_digits, convert_all
from .catalog import FAULTS


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "calibration.npz"
    np.savez(path, x=calibration_digits())
    return path


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> dict[str, Bundle]:
    """The bundles by model name, with the artifacts that faults are planted in.

    An artifact with a fault is compared with the float16 artifact of its format.
    """
    selected: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for fault in FAULTS:
        schemes = (fault.scheme, fault.source or fault.scheme, "float16")
        selected[fault.model].update((fault.format, scheme) for scheme in schemes)
    return convert_all(tmp_path_factory.mktemp("faults"), calibration, selected)


@pytest.fixture(scope="session")
def all_converted(tmp_path_factory: pytest.TempPathFactory, calibration: Path) -> dict[str, Bundle]:
    """The bundles by model name, with every format and scheme."""
    return convert_all(tmp_path_factory.mktemp("sound"), calibration)
