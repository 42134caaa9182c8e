"""Bundles that the tests of planted faults share: one conversion of each model."""

from __future__ import annotations

import numpy as np
import pytest

from edgeattn.bundle.bundle import Bundle

from .making import bundles, digits_to_calibrate_on


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("faults")
    calibration = folder / "calibration.npz"
    np.savez(calibration, x=digits_to_calibrate_on())
    return bundles(folder, calibration)
