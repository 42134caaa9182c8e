"""One conversion of each model, shared by all tests of planted faults."""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle

from .bundles import calibration_digits, convert_all


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("faults")
    calibration = folder / "calibration.npz"
    np.savez(calibration, x=calibration_digits())
    return convert_all(folder, calibration)
